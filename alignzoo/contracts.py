"""What an algorithm, a reward, a reference, a data source and a hosted trainer are. Plugins import this, `batch` and
`functional`, no more.

A plugin that uses what a later version of this file brought says so with `api_version = "1.2"` in its class, or, for a
metric, in its file; without it, it runs with every 1.x (see CONTRIBUTING.md).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.errors import UserError, require
from alignzoo.settings import Generation, Sampling, Search

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

__all__ = [
    "EMA", "ActionValue", "Algorithm", "Context", "Couples", "DecodingRequest", "Every", "Hosting", "Kind", "LearningReward",
    "Lesson", "Metric", "Models", "Next", "OnlineAlgorithm", "OptimizerStep", "Policy", "Reference", "Reward", "Role",
    "Sampler", "Sampling", "Scores", "ScoringError", "Search", "Source", "Table", "Tables", "TextTools", "TrainerPlugin",
    "UserError", "Value", "learning", "require",
]  # fmt: skip

Terms = Tensor | dict[str, Tensor]
Metrics = Mapping[str, Tensor | tuple[Tensor, Tensor]]
Measured = Callable[["Models", Any], Terms]


class Couples(Enum):
    """Over which records a loss is coupled, hence what may be cut without changing the mathematics."""

    ROW = "row"  # a record's loss depends on that record alone
    STEP = "step"  # on all records of the optimizer step, through `prepare`
    MICROBATCH = "microbatch"  # on the records it is handed together: refuses accumulation and ranks


class Kind(Enum):
    """What sort of network a role is; the core builds by kind, never by the role's name."""

    POLICY = "policy"
    VALUE = "value"
    ACTION_VALUE = "action_value"  # as wide as the vocabulary
    SCORER = "scorer"
    EMBEDDER = "embedder"
    REWARD = "reward"  # not a network: whatever the config group `reward` supplies


class Next(Enum):
    CONTINUE = "continue"
    ROLLOUT = "rollout"  # drop what is left of the rollout and sample anew


@dataclass(frozen=True)
class EMA:
    """theta' <- decay theta' + (1 - decay) theta after every `steps` optimizer steps; theta is of `role`, which is trained."""

    decay: float
    steps: int = 1
    role: str = "policy"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "EMA.steps", self.steps, ">= 1")


@dataclass(frozen=True)
class Every:
    """Set to the weights of `role`, which is trained, every `steps` optimizer steps."""

    steps: int
    role: str = "policy"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "Every.steps", self.steps, ">= 1")


@dataclass(frozen=True)
class Role:
    """A network an algorithm needs. `start` says where its weights come from: "policy", "reference" (the configured
    reference itself), "reward" (the configured reward model), or "config" (the path in `roles.<name>`, or the data source's
    own). One that `follows` another role than the policy starts as that role, whatever `start`.
    """

    kind: Kind
    trained: bool = False
    needs: frozenset[str] = frozenset({"logprobs"})  # of logprobs, tokens, generate, values, scores
    start: str = "policy"
    follows: EMA | Every | None = None
    shares: str | None = None  # a role whose trunk this one's head sits on


class Policy(Protocol):
    """A language model as algorithms see it. Every log-prob is that of the sampling distribution."""

    def logprobs(self, c: Completions) -> Tensor:
        """(B, T): log pi(token | prompt, tokens before), 0 where nothing is scored."""

    def entropy(self, c: Completions) -> Tensor:
        """(B, T): entropy of the next-token distribution, in nats, 0 where nothing is scored."""

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Beside] = ()) -> Tensor:
        """Run `fn(logits (n, V), *others (n, V), *aligned (n,))`, the others being those of `beside`, on the scored tokens, a
        few at a time, so that fn must treat each alike; it returns (n, ...). Returns (B, T, ...), 0 where nothing is scored.
        A policy `beside` reads the same records, or, as a pair of a policy and records, other ones with the same scored tokens,
        such as after other prompts. Action values may stand beside it, too, and values, (n, 1); heads on one trunk run it once.
        Logits are divided by the temperature; tokens outside the support are -inf (their log-prob too: mask before
        multiplying by a probability of 0)."""

    def generate(
        self, prompts: Prompts, sampling: Sampling, adjust: Callable[..., Tensor] | None = None,
        beside: Sequence[Decoder] = (), purpose: str = "",
    ) -> Completions:  # fmt: skip
        """`sampling.samples` completions a prompt, a prompt's together, with the sampler's log-probs. `adjust(logits (n, V),
        *others (n, V))` changes the logits before sampling, the others being those of `beside` after the same tokens; the
        log-probs are still those before it. Each draw has noise of its own; that of a named `purpose` does not depend on which
        others there were."""

    def adjusted(self, adjust: Callable[..., Tensor], beside: Sequence[Decoder] = ()) -> Policy:
        """The policy whose logits are `adjust(logits (n, V), *others)`, as in `generate`, in all that it is asked."""


