"""How far a bench is, on a terminal: runs done of all, and when the rest will be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignzoo.bench.job import INTERRUPTED, journal

PERIOD = 0.5  # seconds between looks into the journal
DAY = 86400.0


@contextmanager
def watching(folder: Path, total: int, done: int, console: Console | None = None) -> Iterator[None]:
    """Shows a bar while runs go on, from what they note in the journal, wherever they run. Nothing is shown elsewhere than on a
    terminal.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal or done == total:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    over, noted = threading.Event(), len(journal(folder))
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, speed_estimate_period=DAY) as bar:
        task = bar.add_task("runs", total=total, completed=done)

        def look() -> None:
            rows = journal(folder)[noted:]
            bar.update(task, completed=done + len([row for row in rows if row["code"] != INTERRUPTED]), description=_told(rows))

        def follow() -> None:
            while not over.wait(PERIOD):
                look()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            look()


def _told(rows: list[dict[str, Any]]) -> str:
    failed = sum(row["error"] is not None for row in rows)
    return "runs" if not failed else f"runs, {failed} failed"
