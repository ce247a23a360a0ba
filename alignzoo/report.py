"""A table of finished runs, from their summaries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alignzoo.settings import UserError

FACTS = ("algorithm", "data", "seed", "status", "steps")
METRICS = ("gap_closed", "reward", "kl", "entropy", "length", "accuracy", "loss")


def summaries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The summary of each run, and of the runs inside a folder that is none. Raises UserError where there are none."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        files = [folder / "summary.json"] if (folder / "summary.json").is_file() else sorted(folder.glob("**/summary.json"))
        if not files:
            raise UserError(f"{folder} holds no finished run: there is no summary.json")
        found += [{**json.loads(file.read_text("utf-8")), "run_dir": str(file.parent)} for file in files]
    return found


def show(runs: Sequence[dict[str, Any]]) -> None:
    """One row a run; a column for each metric that one of them has. A metric that a run can't have stays empty."""
    names = [name for name in METRICS if any(name in run["metrics"] for run in runs)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*FACTS, "seconds", *names, "folder"):
        table.add_column(name, justify="right" if name in ("seed", "steps", "seconds", *names) else "left", overflow="fold")
    for run in runs:
        facts = [str(run.get(name, "")) for name in FACTS]
        metrics = [_number(run["metrics"].get(name)) for name in names]
        table.add_row(*facts, _number(run.get("total_seconds")), *metrics, run["run_dir"])
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
