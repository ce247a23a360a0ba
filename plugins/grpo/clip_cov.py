"""GRPO that leaves out a few of the tokens that cost the most entropy."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.contracts import Models, Scores, Search, require
from alignzoo.functional import masked_mean

from .grouped import Grouped
from .grpo import GRPO, Average


@dataclass(kw_only=True)
class ClipCov(GRPO):
    """GRPO's loss with A_t = 0 for `share` of the rollout's tokens, drawn from those whose (A - mean A)(log pi - mean log pi)
    is within (low, high): that is how much of the policy's entropy they cost.

    Cui et al. 2025, The entropy mechanism of reinforcement learning for reasoning language models (arXiv 2505.22617).
    """

    beta: float = field(default=0.0, metadata={"help": "weight of the KL in the loss; 0 needs no reference"})
    average: Average = field(default=Average.token, metadata={"help": "over what the loss of tokens is averaged"})
    share: float = field(default=2e-4, metadata={"help": "of the tokens, at least one", "search": Search(1e-4, 1e-2, log=True)})
    low: float = field(default=1.0, metadata={"help": "the least covariance of a token that is left out"})
    high: float = field(default=5.0, metadata={"help": "the greatest"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.share < 1, "algorithm.share", self.share, "in (0, 1)")
        require(self.low < self.high, "algorithm.low", self.low, "less than algorithm.high")

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        tokens, logprobs = rollout.scored & scores.usable[:, None], rollout.old_logprobs
        above = super().advantages(models, rollout, scores)[:, None].expand(tokens.shape)
        deviations = [x - masked_mean(x, tokens, models.sum) for x in (above, logprobs)]
        costly = deviations[0] * deviations[1]
        candidates = tokens & (costly > self.low) & (costly < self.high)
        drawn = torch.where(candidates, draws(models, rollout), 1.0)
        count = max(int(self.share * float(models.sum(tokens.sum()))), 1)
        first = models.gather(drawn[candidates]).sort().values[:count]
        return torch.where(candidates & (drawn <= first[-1:].sum()), 0.0, above)


def draws(models: Models, rollout: Grouped) -> Tensor:
    """A number in [0, 1) for each token, (B, T), whatever the padding: the samples of a prompt have different ones."""
    size, width = rollout.ids.shape
    place = (rollout.row[:, None] == rollout.row).tril(-1).sum(1)  # among the samples of its prompt
    samples, longest = models.sampling.samples, models.sampling.max_new_tokens
    uniforms = models.uniform("clip_cov", rollout.row, samples * longest).view(size, samples, longest)
    return uniforms[torch.arange(size, device=place.device), place, :width]
