"""Sampling from an enumerated distribution."""

from __future__ import annotations

import torch
from torch import Tensor


class Sampler:
    """Completions by inverse CDF, from a table of log-probs (P, completions)."""

    def __init__(self, logprobs: Tensor) -> None:
        probs = logprobs.exp()
        self.probs = probs / probs.sum(1, keepdim=True)
        self.mass = self.probs.cumsum(1)
        # one ascending row for all prompts: prompt p occupies [p, p + 1)
        self.line = (self.mass.clamp(max=1 - 1e-12) + torch.arange(len(probs))[:, None]).flatten()

    def __call__(self, prompt_of: Tensor, uniform: Tensor) -> Tensor:
        """(B,) prompts and uniforms -> (B,) completion numbers."""
        place = torch.searchsorted(self.line, prompt_of + uniform, right=True) - prompt_of * self.mass.shape[1]
        return place.clamp(max=self.mass.shape[1] - 1)

    def another(self, prompt_of: Tensor, first: Tensor, uniform: Tensor) -> Tensor:
        """(B,) completion numbers that differ from `first`, with probabilities in proportion."""
        own = self.probs[prompt_of, first]
        scaled = uniform * (1 - own)
        skipped = scaled + torch.where(scaled >= self.mass[prompt_of, first] - own, own, 0)
        number = self(prompt_of, skipped.clamp(max=1 - 1e-9))
        # rounding at the edge of the skipped interval
        last = self.mass.shape[1] - 1
        return torch.where(number == first, torch.where(first < last, first + 1, first - 1), number)