class ActionValue(Protocol):
    """Q(s_t, a) of every token a that may come next; of those outside the support, -inf. No temperature divides it."""

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Beside] = ()) -> Tensor:
        """As `Policy.tokens`, with Q (n, V) in place of logits."""


class Value(Protocol):
    def values(self, c: Completions) -> Tensor:
        """(B, T): V(s_t), the expected return before token t is written, 0 where nothing is scored."""


Decoder = Policy | ActionValue | Value  # what can follow the tokens that another draws
Beside = Decoder | tuple[Policy, Completions]


class Scorer(Protocol):
    def scores(self, c: Completions) -> Tensor:
        """(B,): one score for the whole completion."""

    def comparisons(self, first: Completions, second: Completions) -> Tensor:
        """(B,): the log-odds that each of `first` is preferred to the completion of the same prompt beside it in `second`: the
        score of prompt, first and second, read one after the other, minus that of prompt, second and first. A completion that
        was cut is ended by EOS; tokens before the first scored one are read once, those of `first`. A role that needs this, and
        not `scores`, may be the scorer that a run trains."""

    def sensitivity(self, c: Completions) -> Tensor:
        """(B,): the squared norm of the score's gradient by the embeddings of the completion's tokens, itself with gradient.
        Only of a scorer that is a head on a trunk: a role beside a policy."""


class Embedder(Protocol):
    def embed(self, c: Completions) -> Tensor:
        """(B, H): the mean last hidden state of the completion's attended tokens."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores(Batch):
    """A reward's answer: total (B,) or (B, T); parts, each (B,), before weighting, NaN where a completion has none of it;
    valid (B,) bool, False where no score can be had; failed, by place in the batch, why scoring a completion went wrong, for
    which `scoring.on_error` says what is done.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    valid: Tensor | None = None
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def usable(self) -> Tensor:
        """(B,) bool: `valid`, all where it is not given."""
        return torch.ones(len(self.total), dtype=torch.bool, device=self.total.device) if self.valid is None else self.valid

    def summed(self, c: Completions) -> Tensor:
        """(B,): the total of each of the completions `c` that were scored; the sum over its tokens where it is by token."""
        return c.sum(self.total) if self.total.dim() == 2 else self.total

    def numbers(self, c: Completions) -> list[float | None]:
        """`summed` as plain numbers; None where no score can be had."""
        return [value if ok else None for value, ok in zip(self.summed(c).tolist(), self.usable.tolist(), strict=True)]


