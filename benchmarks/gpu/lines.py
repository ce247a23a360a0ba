"""Results are lines of JSON, each whole on disk before anything else happens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as out:
        out.write(json.dumps(line) + "\n")
        out.flush()
        os.fsync(out.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """All lines; the last may be cut off where the machine was taken away."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
