"""The exact task as a data source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import torch

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.contracts import Context, Models, Reward, Scores, Source, Table, Tables
from alignzoo.data.exact import grammar, warmup
from alignzoo.data.exact.annotator import Annotator
from alignzoo.data.exact.language import CONTENT, Language, policy_table
from alignzoo.data.exact.optimum import StringTree, completion_logprobs, exact_curves, measures, optimal_policy
from alignzoo.data.exact.task_tables import UNERRING, Drawn, TaskPrompts, TaskRecords, draw
from alignzoo.data.exact.teacher import OptimalPolicy
from alignzoo.errors import UserError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.models.networks import PolicyNetwork

MOST_COMPLETIONS = 2_000_000  # over all prompts: the tables are kept in memory


class Demonstrator(Enum):
    optimum = "optimum"
    reference = "reference"


@dataclass(kw_only=True)
class Exact(Source):
    """Strings few enough to enumerate: the optimum is known, and each evaluation says how much of the gap to it is closed.

    The run's policy is first trained on a made-up source; that is the reference. A made-up reward scores whole strings. Rows of
    preference and demonstration data are drawn with the run's seed, all else depends on `task_seed` alone.

    `label_flips` and `reward_noise` make the annotator of training err, whoever asks: the labels of records and the scores of
    rollouts. Evaluation, the optimum and its demonstrations keep to the true reward.
    """

    prompts: int = field(default=16, metadata={"help": "how many prompts there are"})
    vocabulary: int = field(default=8, metadata={"help": "how many letters completions are made of, at most 26"})
    length: int = field(default=4, metadata={"help": "the most letters of a completion"})
    beta: float = field(default=1.0, metadata={"help": "weight of the KL in the objective that gap_closed measures"})
    interaction: float = field(default=0.5, metadata={"help": "weight of neighbouring letters in the reward"})
    roughness: float = field(default=0.1, metadata={"help": "weight of the part of the reward that follows no rule"})
    reward_scale: float = field(default=2.0, metadata={"help": "standard deviation of the reward over completions"})
    sparsity: float = field(default=0.0, metadata={"help": "share of a prompt's completions, the worst, whose reward is 0"})
    label_flips: float = field(
        default=0.0, metadata={"help": "probability that a judgement in training is turned round: a label, a score's sign"}
    )
    reward_noise: float = field(
        default=0.0, metadata={"help": "standard deviation of the error in each reward that training sees"}
    )
    rows: int = field(default=16_384, metadata={"help": "rows of an epoch: pairs, demonstrations, ...; prompts repeat"})
    demonstrations: Demonstrator = field(default=Demonstrator.optimum, metadata={"help": "who writes them"})
    task_seed: int = field(default=0, metadata={"help": "of source, reference and reward"})
    warmup_steps: int = field(default=200, metadata={"help": "of the reference's training"})
    warmup_batch: int = field(default=256, metadata={"help": "samples of the source a step"})
    warmup_learning_rate: float = field(default=5e-3, metadata={"help": "falls linearly to 0"})

    def __post_init__(self) -> None:
        for name in ("prompts", "length", "rows", "warmup_batch"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), ">= 1")
        for name in ("interaction", "roughness", "warmup_steps", "task_seed", "reward_noise"):
            require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), ">= 0")
        for name in ("beta", "reward_scale", "warmup_learning_rate"):
            require(getattr(self, name) > 0, f"data.{name}", getattr(self, name), "> 0")
        require(0 <= self.sparsity < 1, "data.sparsity", self.sparsity, "in [0, 1)")
        require(0 <= self.label_flips <= 0.5, "data.label_flips", self.label_flips, "in [0, 0.5]")
        require(2 <= self.vocabulary <= len(CONTENT), "data.vocabulary", self.vocabulary, f"from 2 to {len(CONTENT)}")
        longest = MOST_COMPLETIONS.bit_length()  # of two tokens; counting those of any length would take for ever
        require(self.length <= longest, "data.length", self.length, f"from 1 to {longest}")
        self.tree = StringTree(self.vocabulary, self.length)
        self.annotator = Annotator(self.label_flips, self.reward_noise)
        count = self.prompts * self.tree.completions
        if count > MOST_COMPLETIONS:
            raise UserError(
                f"data.prompts={self.prompts} data.vocabulary={self.vocabulary} data.length={self.length} "
                f"make {count:,} completions, too many to enumerate: stay below {MOST_COMPLETIONS:,}"
            )

    def tables(self, view: type[Batch], context: Context) -> Tables:
        if context.sampling.max_new_tokens != self.length:
            raise UserError(
                f"generation.max_new_tokens={context.sampling.max_new_tokens} and data.length={self.length} differ, "
                f"and both say where completions end: set generation.max_new_tokens={self.length}"
            )
        if view not in (Prompts, Completions, Pairs, Triples, Rated, Rankings):
            raise UserError(
                f"data=exact makes Prompts, Completions, Pairs, Triples, Rated and Rankings, not {view.__name__}: "
                "choose other data"
            )
        self.language = Language(self.prompts, self.tree, context.tokenizer)
        self.rewards = self.reward_scale * grammar.rewards(
            self.tree, self.prompts, self.task_seed, self.interaction, self.roughness, self.sparsity
        )
        if view is Prompts:
            tables: tuple[Table, Table] = TaskPrompts(self.language, self.rows), TaskPrompts(self.language, self.prompts)
        else:
            tables = (
                self._records(view, self.rows, [context.seed, 0], self.annotator),
                self._records(view, 1024, [context.seed, 1], UNERRING),
            )
        report = {"rows": self.rows, "prompts": self.prompts, "completions": self.tree.completions}
        return Tables(train=tables[0], heldout=tables[1], prompts=TaskPrompts(self.language, self.prompts), report=report)

    def _records(self, view: type[Batch], size: int, seed: list[int], annotator: Annotator) -> TaskRecords:
        def drawn() -> Drawn:
            reference, optimum = (completion_logprobs(self.tree, table) for table in (self.reference, self.optimum))
            writer = optimum if self.demonstrations is Demonstrator.optimum else reference
            return draw(view, size, [self.task_seed, *seed], reference, writer, self.rewards, annotator)

        return TaskRecords(self.language, view, size, drawn)

    def start(self, policy: torch.nn.Module, context: Context) -> None:
        """Trains the policy into the reference, and computes what follows from it: the optimum."""
        from alignzoo.models.networks import PolicyNetwork

        network = PolicyNetwork(policy, context.shared)
        source = grammar.source_policy(self.tree, self.prompts, self.task_seed)
        schedule = (self.warmup_steps, self.warmup_batch, self.warmup_learning_rate, self.task_seed)
        names = ("prompts", "vocabulary", "length", "task_seed", "warmup_steps", "warmup_batch", "warmup_learning_rate")
        key = {name: getattr(self, name) for name in names} | {
            "prompt_ids": self.language.prompt_ids.tolist(), "tokens": self.language.support.tolist(),
            "forward": context.shared.forward.value,
        }  # fmt: skip
        train = partial(warmup.train, policy, network, self.language, source, context.device, *schedule)
        with context.shared.at(1.0):
            warmup.restart(policy, self.task_seed)
            warmup.cached(context.cache, key, policy, train)
            self.device, self.noise = context.device, context.shared.noise
            self.reference = policy_table(self.language, network, context.device)
        self.optimum, _ = optimal_policy(self.tree, self.reference, self.rewards, self.beta)

    def support(self, tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
        return Language(self.prompts, self.tree, tokenizer).support.tolist()

    def reward(self) -> Reward:
        return TaskReward(source=self)

    def supplies(self, role: str) -> bool:
        return role == "teacher"

    def network(self, role: str, context: Context) -> PolicyNetwork:
        """The teacher: the optimal policy."""
        from alignzoo.models.networks import PolicyNetwork

        if not self.supplies(role):
            raise LookupError(role)
        assert context.policy is not None, "networks are made after the policy"
        module = OptimalPolicy(self.language, self.optimum, context.policy.config.vocab_size).to(context.device)
        return PolicyNetwork(module, context.shared, frozen=True)

    def curves(self) -> dict[str, object]:
        return exact_curves(completion_logprobs(self.tree, self.reference), self.rewards)

    def evaluate(self, models: Models) -> dict[str, float]:
        policy = policy_table(self.language, models.policy, self.device)
        return measures(self.tree, policy, self.reference, self.rewards, self.beta)


@dataclass(kw_only=True)
class TaskReward(Reward):
    """The task's reward, looked up; no score for what is no completion of the task. The annotator errs outside evaluation."""

    source: Exact

    def __call__(self, c: Completions) -> Scores:
        language = self.source.language
        number = language.completion_numbers(c)
        prompt = language.prompt_numbers(c.prompts)[c.prompt_of]
        rewards = self.source.rewards.float().to(c.ids.device)[prompt, number.clamp(min=0)]
        if self.source.annotator.errs and self.source.noise.purpose != "evaluation":
            rewards = self.source.annotator.scores(rewards, c.row, self.source.noise)
        return Scores(total=torch.where(number >= 0, rewards, 0), valid=number >= 0)
