"""Runs of one seed, prompt by prompt: what can be said of these runs where nothing can be said of the algorithms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from alignzoo.runs.results import Run
from alignzoo.statistics.comparison import Comparison, compare


def compared(runs: Sequence[Run], metric: str) -> list[Comparison]:
    """Every pair of the runs on the held-out prompts that all of them have scored at their end, the mean over a prompt's
    completions counting once; none where there are several runs of a label, or fewer than two such prompts."""
    if len({run.label for run in runs}) < len(runs):  # known before their completions are read
        return []
    scores = {run.label: _by_prompt(run, metric) for run in runs}
    common = set.intersection(*map(set, scores.values()))
    if len(common) < 2:
        return []
    order = sorted(common)
    return compare({label: {i: of_run[prompt] for i, prompt in enumerate(order)} for label, of_run in scores.items()})


def _by_prompt(run: Run, metric: str) -> dict[str, float]:
    scores: dict[str, list[float]] = defaultdict(list)
    for row in run.written:
        if isinstance(row.get(metric), int | float):
            scores[row["prompt"]].append(row[metric])
    return {prompt: float(np.mean(values)) for prompt, values in scores.items()}
