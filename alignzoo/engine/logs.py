"""The run's JSON Lines files: appended row by row, and cut back to a checkpoint's step on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Lines:
    """One JSON object a line, each with its `step`. Only the main process writes."""

    def __init__(self, path: Path, active: bool) -> None:
        self.path, self.active = path, active

    def write(self, row: dict[str, Any]) -> None:
        if self.active:
            with self.path.open("a") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def sync(self) -> None:
        """On disk before a checkpoint of the same step is."""
        if self.active and self.path.exists():
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def cut(self, step: int) -> None:
        """Drop rows later than `step`, and a last line that a crash left unfinished."""
        if not (self.active and self.path.exists()):
            return
        kept = [line for line in self.path.read_text().splitlines() if _step(line) <= step]
        aside = self.path.with_suffix(".partial")
        aside.write_text("".join(line + "\n" for line in kept))
        aside.replace(self.path)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