class TextTools(Protocol):
    """From text to tokens and back, as the run's model reads and writes them."""

    @property
    def eos(self) -> int:
        """The token that ends a text."""

    @property
    def ends(self) -> frozenset[int]:
        """All tokens that end a completion: `eos`, a chat template's end of a turn, ..."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text by itself, without special ones before or after it."""

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Their text, without special tokens."""

    def prompts(self, texts: Sequence[Any], row: Tensor) -> Prompts:
        """Prompts of an algorithm's own, each a text or messages, read as the data's are; row (B,) as in `Prompts`."""


class Models(Protocol):
    """The networks of a run by role (`models.policy`, `models.reference`, ...), and the few services an algorithm may use."""

    policy: Policy
    reference: Policy
    sampling: Sampling

    @property
    def tokenizer(self) -> TextTools: ...

    def __getattr__(self, role: str) -> Any: ...

    def reward(self, c: Completions) -> Scores: ...

    def preference(self, first: Completions, second: Completions) -> Scores:
        """`total` (B,): the probability that each of `first` is preferred to the completion of the same prompt beside it in
        `second`, as the role `reward` has it: a preference model's own, which need not be transitive, or by Bradley and Terry
        the sigmoid of the difference of the two rewards."""

    def sum(self, x: Tensor) -> Tensor:
        """Elementwise sum over ranks; x itself in one process."""

    def any(self, x: Tensor) -> Tensor:
        """Elementwise or over ranks."""

    def gather(self, x: Tensor) -> Tensor:
        """(n, ...) of every rank, concatenated in rank order. Ranks may differ in n."""

    def uniform(self, purpose: str, row: Tensor, tokens: int | None = None) -> Tensor:
        """(B,) in [0, 1): a function of (seed, purpose, step, row) alone, whatever the ranks or batch shape; (B, tokens), one
        for each place in a row, where `tokens` are asked for."""

    def more_prompts(self, n: int) -> Any:
        """Within `experience`: of the next `n` records of the run's order over all ranks, which ask together, this rank's part,
        which may be empty. Raises UserError where a rollout asks more than 100 times."""


class OptimizerStep(Protocol):
    """One optimizer step, before it is taken. `fn(models, batch)` gives a term, or terms by name, (B,) or (B, T), as `loss`
    does; means are those of `loss`: over all records of the step, on all ranks, by `weights`."""

    def parameters(self, role: str) -> list[torch.nn.Parameter]:
        """The weights that are learnt, their gradients in `grad`."""

    def take(self) -> None:
        """The optimizer's step, with the gradients that the weights have now."""

    def moved(self, role: str) -> list[Tensor]:
        """How far the weights are from where they were before the step."""

    def place(self, role: str, direction: Sequence[Tensor], scale: float) -> None:
        """Sets the weights to where they were before the step, plus `scale` times `direction`."""

    def undo(self) -> None:
        """Sets all weights to where they were before the step, to the bit. What the optimizer remembers stays as it is."""

    def means(self, fn: Measured) -> dict[str, float]:
        """The terms' means with the weights as they are now; "loss" is the name of a single term."""

    def gradient(self, fn: Measured, role: str) -> list[Tensor]:
        """The gradient of the sum of these means by the weights of a role."""


