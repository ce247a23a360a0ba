"""Tables for the terminal: of runs, from their summaries, and of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from alignzoo.common import console
from alignzoo.common.metric_table import ShownIn, shown
from alignzoo.errors import printable

FACTS = ("algorithm", "data", "seed", "status", "steps")


def show(runs: Sequence[dict[str, Any]]) -> None:
    """One row a run; a column for each metric that one of them has. A metric that a run can't have stays empty."""
    names = [name for name in shown(ShownIn.RUNS) if any(name in run["metrics"] for run in runs)]
    table = console.table(*FACTS, "seconds", *names, "folder", right=("seed", "steps", "seconds", *names))
    for run in runs:
        facts = [str(run.get(name, "")) for name in FACTS]
        metrics = [_number(run["metrics"].get(name)) for name in names]
        _add(table, [*facts, _number(run.get("total_seconds")), *metrics, run["run_dir"]])
    console.show(table)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = console.table(*columns, right=columns[1:])
    for row in rows:
        _add(table, row)
    console.show(table)


def _add(table: Table, row: Sequence[str]) -> None:
    table.add_row(*map(printable, row))  # of runs from anywhere


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
