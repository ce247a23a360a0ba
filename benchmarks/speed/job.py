"""What one of the two programs is to do, as a file between processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.kinds import KINDS, Kind


@dataclass(frozen=True, kw_only=True)
class Job:
    """`replay`: alignzoo's side writes down what it sampled; `completions`: a file of that, which TRL's side is given."""

    folder: str  # see `material`
    out: str
    algorithm: str
    column: str = "tuned"
    steps: int = 12
    block: int = 1
    new_tokens: int = 128
    overrides: list[str] = field(default_factory=list)
    replay: bool = False
    completions: str = ""

    @property
    def kind(self) -> Kind:
        return KINDS[self.algorithm]

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @staticmethod
    def main(run: Callable[[Job], dict[str, Any]], path: str) -> None:
        job = Job(**json.loads(Path(path).read_text()))
        Path(job.out).write_text(json.dumps(run(job)))