@dataclass(kw_only=True)
class Algorithm(ABC):
    """An alignment algorithm: its fields are its hyperparameters and its config schema.

    State lives in plain attributes set in `__post_init__`. A hyperparameter is declared as `field(default=...,
    metadata={"help": ..., "search": Search(...)})`; without a `search`, tuning leaves it as it is.
    """

    couples: ClassVar[Couples] = Couples.ROW
    published_rate: ClassVar[float] = 1e-5  # the learning rate for all weights of a pretrained model, unless the user gives one
    leads_away: ClassVar[str] = ""  # why, where a first step makes what is better less likely and is meant to
    leaves_out: ClassVar[str] = ""  # why, where some tokens of a completion are not learnt from and are meant not to be

    @property
    @abstractmethod
    def data(self) -> type[Batch]:
        """The records this instance learns from. A class that always wants the same writes `data = Pairs`."""

    @abstractmethod
    def roles(self) -> Mapping[str, Role]:
        """The networks this instance needs, by name. One that trains a SCORER and declares no policy trains a reward model:
        the run's result is that scorer, a sequence classifier with one label."""

    @abstractmethod
    def loss(self, models: Models, batch: Any) -> tuple[Terms, Metrics]:
        """Unreduced term(s), each (B,) or (B, T), and metrics, each a scalar, (B,) or (B, T), which the engine averages. A pair
        of a metric and a mask of its shape is averaged where the mask is true, and absent from a step where it nowhere is."""

    def weights(self, batch: Any) -> dict[str, Tensor]:
        """Weights by term name ("loss" for a single term), from the batch alone. Missing: `batch.counted` for (B,),
        `batch.scored` for (B, T).
        """
        return {}

    def check_data(self, batches: Iterable[Any], context: Context) -> str:
        """Sees the training records before the first step, or the first of data that is read when needed: what a user should
        be told of them, "" if nothing. Raises UserError where they can't be learnt from."""
        return ""

    def prepare(self, models: Models, batches: list[Any]) -> list[Any]:
        """For STEP coupling: sees, without gradient, all this rank's micro-batches of one optimizer step, and returns them
        with more columns.
        """
        return batches

    def evaluation(self, models: Models) -> Mapping[str, Any]:
        """The networks, by role, that evaluation is to see in place of the trained ones, such as a policy that decodes in a way
        of its own, `{"policy": models.policy.adjusted(...)}`. What the run saves are the trained ones."""
        return {}

    def around_step(self, models: Models, step: OptimizerStep) -> Mapping[str, float]:
        """In place of the optimizer's step, where gradients are complete and clipped: for line searches and other directions.
        What it returns is logged with the step's metrics."""
        step.take()
        return {}

    def after_rollout(self, metrics: Mapping[str, float]) -> None:
        """Called after a rollout with its metrics, already reduced over ranks: the means of its (B,) columns, and `samples`,
        the number of its records."""

    def after_step(self, metrics: Mapping[str, float]) -> Next:
        """Called after an optimizer step with that step's loss metrics, already reduced over ranks."""
        return Next.CONTINUE

    def state_dict(self) -> dict[str, object]:
        """What changes during training: numbers, strings, lists, dicts, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass(kw_only=True)
class OnlineAlgorithm(Algorithm):
    """An algorithm that learns from completions it samples."""

    needs_logprobs_of_samples: ClassVar[bool] = True  # a ratio or score-function gradient: refuses truncated sampling

    @abstractmethod
    def experience(self, models: Models, batch: Any) -> Batch:
        """Sample, score, weigh; without gradient. May return any record type and any number of records. Every (B,) floating
        column of what it returns is averaged over the rollout and logged under its name."""

    def passes(self) -> int:
        """How many times a rollout is gone through."""
        return 1

    def least_samples(self) -> int:
        """How many completions of a prompt this instance needs at least."""
        return 1

    def refills(self) -> int:
        """How many times, at most, a rollout's prompts that it left out are replaced by the next ones, unless `rollout.refill`
        says. With any, prompts are left out, too, whose records have all the same `reward`, a column (B,). An algorithm that
        has no reward and leaves prompts out overrides this, if only with 0: of others a `rollout.refill` is told to be unused.
        """
        return 0


@dataclass(kw_only=True)
class Context:
    """What the core hands to rewards, references and data sources when they are set up. `policy` is the policy's module,
    `shared` what the run's networks have in common (temperature, support, noise); both None until models are built, `models`
    until the run is ready.
    """

    tokenizer: PreTrainedTokenizerBase
    seed: int
    sampling: Sampling
    context_length: int
    cache: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    policy: Any = None  # a torch.nn.Module
    shared: Any = None
    models: Models | None = None
    records: Table | None = None  # the data in the reward's `view`, where it has one
    label: Callable[[Completions], Scores] | None = None  # asks `gold`, the human judge of the run, and counts the labels
    folder: Path | None = None  # the run's, where there is one
    encoder_decoder: bool = False  # whether the model reads prompts by an encoder of their own
    encoder: Any = None  # how text becomes tokens, where the data is text; None until its tables are read


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One optimizer step of what `learner` trains by itself: on its loss over `batch`, weighted as its `weights` say."""

    learner: LearningReward
    batch: Batch
    learning_rate: float
    metrics: Mapping[str, float] = field(default_factory=dict)  # more to log
    name: str = ""  # the learner's, where it is a part of another reward


