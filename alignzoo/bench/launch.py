"""Jobs side by side: in a pool of this process, or wherever Hydra's launcher puts them; and how far they are."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignzoo.bench import forked
from alignzoo.bench.bench_folder import renew
from alignzoo.bench.grid import BenchRun
from alignzoo.bench.job import INTERRUPTED, STOP, Job, journal, note
from alignzoo.bench.suite import Request
from alignzoo.common.folder import MODEL, SUMMARY
from alignzoo.common.signals import caught
from alignzoo.config import command_line
from alignzoo.pipeline.stages import Stage
from alignzoo.pipeline.sweep import launch

PERIOD = 0.5  # seconds between looks into the journal
DAY = 86400.0


def execute(runs: Sequence[BenchRun], request: Request) -> list[int]:
    """Runs those that aren't finished and returns their exit codes. One that fails doesn't stop the others; Ctrl-C and SIGTERM
    let each save and end all.
    """
    renew(request, runs)
    waiting = [r for r in runs if not r.finished]
    stages = sum(len(level) for level in _levels(waiting))
    with _stopping(request.folder), watching(request.folder, len(runs) + stages, len(runs) - len(waiting)):
        able = _make_stages(waiting, request)
        if (request.folder / STOP).exists():
            return [INTERRUPTED]
        return start([Job(str(r.folder), r.overrides, str(request.folder), request.bench.threads) for r in able], request)


def _levels(runs: Sequence[BenchRun]) -> list[list[Stage]]:
    """Those of these runs that aren't there, the first of every pipeline before the second."""
    by_place: dict[int, dict[Path, Stage]] = {}
    for r in runs:
        for place, stage in enumerate(r.stages):
            if not _is_made(stage):
                by_place.setdefault(place, {})[stage.folder] = stage
    return [list(by_place[place].values()) for place in sorted(by_place)]


def _make_stages(runs: Sequence[BenchRun], request: Request) -> list[BenchRun]:
    """Carries out the stages before the runs, level by level, each once however many use it, and returns the runs that can be
    made now. Of the others the journal says which stage failed and why; none can where someone has asked all to end."""
    for level in _levels(runs):
        ready = [stage for stage in level if all((used.folder / MODEL).is_dir() for used in stage.inputs)]
        start([Job(str(stage.folder), stage.overrides, str(request.folder), request.bench.threads) for stage in ready], request)
    if (request.folder / STOP).exists():
        return []
    errors = {row["run"]: row["error"] for row in journal(request.folder)}
    able = []
    for r in runs:
        broken = next((stage for stage in r.stages if not _is_made(stage)), None)
        if broken is None:
            able.append(r)
        else:
            why = errors.get(str(broken.folder)) or "it was not made"
            error = f"its stage {broken.name} ({broken.folder}) failed: {why}"
            note(request.folder, {"run": str(r.folder), "code": 1, "seconds": 0.0, "error": error})
    return able


def _is_made(stage: Stage) -> bool:
    return (stage.folder / SUMMARY).is_file()


def start(jobs: Sequence[Job], request: Request) -> list[int]:
    """Wherever the request says: in processes beside this one, as many at a time as there is room for, which needs no further
    dependency; or by Hydra's launcher, each as one job of a sweep over its number. Returns the exit codes."""
    if not jobs:
        return []
    if request.launcher is None:
        if forked.able():
            forked.serve(request.bench.threads)
            jobs = [replace(job, forks=True) for job in jobs]
        with ThreadPoolExecutor(min(request.jobs or room_for(request.bench.threads), len(jobs))) as threads:
            return list(threads.map(lambda job: job(), jobs))
    numbers = ",".join(map(str, range(len(jobs)))) if len(jobs) > 1 else "choice(0)"
    with command_line.searching(command_line.parse(request.bench_lines)):
        lines = [*request.bench_lines, f"hydra.sweep.dir={request.folder}/launcher", f"run={numbers}"]
        return launch("bench", Elsewhere(tuple(jobs), os.getpid()), lines)


@dataclass(frozen=True)
class Elsewhere:
    """What a launcher calls, in a process of its own or not."""

    jobs: tuple[Job, ...]
    bench_process: int

    def __call__(self, cfg: DictConfig) -> int:
        if os.getpid() != self.bench_process:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # bench asks the runs to stop; the launcher's own way would kill them
        return self.jobs[cfg.run]()


def room_for(threads: int) -> int:
    """Runs that the cores have room for; with a GPU, which they would share, one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if torch.cuda.is_available() else max(1, cores // threads)


@contextmanager
def _stopping(folder: Path) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal ask the runs, wherever they are, to save and end, and start none after that. A
    second time, this process ends at once.
    """
    stop = folder / STOP

    def ask(number: int) -> None:
        if stop.exists():
            raise KeyboardInterrupt
        stop.touch()

    with caught(ask):
        yield
        stop.unlink(missing_ok=True)


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

        def follow() -> None:
            last = False
            while not last:
                last = over.wait(PERIOD)
                rows = journal(folder)[noted:]
                failed = sum(row["error"] is not None for row in rows)
                ended = sum(row["code"] != INTERRUPTED for row in rows)
                bar.update(task, completed=done + ended, description=f"runs, {failed} failed" if failed else "runs")

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
