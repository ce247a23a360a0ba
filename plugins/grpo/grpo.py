"""Group relative policy optimisation and its descendants."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Scores, Search, UserError, require
from alignzoo.functional import dual_clip, group_advantages
from alignzoo.kl import Estimator, FlatKL, Place

from .grouped import Clipped, Grouped, Metrics

__all__ = ["GRPO", "Average", "Grouped", "Ratio"]  # checkpoints of older versions look for Grouped here


class Average(Enum):
    """Over what the loss of tokens is averaged."""

    completion = "completion"  # over a completion's tokens, then over completions
    token = "token"  # over all tokens of the optimizer step
    constant = "constant"  # summed over a completion, divided by generation.max_new_tokens
    sum = "sum"  # summed over a completion, then averaged over completions


class Ratio(Enum):
    token = "token"
    completion = "completion"  # the geometric mean of its tokens' ratios


@dataclass(kw_only=True)
class GRPO(Clipped):
    """L = mean_t[- min(r_t A, clip(r_t, 1 - e, 1 + e_high) A) + beta k3_t], A the reward relative to the prompt's others.

    Shao et al. 2024, DeepSeekMath, eq. 3. No value model: the other samples of a prompt are the baseline.
    """

    published_rate = 1e-6  # Shao et al. 2024, section 4.2

    beta: float = field(
        default=0.04,
        metadata={"help": "weight of the KL in the loss; 0 needs no reference", "search": Search(0.001, 1.0, log=True)},
    )
    kl_estimator: Estimator = field(default=Estimator.k3, metadata={"help": "of the KL of one token: k2 or k3"})
    weigh_kl: bool = field(default=False, metadata={"help": "multiply the KL by the ratio: its gradient is then unbiased"})
    scale: bool = field(
        default=True,
        metadata={
            "help": "divide advantages by the standard deviation of their group",
            "search": Search(options=(True, False)),
        },
    )
    epsilon: float = field(default=1e-4, metadata={"help": "added to the standard deviation that advantages are divided by"})
    dual_clip: float | None = field(
        default=None, metadata={"help": "the ratio's bound where the advantage is negative; none: it has none"}
    )
    average: Average = field(default=Average.completion, metadata={"help": "over what the loss of tokens is averaged"})
    ratio: Ratio = field(default=Ratio.token, metadata={"help": "whose probabilities are compared with the sampler's"})
    skip_equal: bool = field(
        default=False,
        metadata={"help": "leave out prompts whose rewards are all equal; the next ones take their place (rollout.refill)"},
    )
    skip_truncated: bool = field(default=False, metadata={"help": "no loss on completions cut at the length limit"})

    def __post_init__(self) -> None:
        super().__post_init__()
        used = self.beta > 0 or self.kl_estimator is Estimator.k3
        require(used, "algorithm.kl_estimator", self.kl_estimator.value, "left at k3 where algorithm.beta=0")
        self.kl = FlatKL(beta=self.beta, place=Place.loss, estimator=self.kl_estimator)
        require(self.beta > 0 or not self.weigh_kl, "algorithm.weigh_kl", self.weigh_kl, "false where algorithm.beta=0")
        require(self.epsilon >= 0, "algorithm.epsilon", self.epsilon, ">= 0")
        require(
            self.scale or self.epsilon == 1e-4, "algorithm.epsilon", self.epsilon, "left at 1e-4 where algorithm.scale=false"
        )
        require(self.dual_clip is None or self.dual_clip >= 1, "algorithm.dual_clip", self.dual_clip, ">= 1, or none")
        if self.ratio is Ratio.completion and self.average not in (Average.completion, Average.sum):
            raise UserError(
                f"algorithm.ratio=completion with algorithm.average={self.average.value} counts a completion's one ratio once "
                "for each of its tokens: set algorithm.average=completion, or sum, which does that to every completion alike"
            )

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        return group_advantages(rollout.reward, rollout.prompt_of, scores.usable, self.scale, self.epsilon)

    def kept(self, rollout: Grouped, usable: Tensor) -> Tensor:
        if self.skip_equal and rollout.equal_groups is not None:
            usable = usable & (rollout.equal_groups == 0)
        return usable & ~rollout.truncated if self.skip_truncated else usable

    def compared(self, batch: Grouped, logprobs: Tensor) -> tuple[Tensor, Tensor]:
        if self.ratio is Ratio.token:
            return super().compared(batch, logprobs)
        new, old = (batch.mean(x)[:, None].expand_as(x) for x in (logprobs, batch.old_logprobs))
        return new, old

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        loss, metrics = super().surrogate(batch, new, old, advantages)
        return loss if self.dual_clip is None else dual_clip(loss, advantages, self.dual_clip), metrics

    def penalty(self, logprobs: Tensor, reference: Tensor, ratio: Tensor) -> Tensor:
        return self.kl.penalty(logprobs, reference) * (ratio if self.weigh_kl else 1)

    def refills(self) -> int:
        return 9 if self.skip_equal else 0  # ten draws a batch: max_num_gen_batches of DAPO's recipe in verl

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        if self.average is Average.token:
            return loss
        if self.average is Average.completion:
            return c.mean(loss)
        return c.sum(loss) / (longest if self.average is Average.constant else 1)