class Reward(ABC):
    """Scores completions. A subclass is a dataclass whose fields are its settings. One that learns is a `LearningReward`."""

    def __init_subclass__(cls) -> None:
        """Subclasses of contract 1.0 that learn become learning rewards, which was one class then."""
        super().__init_subclass__()
        learning_kind: Any = globals().get("LearningReward")
        if learning_kind is None or learning_kind in cls.__mro__:  # issubclass would remember its answer
            return
        if members := sorted(vars(cls).keys() & vars(learning_kind).keys() - vars(Reward).keys() - {"__doc__"}):
            text = f"{cls.__name__} has {', '.join(members)}: make it a LearningReward, instead of a Reward"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            cls.__bases__ = (*(base for base in cls.__bases__ if base is not Reward), learning_kind)

    @abstractmethod
    def __call__(self, c: Completions) -> Scores: ...

    def preference(self, first: Completions, second: Completions) -> Scores:
        """As `Models.preference`, of a reward that knows more of two completions than the difference of their scores."""
        raise NotImplementedError

    def resolve(self, source: Source) -> Reward | None:
        """The reward this stands for: itself, the source's own (`reward=task`), or None (`reward=none`)."""
        return self

    def model_path(self) -> str | None:
        """Where the model behind it is, for roles with start="reward"; None where there is none."""
        return None

    def setup(self, context: Context) -> None:
        """Called once before training with the run's context: device, tokenizer, models of the reward's own roles."""

    def after_rollout(self, scores: Scores) -> None:
        """Called after a rollout with the scores it was given, those of all ranks: what a reward learns from its own scores,
        it learns here, and not while it scores. `total` is (B,), summed over tokens.
        """

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class LearningReward(Reward):
    """A reward with networks that learn, in one of two ways. With the policy: `roles`, `loss` and `weights` mean what they mean
    in `Algorithm`; the engine adds its terms, lets no gradient into other roles, and clips gradients per role. Or apart from
    it, on records and at times of its own: then it gives `lessons`, and `loss` is asked for theirs alone.
    """

    def roles(self) -> Mapping[str, Role]:
        return {}

    def loss(self, models: Models, batch: Any) -> tuple[Terms, Metrics]:
        return {}, {}

    def weights(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def view(self) -> type[Batch] | None:
        """The records that it learns from of the run's data, which it then finds in `Context.records`."""
        return None

    def needs_labels(self) -> bool:
        """Whether it asks `Context.label`, so that the run needs a `gold`."""
        return False

    def networks(self) -> Mapping[str, torch.nn.Module]:
        """Modules of its own that lessons train beside its trained roles, by name; there from `setup` on."""
        return {}

    def apart(self) -> frozenset[str]:
        """The trained roles that lessons train and nothing else does: all of a reward that gives lessons."""
        return frozenset(name for name, role in self.roles().items() if role.trained and self.teaches())

    def teaches(self) -> bool:
        """Whether it gives lessons."""
        return type(self).lessons is not LearningReward.lessons

    def lessons(self, step: int) -> Iterator[Lesson]:
        """Called after each optimizer step of the policy, of which this is number `step`. Each lesson is learnt, with gradient
        in the learner's trained roles and networks alone, before the next is asked for.
        """
        return iter(())

    def observe(self, c: Completions, scores: Scores) -> None:
        """Called after a rollout with its completions as they were scored, those of all ranks, on the CPU."""

    def export(self, folder: Path) -> None:
        """Writes what others may use of what it has learnt, when the run's result is saved in `folder`."""


class _Fixed(LearningReward):
    """Nothing that learns."""

    def __call__(self, c: Completions) -> Scores:
        raise NotImplementedError


_FIXED = _Fixed()


def learning(reward: Reward | None) -> LearningReward:
    """What learns of a reward: itself, or nothing, which has no roles and gives no lessons."""
    return reward if isinstance(reward, LearningReward) else _FIXED


class ScoringError(UserError):
    """Completions that can't be scored, in the words of the reward: `scoring.on_error` says what is done about them. Any other
    UserError of a reward is a mistake in the config or the data, and ends the run."""


class Reference(ABC):
    """Where pi_ref comes from. A subclass is a dataclass; `offers` is compared with what roles need before any model loads."""

    offers: ClassVar[frozenset[str]]
    needs_adapter: ClassVar[bool] = False  # can't be had without peft
    moves: ClassVar[bool] = True  # whether a role that starts as it may follow the policy

    @abstractmethod
    def build(self, context: Context) -> Policy | None:
        """The network of the reference role, or None."""


@dataclass(frozen=True)
class DecodingRequest:
    """Completions to be drawn: `sampling.samples` of every prompt, a prompt's together, each ending with one of `ends` or cut
    at `sampling.max_new_tokens`.

    uniforms (B, max_new_tokens) decide the tokens, so a row's text depends neither on its neighbours nor on the rank.
    `shape` maps raw logits (B, V) to those of the sampling distribution, whose log-probs are reported; `adjust` then changes
    what is sampled, not what is reported. It is given, too, the shaped logits (B, V) of `beside`, each of which is sent the
    tokens (B,) drawn, for those of the next. `finished`, of (B,) bool, replaces "all rows have ended" where ranks must stop
    together.
    """

    module: torch.nn.Module  # the network, maybe with an adapter around it
    prompts: Prompts
    sampling: Sampling
    uniforms: Tensor
    ends: Collection[int]
    shape: Callable[[Tensor], Tensor]
    adjust: Callable[..., Tensor] | None = None
    finished: Callable[[Tensor], bool] | None = None
    beside: Sequence[Generator[Tensor, Tensor, None]] = ()


class Sampler(ABC):
    """What draws completions from a network; `generation.decoding=NAME` chooses it. A subclass is a dataclass whose fields are
    its settings, given in `generation.options`."""

    by_server: ClassVar[bool] = False  # another process samples, which `generation.server` names
    knows_beside: ClassVar[bool] = False  # whether it reads `DecodingRequest.beside`
    package: ClassVar[str | None] = None  # what it needs beside alignzoo: `alignzoo doctor` looks for it
    untested: ClassVar[str] = ""  # what of it no test has run, for `alignzoo doctor`

    def check(self, generation: Generation) -> None:
        """Called before data and models are read; raises UserError for settings, or a machine, it can't sample with."""

    def connect(self, generation: Generation) -> None:
        """Called after that; raises UserError where what it samples by does not answer."""

    @abstractmethod
    def generate(self, request: DecodingRequest) -> Completions:
        """The completions, without gradient. Their `logprobs` are those of `request.shape`, or None, and then computed by a
        forward. Raises UserError where it can't sample from this network."""


class Table(Protocol):
    """Records ready for training. Rows are numbered from 0."""

    def __len__(self) -> int: ...

    def batch(self, rows: Sequence[int]) -> Batch:
        """The records of these rows, collated, on the CPU; `row` columns hold these row numbers."""


@dataclass(frozen=True)
class Tables:
    """What a data source hands to the engine: training records in the algorithm's view, and held-out ones or None. `prompts`
    are the held-out prompts that evaluation samples from. `report` counts what was truncated, dropped and derived."""

    train: Table
    heldout: Table | None
    prompts: Table | None
    report: dict[str, Any]


class Source(ABC):
    """A data source. A subclass is a dataclass whose fields are its settings."""

    @abstractmethod
    def tables(self, view: type[Batch], context: Context) -> Tables:
        """The data as `view` records. Raises UserError where the columns can't give that view.

        Called before any model is built; what needs a model is computed in `start`."""

    def start(self, policy: torch.nn.Module, context: Context) -> None:
        """Called once the policy is built: sets its starting weights, in place, where the task brings its own."""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The data's own tokenizer, for models that have none, or None. Called before `tables`."""
        return None

    def reward(self) -> Reward | None:
        """The task's own reward, used by `reward=task`."""
        return None

    def supplies(self, role: str) -> bool:
        """Whether `network` makes this role; asked before any model is built."""
        return False

    def network(self, role: str, context: Context) -> Any:
        """The task's own network for a role with start="config" that it supplies, such as an optimal teacher."""
        raise LookupError(role)

    def support(self, tokenizer: PreTrainedTokenizerBase) -> Sequence[int] | None:
        """Token ids completions may contain, or None for all."""
        return None

    def heldout_demonstrations(self, context: Context) -> Table | None:
        """Held-out demonstrations, whose perplexity under the policy evaluation tells, for algorithms that learn from something
        else; None where the data has none. Called after `tables`."""
        return None

    def evaluate(self, models: Models) -> dict[str, float]:
        """Metrics only this task can compute, such as the exact gap closed."""
        return {}

    def curves(self) -> dict[str, object]:
        """What the task knows of reward against KL, as `alignzoo.data.exact.optimum.exact_curves` gives it, for the run's
        `frontier.json`; nothing where it knows nothing. Called when training is over."""
        return {}


class Metric(Protocol):
    """A measure of completions, averaged over those that evaluation samples: an entry point of `alignzoo.metric`."""

    def __call__(self, c: Completions) -> Tensor:
        """(B,) a finite number each."""


@dataclass(kw_only=True)
class Hosting:
    """What a hosted trainer is given."""

    settings: Any  # the run's config: .training, .generation, .rollout, .seed, ...
    arguments: dict[str, Any]  # the group `trainer` as keywords of `transformers.TrainingArguments`
    tables: Tables  # training and held-out records in the plugin's own view
    tokenizer: PreTrainedTokenizerBase
    policy: torch.nn.Module  # to be trained, in place or as a copy; a `PreTrainedModel`, with its adapter where there is one;
    # of a trainer that declares a trained SCORER and no policy, a sequence classifier with one label
    start: Path  # a folder with that model as it starts and its tokenizer, for trainers that load models by path
    models: Models  # the roles that were declared; `models.reward(c)` is the checked reward
    modules: Mapping[str, torch.nn.Module]  # the networks behind them, by role, where there is one
    records: Callable[[int, int], Any]  # the training records from one position to another of the order our loader would take
    reward: Callable[[Completions], Scores]  # the checked reward of what is sampled to train on
    rollout: Callable[[], AbstractContextManager[None]]  # around sampling, which is then booked as that
    sampled: Callable[[int, int], None]  # inside it: so many tokens of prompts were read, and so many of completions written
    multiplied: Callable[[Any, Tensor, int], None]  # by its output embedding, outside of it: (network, result, rows)
    support: Tensor | None  # (V,) bool: the tokens completions may contain, or None for all


class TrainerPlugin(ABC):
    """Hosts a whole foreign trainer; `algorithm=NAME` chooses it. A subclass is a dataclass whose fields are its settings.

    The core makes data and networks before, and evaluates, logs and saves as for every algorithm; training is the trainer's.
    """

    @property
    @abstractmethod
    def data(self) -> type[Batch]:
        """The records this instance learns from. A class that always wants the same writes `data = Pairs`."""

    @abstractmethod
    def roles(self) -> Mapping[str, Role]:
        """The networks this instance needs, by name: a trained policy, or a trained scorer, and what else it takes from
        `Hosting.models`.
        """

    published_rate: ClassVar[float] = 1e-5  # as in `Algorithm`
    online: ClassVar[bool] = False  # its trainer samples: the groups `rollout` and `generation` apply
    needs_logprobs_of_samples: ClassVar[bool] = False  # as in `OnlineAlgorithm`
    renamed: ClassVar[Mapping[str, str | None]] = {}  # from names its trainer logs under to ours; None: not logged

    def passes(self) -> int:
        """How many times a rollout is gone through."""
        return 1

    def check(self, settings: Any, ranks: int) -> None:
        """Called before any model is built; raises UserError for a config, or a number of processes, it can't run with."""

    def sampled(self, batch: int) -> int:
        """How many completions the trainer samples by itself for an optimizer step over `batch` records, on average."""
        return batch if self.data is Prompts else 0

    @abstractmethod
    def build(self, hosting: Hosting) -> Trainer:
        """A `transformers.Trainer`, ready to train."""
