"""Held-out evaluation of a scorer: whether it prefers what the data prefers, how sure of it, and whether for its length."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from alignzoo.batch import Pairs, Rankings, Rated
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import RELIABILITY
from alignzoo.statistics import calibration

MOST = 64  # completions of a group that are compared with each other: more would be thousands of comparisons a prompt


@dataclass(frozen=True)
class Judged:
    """A held-out completion, compared with those of its `group`, of which one of higher `merit` is better; `margin` says by how
    much, where the data does."""

    group: Any
    merit: float
    score: float
    length: int
    margin: float | None = None


def judged(scorer: Any, batch: Any) -> list[Judged]:
    """The completions of a batch with their scores; none of records that compare nothing."""
    if isinstance(batch, Pairs):
        count, both = len(batch), batch.both
        margins = [None] * count if batch.margin is None else batch.margin.tolist()
        found = (both.row.tolist(), [1.0] * count + [0.0] * count, margins * 2)
    elif isinstance(batch, Rankings):
        both = batch
        found = (batch.row.tolist(), (-batch.rank).tolist(), [None] * len(batch))
    elif isinstance(batch, Rated):
        both = batch
        prompts = [tuple(ids[own].tolist()) for ids, own in zip(batch.prompts.ids, batch.prompts.attended, strict=True)]
        found = ([prompts[p] for p in batch.prompt_of.tolist()], batch.rating.tolist(), [None] * len(batch))
    else:
        return []
    groups, merits, margins = found
    rows = zip(groups, merits, scorer.scores(both).tolist(), both.length.long().tolist(), margins, strict=True)
    return [Judged(*row) for row, counted in zip(rows, both.counted.tolist(), strict=True) if counted]


def measured(found: Iterable[Judged]) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics, and what goes into reliability.json; what can't be had is absent, such as accuracy where nothing is better."""
    found = list(found)
    compared = comparisons(found)
    if not compared:
        return {}, {}
    margins, lengths = (np.array([getattr(a, n) - getattr(b, n) for a, b in compared]) for n in ("score", "length"))
    by_confidence = calibration.accuracy_by_size(margins, np.abs(margins))
    groups = {
        "accuracy_when_better_is_shorter": margins[lengths < 0],
        "accuracy_when_better_is_longer": margins[lengths > 0],
    }
    scores, lengths_of_all = (np.array([float(getattr(one, n)) for one in found]) for n in ("score", "length"))
    metrics = {
        "accuracy": calibration.accuracy(margins),
        "log_loss": calibration.log_loss(margins),
        "calibration_error": calibration.expected_calibration_error(margins),
        "length_correlation": calibration.correlation(scores, lengths_of_all),
        **{name: calibration.accuracy(group) for name, group in groups.items()},
        **{f"accuracy_by_margin/{i}": value for i, value in enumerate(by_confidence, 1)},
    }
    data: dict[str, Any] = {"comparisons": len(compared), "bins": [asdict(b) for b in calibration.reliability(margins)]}
    given = np.array([math.nan if a.margin is None else a.margin for a, _ in compared])
    if not np.isnan(given).any():
        by_given = calibration.accuracy_by_size(margins, given)
        metrics |= {f"accuracy_by_given_margin/{i}": value for i, value in enumerate(by_given, 1)}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}, data


def comparisons(found: Iterable[Judged]) -> list[tuple[Judged, Judged]]:
    """(better, worse) of each two completions of a group that differ in merit; of a large group, only among its first."""
    groups = defaultdict(list)
    for one in found:
        groups[one.group].append(one)
    return [(a, b) for group in groups.values() for a, b in permutations(group[:MOST], 2) if a.merit > b.merit]


def write(folder: Path, step: int, metrics: dict[str, float], data: dict[str, Any]) -> None:
    """The reliability diagram's numbers, of the newest evaluation."""
    write_whole(folder / RELIABILITY, json.dumps({"step": step, **data, "metrics": metrics}, indent=1))
