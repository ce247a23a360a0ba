"""TRL's GRPOTrainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from alignzoo.contracts import Hosting, Search, require

from .group import Grouped


class Average(Enum):
    """Over what the loss of tokens is averaged."""

    completion = "completion"  # over a completion's tokens, then over completions: TRL's loss_type grpo
    token = "token"  # over all tokens: dapo, TRL's own default
    constant = "constant"  # summed over a completion, divided by generation.max_new_tokens: dr_grpo


LOSSES = {Average.completion: "grpo", Average.token: "dapo", Average.constant: "dr_grpo"}


@dataclass(kw_only=True)
class TRLGRPO(Grouped):
    """TRL's GRPOTrainer: the mathematics of `grpo`."""

    trainer = "GRPOTrainer"
    published_rate = 1e-6

    beta: float = field(
        default=0.04,
        metadata={"help": "weight of the KL in the loss; 0 needs no reference", "search": Search(0.001, 1.0, log=True)},
    )
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
    weigh_kl: bool = field(default=False, metadata={"help": "multiply the KL by the ratio: its gradient is then unbiased"})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout", "search": Search(1, 4)})

    def __post_init__(self) -> None:
        require(self.beta >= 0, "algorithm.beta", self.beta, ">= 0")
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")
        require(self.clip_high is None or self.clip_high > 0, "algorithm.clip_high", self.clip_high, "> 0, or none")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return super().options(hosting) | {
            "epsilon_high": self.clip_high, "scale_rewards": "group" if self.scale else "none",
            "loss_type": LOSSES[self.average], "importance_sampling_level": "token",
            "use_bias_correction_kl": self.weigh_kl,
        }  # fmt: skip
