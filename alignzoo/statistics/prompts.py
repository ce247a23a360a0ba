"""Two policies on the same prompts: what holds for these two, whatever another seed of training would have given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignzoo.statistics.comparison import sign_flip_p
from alignzoo.statistics.intervals import Ends, mean_interval
from alignzoo.statistics.text_statistics import win_rate


@dataclass(frozen=True)
class PromptTest:
    """The first policy against the second: its mean score less the second's, with the 95 % interval and the p of a paired
    permutation test over prompts (exact up to 40); on how many prompts it scores higher, the same and lower; and the share that
    it wins, ties by half, with Wilson's interval."""

    prompts: int
    difference: float
    interval: Ends
    p: float
    wins: int
    ties: int
    losses: int
    win_rate: float
    win_rate_interval: Ends


def over_prompts(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> PromptTest:
    """Of scores (N,), one a prompt: where a prompt has several completions, their mean, since they are no independent draws.
    Raises ValueError below two prompts."""
    d = np.subtract(first, second, dtype=np.float64)
    share, ends = win_rate(list(first), list(second))
    return PromptTest(
        len(d), float(d.mean()), mean_interval(d), sign_flip_p(d), int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum()),
        share, ends,
    )  # fmt: skip
