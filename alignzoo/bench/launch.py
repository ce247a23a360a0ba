"""Jobs side by side: in a pool of this process, or wherever Hydra's launcher puts them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.bench import shared
from alignzoo.bench.job import INTERRUPTED, STOP, Job
from alignzoo.bench.plan import Run
from alignzoo.bench.progress import watching
from alignzoo.bench.renewal import renew
from alignzoo.bench.request import Request
from alignzoo.common.signals import caught
from alignzoo.config import grammar
from alignzoo.pipeline.sweep import launch


def execute(runs: Sequence[Run], request: Request) -> list[int]:
    """Runs those that aren't finished and returns their exit codes. One that fails doesn't stop the others; Ctrl-C and SIGTERM
    let each save and end all.
    """
    renew(request, runs)
    waiting = [r for r in runs if not r.finished]
    stages = sum(len(level) for level in shared.levels(waiting))
    with _stopping(request.folder), watching(request.folder, len(runs) + stages, len(runs) - len(waiting)):
        able = shared.make(waiting, request, lambda jobs: start(jobs, request))
        if (request.folder / STOP).exists():
            return [INTERRUPTED]
        return start([Job(str(r.folder), r.overrides, str(request.folder), request.threads) for r in able], request)


def start(jobs: Sequence[Job], request: Request) -> list[int]:
    """Wherever the request says; returns the exit codes."""
    if not jobs or request.launcher is None:
        return pool(jobs, request.jobs or room_for(request.threads))
    return launched(jobs, request)


def pool(jobs: Sequence[Job], width: int) -> list[int]:
    """In subprocesses of this one, `width` at a time: what a single machine needs, with no further dependency."""
    with ThreadPoolExecutor(max(1, min(width, len(jobs)))) as threads:
        return list(threads.map(lambda job: job(), jobs))


def launched(jobs: Sequence[Job], request: Request) -> list[int]:
    """By Hydra's launcher, each as one job of a sweep over the number of the run."""
    numbers = ",".join(map(str, range(len(jobs))))
    own = [*request.own, f"hydra.sweep.dir={request.folder}/launcher", f"run={numbers if len(jobs) > 1 else 'choice(0)'}"]
    with grammar.searching(grammar.parse(request.own)):
        return launch("bench", Elsewhere(tuple(jobs), os.getpid()), own)


@dataclass(frozen=True)
class Elsewhere:
    """What a launcher calls, in a process of its own or not."""

    jobs: tuple[Job, ...]
    bench_process: int

    def __call__(self, cfg: Any) -> int:
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

    def ask(*_: Any) -> None:
        if stop.exists():
            raise KeyboardInterrupt
        stop.touch()

    with caught(ask):
        yield
        stop.unlink(missing_ok=True)
