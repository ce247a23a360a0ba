"""What is known of a set of runs beyond the runs: what `alignzoo bench` wrote about it into `bench.json`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.errors import UserError

FILE = "bench.json"


@dataclass(frozen=True)
class Study:
    """`vary` names the settings that differ on purpose and make conditions, each compared by itself. `sweep` names those (the
    KL strength) whose values make one frontier: algorithms are then compared by the area under theirs. `planned` are the
    comparisons decided on beforehand; none: all pairs. `threshold` is the share of the gap that curves are asked about.
    """

    command: list[str] = field(default_factory=list)
    suite: str = ""
    vary: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    planned: list[list[str]] = field(default_factory=list)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    threshold: float = 0.9


def read(folders: Sequence[Path]) -> Study:
    """The study of these folders; of several, all that they say. Raises UserError for a file that says something else."""
    found = [_one(folder / FILE) for folder in folders if (folder / FILE).is_file()]
    if not found:
        return Study()
    lists = {
        name: _joined([getattr(study, name) for study in found]) for name in ("command", "vary", "sweep", "planned", "tuning")
    }
    failed = {run: why for study in found for run, why in study.failed.items()}
    suites = " and ".join(dict.fromkeys(study.suite for study in found if study.suite))
    return Study(suite=suites, failed=failed, threshold=found[0].threshold, **lists)


def _one(path: Path) -> Study:
    try:
        said = json.loads(path.read_text("utf-8"))
        return Study(**{**said, "command": _commands(said.get("command", []))})
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not what alignzoo bench writes: {error}") from None


def _commands(said: str | list[str]) -> list[str]:
    """A command as text, or as the list of its words."""
    return [] if not said else [said if isinstance(said, str) else shlex.join(said)]


def _joined(lists: Sequence[list[Any]]) -> list[Any]:
    """Each item once, in order."""
    found: list[Any] = []
    for item in (item for items in lists for item in items):
        if item not in found:
            found.append(item)
    return found
