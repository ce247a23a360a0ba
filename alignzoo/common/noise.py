"""Randomness as a function of what it is for, never of how often or where something was drawn before."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A counter-based generator (Philox) for one purpose: equal keys give equal streams, on every rank and after every
    restart.
    """
    words = [seed, *(zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


WORD = np.uint64(2**32 - 1)


def philox(key: np.ndarray, *counter: np.ndarray) -> list[np.ndarray]:
    """Four random words of 32 bits for each counter of four words: Philox-4x32-10, Salmon et al. 2011, Parallel random numbers:
    as easy as 1, 2, 3. All counters at once, where one generator for each would cost 0.1 ms."""
    a, b, c, d = (word.astype(np.uint64) for word in np.broadcast_arrays(*counter))
    left, right = (np.uint64(k) for k in key)
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (second >> np.uint64(32)) ^ b ^ left, second & WORD, (first >> np.uint64(32)) ^ d ^ right, first & WORD
        left, right = (left + np.uint64(0x9E3779B9)) & WORD, (right + np.uint64(0xBB67AE85)) & WORD
    return [a, b, c, d]


@dataclass
class Noise:
    """The uniforms of a run. The engine says what they are for (`during`); a second draw for the same purpose differs from
    the first.
    """

    seed: int
    purpose: str = "setup"
    step: int = 0
    draws: Counter[str] = field(default_factory=Counter)  # in this step, by name

    @contextmanager
    def during(self, purpose: str, step: int) -> Iterator[None]:
        """Everything drawn inside is a function of (seed, purpose, step)."""
        before = (self.purpose, self.step, self.draws)
        self.purpose, self.step, self.draws = purpose, step, Counter()
        try:
            yield
        finally:
            self.purpose, self.step, self.draws = before

    def positions(self, rows: Tensor, samples: int, width: int, name: str = "", draw: int | None = None) -> Tensor:
        """(len(rows) * samples, width) in [0, 1), float64: one uniform a position, a row's samples together. A prefix does not
        depend on `width`. Without `draw`, each draw of a name differs from those before, whatever others were drawn."""
        if draw is None:
            draw = self.draws[name] = self.draws[name] + 1
        names = ["sampling", name] if name else []
        key = generator(self.seed, self.purpose, self.step, *names, draw).integers(2**32, size=2, dtype=np.uint64)
        row = rows.cpu().numpy().astype(np.uint64).repeat(samples)[:, None]
        sample, position = np.tile(np.arange(samples), len(rows))[:, None], np.arange(width)
        high, low, *_ = philox(key, position, sample, row & WORD, row >> np.uint64(32))
        return torch.from_numpy(((high >> np.uint64(5)) * 2.0**26 + (low >> np.uint64(6))) / 2.0**53)

    def named(self, name: str, rows: Tensor) -> Tensor:
        """(len(rows),) in [0, 1): one uniform a row for `name`."""
        drawn = [generator(self.seed, self.purpose, self.step, name, row).random() for row in rows.tolist()]
        return torch.tensor(drawn, device=rows.device)
