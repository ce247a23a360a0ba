"""Group relative policy optimisation and its descendants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, UserError, require
from alignzoo.functional import clipped_surrogate, group_advantages, k3


class Average(Enum):
    """Over what the loss of tokens is averaged."""

    completion = "completion"  # over a completion's tokens, then over completions
    token = "token"  # over all tokens of the optimizer step
    constant = "constant"  # summed over a completion, divided by generation.max_new_tokens


class Ratio(Enum):
    token = "token"
    completion = "completion"  # the geometric mean of its tokens' ratios


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped(Completions):
    """What a rollout leaves behind: per token (B, T), per completion (B,)."""

    old_logprobs: Tensor
    advantages: Tensor  # (B,)
    reward: Tensor  # (B,)
    kl: Tensor | None = None  # (B,)
    reference_logprobs: Tensor | None = None
    equal_groups: Tensor | None = None  # (B,): 1 where the rewards of its prompt are all equal: nothing is learnt from it


@dataclass(kw_only=True)
class GRPO(OnlineAlgorithm):
    """L = mean_t[- min(r_t A, clip(r_t, 1 - e, 1 + e_high) A) + beta k3_t], A the reward relative to the prompt's others.

    Shao et al. 2024, DeepSeekMath, eq. 3. No value model: the other samples of a prompt are the baseline.
    """

    data = Prompts
    published_rate = 1e-6  # Shao et al. 2024, section 4.2

    beta: float = field(
        default=0.04,
        metadata={"help": "weight of the KL in the loss; 0 needs no reference", "search": Search(0.001, 1.0, log=True)},
    )
    weigh_kl: bool = field(default=False, metadata={"help": "multiply the KL by the ratio: its gradient is then unbiased"})
    clip: float = field(
        default=0.2, metadata={"help": "epsilon of the ratio, downwards", "search": Search(0.05, 0.5, log=True)}
    )
    clip_high: float | None = field(default=None, metadata={"help": "epsilon upwards; none: as downwards"})
    scale: bool = field(
        default=True,
        metadata={
            "help": "divide advantages by the standard deviation of their group",
            "search": Search(options=(True, False)),
        },
    )
    average: Average = field(default=Average.completion, metadata={"help": "over what the loss of tokens is averaged"})
    ratio: Ratio = field(default=Ratio.token, metadata={"help": "whose probabilities are compared with the sampler's"})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout", "search": Search(1, 4)})
    skip_equal: bool = field(default=False, metadata={"help": "leave out prompts whose rewards are all equal"})
    skip_truncated: bool = field(default=False, metadata={"help": "no loss on completions cut at the length limit"})

    def __post_init__(self) -> None:
        require(self.beta >= 0, "algorithm.beta", self.beta, ">= 0")
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")
        require(self.clip_high is None or self.clip_high > 0, "algorithm.clip_high", self.clip_high, "> 0, or none")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")
        require(self.beta > 0 or not self.weigh_kl, "algorithm.weigh_kl", self.weigh_kl, "false where algorithm.beta=0")
        if self.ratio is Ratio.completion and self.average is not Average.completion:
            raise UserError(
                f"algorithm.ratio=completion with algorithm.average={self.average.value} counts a completion's one ratio once "
                "for each of its tokens: set algorithm.average=completion"
            )

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}))
        reference = {"reference": Role(kind=Kind.POLICY, start="reference")} if self.beta else {}
        return {"policy": policy, "reward": Role(kind=Kind.REWARD), **reference}

    def least_samples(self) -> int:
        return 2

    def passes(self) -> int:
        return self.epochs

    def experience(self, models: Models, batch: Prompts) -> Grouped:
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        reward = c.sum(c.at_last(scores.total))  # (B,)
        advantages = group_advantages(reward, c.prompt_of, scores.usable, self.scale)
        old = models.policy.logprobs(c)
        reference = models.reference.logprobs(c) if self.beta else None
        kept, differing = scores.usable, _differing(reward, c.prompt_of, scores.usable)
        if self.skip_equal:
            kept = kept & differing
        if self.skip_truncated:
            kept = kept & ~c.truncated
        return Grouped(
            **vars(c), old_logprobs=old, advantages=advantages, reward=reward, reference_logprobs=reference,
            equal_groups=(~differing).to(reward.dtype),
            kl=None if reference is None else c.sum(old - reference),
        ).take(kept)  # fmt: skip

    def loss(self, models: Models, batch: Grouped) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs = models.policy.logprobs(batch)
        new, old = logprobs, batch.old_logprobs
        if self.ratio is Ratio.completion:
            new, old = (batch.mean(x)[:, None].expand_as(x) for x in (new, old))
        loss = clipped_surrogate(new, old, batch.advantages[:, None], self.clip, self.clip_high)  # (B, T)
        ratio = (new - old).exp()
        if batch.reference_logprobs is not None:
            loss = loss + self.beta * k3(logprobs, batch.reference_logprobs) * (ratio if self.weigh_kl else 1)
        ratio = ratio.detach()
        high = self.clip if self.clip_high is None else self.clip_high
        clipped = (ratio < 1 - self.clip) | (ratio > 1 + high)
        return self._averaged(batch, loss, models.sampling.max_new_tokens), {"ratio": ratio, "clip_fraction": clipped.float()}

    def _averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        """The term that the engine then takes the mean of: (B,), or (B, T) for the mean over tokens."""
        if self.average is Average.token:
            return loss
        return c.mean(loss) if self.average is Average.completion else c.sum(loss) / longest


def _differing(reward: Tensor, group: Tensor, valid: Tensor) -> Tensor:
    """(B,) bool: whether the valid rewards of a group are not all the same."""
    member = group.unique(return_inverse=True)[1]
    low, high = (
        reward.new_full((len(reward),), -sign * torch.inf).scatter_reduce(0, member[valid], reward[valid], how)
        for how, sign in (("amin", -1), ("amax", 1))
    )
    return (high > low)[member]
