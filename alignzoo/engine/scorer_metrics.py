"""Held-out evaluation of a scorer: whether it prefers what the data prefers, how sure of it, and whether for its length."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from alignzoo.batch import Batch, Pairs, Rankings, Rated
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import RELIABILITY
from alignzoo.contracts import Scorer
from alignzoo.statistics import calibration

MOST = 64  # completions of a group that are compared with each other: more would be thousands of comparisons a prompt


@dataclass(frozen=True)
class Judged:
    """A held-out completion, compared with those of its `group`, of which one of higher `merit` is better; `margin` says by how
    much, where the data does."""

    group: Hashable
    merit: float
    score: float
    length: int
    margin: float | None = None


def judged(scorer: Scorer, batch: Batch, pairs: bool = False) -> list[Judged]:
    """The completions of a batch with their scores; none of records that compare nothing. Of a scorer that reads `pairs`, half
    of a pair's log-odds, and their negative."""
    margins: list[float | None] = [None] * len(batch)
    if isinstance(batch, Pairs):
        c, size = batch.both, len(batch)
        groups, merits = c.row.tolist(), [1.0] * size + [0.0] * size
        margins = 2 * (margins if batch.margin is None else batch.margin.tolist())
    elif isinstance(batch, Rankings):
        c, groups, merits = batch, batch.row.tolist(), (-batch.rank).tolist()
    elif isinstance(batch, Rated):
        prompts = [tuple(ids[mask].tolist()) for ids, mask in zip(batch.prompts.ids, batch.prompts.attended, strict=True)]
        c, groups, merits = batch, [prompts[p] for p in batch.prompt_of.tolist()], batch.rating.tolist()
    else:
        return []
    if pairs and isinstance(batch, Pairs):
        half = scorer.comparisons(batch.chosen, batch.rejected) / 2
        scores = torch.cat([half, -half])
    else:
        scores = scorer.scores(c)
    rows = zip(groups, merits, scores.tolist(), c.length.long().tolist(), margins, strict=True)
    return [Judged(*row) for row, counted in zip(rows, c.counted.tolist(), strict=True) if counted]


def measured(completions: Iterable[Judged]) -> tuple[dict[str, float], dict[str, object]]:
    """Metrics, and what goes into reliability.json; what can't be had is absent, such as accuracy where nothing is better."""
    completions = list(completions)
    compared = comparisons(completions)
    if not compared:
        return {}, {}
    margins, lengths = (np.array([getattr(a, n) - getattr(b, n) for a, b in compared]) for n in ("score", "length"))
    by_confidence = calibration.accuracy_by_size(margins, np.abs(margins))
    groups = {
        "accuracy_when_better_is_shorter": margins[lengths < 0],
        "accuracy_when_better_is_longer": margins[lengths > 0],
    }
    scores, lengths_of_all = (np.array([float(getattr(c, n)) for c in completions]) for n in ("score", "length"))
    metrics = {
        "accuracy": calibration.accuracy(margins),
        "log_loss": calibration.log_loss(margins),
        "calibration_error": calibration.expected_calibration_error(margins),
        "length_correlation": calibration.correlation(scores, lengths_of_all),
        **{name: calibration.accuracy(group) for name, group in groups.items()},
        **{f"accuracy_by_margin/{i}": value for i, value in enumerate(by_confidence, 1)},
    }
    data: dict[str, object] = {"comparisons": len(compared), "bins": [asdict(b) for b in calibration.reliability(margins)]}
    of_data = np.array([math.nan if a.margin is None else a.margin for a, _ in compared])
    if not np.isnan(of_data).any():
        by_margin = calibration.accuracy_by_size(margins, of_data)
        metrics |= {f"accuracy_by_given_margin/{i}": value for i, value in enumerate(by_margin, 1)}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}, data


def comparisons(completions: Iterable[Judged]) -> list[tuple[Judged, Judged]]:
    """(better, worse) of each two completions of a group that differ in merit; of a large group, only among its first."""
    groups = defaultdict(list)
    for completion in completions:
        groups[completion.group].append(completion)
    return [(a, b) for group in groups.values() for a, b in permutations(group[:MOST], 2) if a.merit > b.merit]


def write(folder: Path, step: int, metrics: Mapping[str, float], data: Mapping[str, object]) -> None:
    """The reliability diagram's numbers, of the newest evaluation."""
    write_whole(folder / RELIABILITY, json.dumps({"step": step, **data, "metrics": metrics}, indent=1))
