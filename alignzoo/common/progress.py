"""Where long work is: a bar on a terminal, elsewhere a line when it begins."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignzoo.errors import tell

PATIENCE = 2.0  # seconds that work may take without a word
T = TypeVar("T")


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A function to tell how many more are done. Nothing is shown of what takes less than PATIENCE, and the first of several
    processes speaks for all."""
    console, began, shown = Console(stderr=True), time.monotonic(), os.environ.get("RANK", "0") != "0"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(title, total=total)

    def advance(more: int) -> None:
        nonlocal shown
        bar.advance(task, more)
        if not shown and not bar.finished and time.monotonic() - began > PATIENCE:
            shown = True
            if console.is_terminal:
                bar.start()
            else:
                tell(f"{title} ...")

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def counted(items: Iterable[T], title: str, total: int | None = None, each: int = 1000) -> Iterator[T]:
    """The items, told of as they go by."""
    with progress(title, total) as advance:
        for number, item in enumerate(items, start=1):
            yield item
            if number % each == 0:
                advance(each)
