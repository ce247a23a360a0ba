"""Jobs side by side: in a pool of this process, or wherever Hydra's launcher puts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from alignzoo.bench.job import Job
from alignzoo.bench.plan import Run
from alignzoo.bench.request import Request


def execute(runs: Sequence[Run], request: Request) -> list[int]:
    """Runs them and returns their exit codes. One that fails doesn't stop the others."""
    jobs = [Job(str(r.folder), r.overrides, str(request.folder), request.threads) for r in runs]
    return pool(jobs, request.jobs or room_for(request.threads))


def pool(jobs: Sequence[Job], width: int) -> list[int]:
    """In subprocesses of this one, `width` at a time."""
    with ThreadPoolExecutor(max(1, min(width, len(jobs)))) as threads:
        return list(threads.map(lambda job: job(), jobs))


def room_for(threads: int) -> int:
    """Runs that the cores have room for; with a GPU, which they would share, one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if torch.cuda.is_available() else max(1, cores // threads)
