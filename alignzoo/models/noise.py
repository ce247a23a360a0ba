"""Randomness as a function of what it is for, never of how often or where something was drawn before."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A counter-based generator (Philox) for one purpose: equal keys give equal streams, on every rank and after every
    restart.
    """
    words = [seed, *(zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


@dataclass
class Noise:
    """The uniforms of a run. The engine says what they are for (`during`); a second draw for the same purpose differs from
    the first.
    """

    seed: int
    purpose: str = "setup"
    step: int = 0
    draws: int = 0

    @contextmanager
    def during(self, purpose: str, step: int) -> Iterator[None]:
        """Everything drawn inside is a function of (seed, purpose, step)."""
        before = (self.purpose, self.step, self.draws)
        self.purpose, self.step, self.draws = purpose, step, 0
        try:
            yield
        finally:
            self.purpose, self.step, self.draws = before

    def positions(self, rows: Tensor, samples: int, width: int) -> Tensor:
        """(len(rows) * samples, width) in [0, 1), float64: one uniform a position, a row's samples together. A prefix does not
        depend on `width`."""
        self.draws += 1
        key = (self.purpose, self.step, self.draws)
        drawn = [generator(self.seed, *key, row, k).random(width) for row in rows.tolist() for k in range(samples)]
        return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty(0, width, dtype=torch.float64)

    def named(self, name: str, rows: Tensor) -> Tensor:
        """(len(rows),) in [0, 1): one uniform a row for `name`."""
        drawn = [generator(self.seed, self.purpose, self.step, name, row).random() for row in rows.tolist()]
        return torch.tensor(drawn, device=rows.device)
