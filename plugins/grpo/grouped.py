"""What algorithms share that need no value model: the rollout, the tie to the reference, passes over it. Each is its surrogate,
its advantages, or both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Scores, Search, require
from alignzoo.functional import clipped_surrogate, equal_groups, group_advantages
from alignzoo.kl import Estimator, FlatKL, Place

Metrics = dict[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped(Completions):
    """What a rollout leaves behind: per token (B, T), per completion (B,)."""

    old_logprobs: Tensor
    advantages: Tensor  # (B,) or (B, T)
    reward: Tensor  # (B,)
    kl: Tensor | None = None  # (B,)
    reference_logprobs: Tensor | None = None
    equal_groups: Tensor | None = None  # (B,): 1 where the rewards of its prompt are all equal: nothing is learnt from it


@dataclass(kw_only=True)
class GroupRelative(OnlineAlgorithm):
    """Learns from what a completion's reward has over those of the prompt's other samples."""

    data = Prompts
    published_rate = 1e-6  # the default of TRL 1.16's GRPOTrainer

    beta: float = field(default=0.0, metadata={"help": "weight of the KL in the loss; 0 needs no reference"})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout", "search": Search(1, 4)})

    def __post_init__(self) -> None:
        require(self.beta >= 0, "algorithm.beta", self.beta, ">= 0")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")
        self.kl = FlatKL(beta=self.beta, place=Place.loss, estimator=Estimator.k3)

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}))
        reference = {"reference": Role(kind=Kind.POLICY, start="reference")} if self.beta else {}
        return {"policy": policy, "reward": Role(kind=Kind.REWARD), **reference}

    def least_samples(self) -> int:
        return 2

    def passes(self) -> int:
        return self.epochs

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        """(B,) or (B, T), of the rollout's rewards; not read where a score is not usable."""
        return group_advantages(rollout.reward, rollout.prompt_of, scores.usable)

    def kept(self, rollout: Grouped, usable: Tensor) -> Tensor:
        """(B,) bool: the completions to learn from."""
        return usable

    def experience(self, models: Models, batch: Prompts) -> Grouped:
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        reward, old = c.sum(c.at_last(scores.total)), models.policy.logprobs(c)
        reference = models.reference.logprobs(c) if self.beta else None
        grouped = models.sampling.samples > 1
        rollout = Grouped(
            **vars(c), old_logprobs=old, advantages=reward, reward=reward, reference_logprobs=reference,
            equal_groups=equal_groups(reward, c.prompt_of, scores.usable) if grouped else None,
            kl=None if reference is None else c.sum(old - reference),
        )  # fmt: skip
        rollout = replace(rollout, advantages=self.advantages(models, rollout, scores))
        return rollout.take(self.kept(rollout, scores.usable))

    def compared(self, batch: Grouped, logprobs: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probs, (B, T), now and at sampling, of whose ratio the loss is a function."""
        return logprobs, batch.old_logprobs

    @abstractmethod
    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        """The loss of each token, (B, T), without KL, and metrics."""

    def penalty(self, logprobs: Tensor, reference: Tensor, ratio: Tensor) -> Tensor:
        """Of each token, (B, T); weighed by the ratio, whose gradient makes it that of the KL."""
        return self.kl.penalty(logprobs, reference) * ratio

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        """The term that the engine then takes the mean of: (B,), or (B, T) for the mean over tokens."""
        return c.mean(loss)

    def loss(self, models: Models, batch: Grouped) -> tuple[Tensor, Metrics]:
        logprobs = models.policy.logprobs(batch)
        new, old = self.compared(batch, logprobs)
        advantages = batch.advantages if batch.advantages.dim() == 2 else batch.advantages[:, None]
        loss, metrics = self.surrogate(batch, new, old, advantages)
        ratio = (new - old).exp()
        if batch.reference_logprobs is not None and self.kl.place is Place.loss:
            loss = loss + self.penalty(logprobs, batch.reference_logprobs, ratio)
        return self.averaged(batch, loss, models.sampling.max_new_tokens), {"ratio": ratio.detach(), **metrics}


@dataclass(kw_only=True)
class Clipped(GroupRelative):
    """With PPO's surrogate."""

    clip: float = field(
        default=0.2, metadata={"help": "epsilon of the ratio, downwards", "search": Search(0.05, 0.5, log=True)}
    )
    clip_high: float | None = field(default=None, metadata={"help": "epsilon upwards; none: as downwards"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")
        require(self.clip_high is None or self.clip_high > 0, "algorithm.clip_high", self.clip_high, "> 0, or none")

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        ratio, high = (new - old).detach().exp(), self.clip if self.clip_high is None else self.clip_high
        clipped = (ratio < 1 - self.clip) | (ratio > 1 + high)
        return clipped_surrogate(new, old, advantages, self.clip, self.clip_high), {"clip_fraction": clipped.float()}
