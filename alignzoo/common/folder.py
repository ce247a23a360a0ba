"""What a run leaves in its folder: names, and rows of its JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
FRONTIER = "frontier.json"
SUMMARY = "summary.json"  # only of a finished run
CHECKPOINTS = "checkpoints"
MODEL = "model"


def result_step(rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> int:
    """Which evaluation's weights are a run's result: those of the last one among `rows`, or of the one early stopping kept."""
    kept = (summary.get("early_stop") or {}).get("weights_of_step")
    return max((row["step"] for row in rows), default=0) if kept is None else int(kept)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
