"""What is known of a set of runs beyond the runs: what `alignzoo bench` wrote about it into `bench.json`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, TypeVar

from alignzoo.errors import UserError

FILE = "bench.json"
T = TypeVar("T")


class TrialOutcome(TypedDict):
    """Settings that were tried, their score on each tuning seed and the mean; None, for the `error`, where one failed."""

    settings: dict[str, object]
    scores: dict[str, float | None]
    score: float | None
    error: str


class TuningOutcome(TypedDict):
    """What was tried for one algorithm under one condition: the ranges, the settings left out and why, the trials, of which the
    first is what was configured, the place of the one chosen (None: all failed), and the keys whose value lies at an end of its
    range.
    """

    label: str
    condition: str
    metric: str
    space: dict[str, str]
    left_out: dict[str, str]
    trials: list[TrialOutcome]
    chosen: int | None
    edges: list[str]
    cost: dict[str, float]


@dataclass(frozen=True)
class Study:
    """`vary` names the settings that differ on purpose and make conditions, each compared by itself. `sweep` names those (the
    KL strength) whose values make one frontier: algorithms are then compared by the area under theirs. `planned` are the
    comparisons decided on beforehand; none: all pairs. `margin` is how far apart two may be and count as level; none:
    not asked. `threshold` is the share of the gap that curves are asked about.
    """

    command: list[str] = field(default_factory=list)
    suite: str = ""
    vary: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    planned: list[list[str]] = field(default_factory=list)
    tuning: list[TuningOutcome] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    threshold: float = 0.9
    margin: float | None = None


def read(folders: Sequence[Path]) -> Study:
    """The study of these folders; of several, all that they say. Raises UserError for a file that says something else."""
    studies = [_read(folder / FILE) for folder in folders if (folder / FILE).is_file()]
    if not studies:
        return Study()
    return Study(
        command=_joined(study.command for study in studies), suite=" and ".join(_joined([s.suite] for s in studies if s.suite)),
        vary=_joined(study.vary for study in studies), sweep=_joined(study.sweep for study in studies),
        planned=_joined(study.planned for study in studies), tuning=_joined(study.tuning for study in studies),
        failed={run: why for study in studies for run, why in study.failed.items()}, threshold=studies[0].threshold,
        margin=studies[0].margin,
    )  # fmt: skip


def _read(path: Path) -> Study:
    try:
        record = json.loads(path.read_text("utf-8"))
        command = record.pop("command", [])
        # one command: as text, or as the list of its words
        return Study(**record, command=[command if isinstance(command, str) else shlex.join(command)] if command else [])
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not what alignzoo bench writes: {error}") from None


def _joined(lists: Iterable[list[T]]) -> list[T]:
    """Each item once, in order."""
    joined: list[T] = []
    for item in (item for items in lists for item in items):
        if item not in joined:
            joined.append(item)
    return joined
