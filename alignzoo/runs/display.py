"""The live display of a run: a progress bar with the key metrics on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from alignzoo.common import metric_table
from alignzoo.common.metric_table import ShownIn

KEY_METRICS = (*metric_table.shown(ShownIn.TRAINING), *(f"eval/{name}" for name in metric_table.shown(ShownIn.EVALUATION)))


class Display:
    """Shows where a run of `total_steps` optimizer steps is; None: one that a budget ends. `update` may come at any step, and
    leave steps out.
    """

    def __init__(self, total_steps: int | None, title: str, console: Console | None = None) -> None:
        self.total, self.title = total_steps, title
        self.console = console or Console(stderr=True)
        self.started, self.first = time.monotonic(), None
        self.seen: dict[str, float] = {}
        self.live = self._live() if self.console.is_terminal else None

    def update(self, step: int, row: Mapping[str, object], share: float = 0.0) -> None:
        """Show the metrics of `step`, and the share of the budget used; those of an evaluation stay beside the training metrics
        that follow.
        """
        now = {n: float(v) for n, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        self.seen |= now
        if self.live is None:
            shown = _line(now)
            if shown:
                place = f"{step}/{self.total}" if self.total else f"{step} ({share:.0%} of the budget)"
                self.console.print(f"step {place}  {shown}", highlight=False, soft_wrap=True, markup=False)
            return
        self.progress.update(self.task, completed=step if self.total else min(share, 1.0))
        self.metrics.plain = _line(self.seen)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    def _live(self) -> Live:
        steps = (MofNCompleteColumn(), TextColumn("{task.speed:.2f}/s")) if self.total else (TaskProgressColumn(),)
        columns = (TextColumn("{task.description}"), BarColumn(), *steps)
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
        self.task = self.progress.add_task(self.title, total=self.total or 1.0)
        self.metrics = Text()
        live = Live(Group(self.progress, self.metrics), console=self.console, refresh_per_second=4)
        live.start()
        return live


def _line(values: Mapping[str, float]) -> str:
    """The key metrics there are, in a fixed order."""
    return "  ".join(f"{name} {_number(values[name])}" for name in KEY_METRICS if name in values)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@contextmanager
def each_once() -> Iterator[None]:
    """Inside, a warning is shown once, however many networks it is about."""
    shown: set[str] = set()

    def new(record: logging.LogRecord) -> bool:
        before = len(shown)
        shown.add(record.getMessage())
        return len(shown) > before

    logger = logging.getLogger("alignzoo")
    logger.addFilter(new)
    try:
        yield
    finally:
        logger.removeFilter(new)
