"""GRPO on the tokens at which the policy hesitates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Role, Scores, Search, require

from .grouped import Grouped
from .grpo import GRPO, Average


@dataclass(kw_only=True)
class HighEntropy(GRPO):
    """GRPO's loss with A_t = 0 where the entropy of pi_sampler(. | x, y_<t) is not among the rollout's `share` highest.

    Wang et al. 2025, Beyond the 80/20 rule (arXiv 2506.01939). The mean is still over all tokens.
    """

    leaves_out = "the policy does not hesitate there"

    beta: float = field(default=0.0, metadata={"help": "weight of the KL in the loss; 0 needs no reference"})
    average: Average = field(default=Average.token, metadata={"help": "over what the loss of tokens is averaged"})
    share: float = field(default=0.2, metadata={"help": "of the tokens, that are learnt from", "search": Search(0.05, 0.9)})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.share < 1, "algorithm.share", self.share, "in (0, 1): at 1 it is algorithm=grpo")

    def roles(self) -> Mapping[str, Role]:
        roles = dict(super().roles())
        return roles | {"policy": replace(roles["policy"], needs=roles["policy"].needs | {"tokens"})}

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        forks = uncertain(models, rollout, rollout.scored & scores.usable[:, None], self.share)
        return super().advantages(models, rollout, scores)[:, None] * forks


def uncertain(models: Models, c: Completions, tokens: Tensor, share: float) -> Tensor:
    """(B, T) bool: those of `tokens` (B, T) whose entropy is among the `share` highest of all ranks."""
    entropy = models.policy.entropy(c)
    ordered = models.gather(entropy[tokens]).sort().values
    least = ordered[math.ceil((1 - share) * (len(ordered) - 1)) :][:1]  # none where there is no token
    return tokens & (entropy >= least.sum())
