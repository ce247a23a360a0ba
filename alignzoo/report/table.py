"""Tables for the terminal: of runs, from their summaries, and of what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from alignzoo.errors import printable

FACTS = ("algorithm", "data", "seed", "status", "steps")
METRICS = ("gap_closed", "reward", "gold", "win_rate", "kl", "entropy", "length", "accuracy", "perplexity", "loss")


def show(runs: Sequence[dict[str, Any]]) -> None:
    """One row a run; a column for each metric that one of them has. A metric that a run can't have stays empty."""
    names = [name for name in METRICS if any(name in run["metrics"] for run in runs)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*FACTS, "seconds", *names, "folder"):
        table.add_column(name, justify="right" if name in ("seed", "steps", "seconds", *names) else "left", overflow="fold")
    for run in runs:
        facts = [str(run.get(name, "")) for name in FACTS]
        metrics = [_number(run["metrics"].get(name)) for name in names]
        _add(table, [*facts, _number(run.get("total_seconds")), *metrics, run["run_dir"]])
    _print(table)


def show_answer(headline: str, details: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The answer, and the table that it comes from."""
    print(printable("\n".join([headline, *(text for text in details if text), ""])))
    show_rows(columns, rows)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        _add(table, row)
    _print(table)


def _add(table: Table, row: Sequence[str]) -> None:
    table.add_row(*map(printable, row))  # of runs from anywhere


def _print(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
