"""A run as a fork of a process that has everything imported, since half of a small run is start-up."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, reduction
from typing import Any, BinaryIO

PRELOADED = [  # what nearly every run imports
    "alignzoo.bench.session", "alignzoo.cli.train_command", "alignzoo.data.exact.source", "alignzoo.engine.build",
    "alignzoo.models.sampling.backends", "alignzoo.pipeline.carry_out", "alignzoo.report.table", "alignzoo.runs.saving",
    "alignzoo.runs.single", "peft", "transformers.models.llama.modeling_llama", "transformers.trainer",
]  # fmt: skip
CONTEXT: Any = multiprocessing.get_context("forkserver") if "forkserver" in multiprocessing.get_all_start_methods() else None


def able() -> bool:
    """Whether runs may be forks: CUDA does not survive one."""
    import torch

    return CONTEXT is not None and not torch.cuda.is_available()


def limits(threads: int) -> dict[str, str]:
    """The variables that set the number of threads, read when libraries are loaded."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def serve(threads: int) -> None:
    """Start the process that is forked, with as many threads as the runs are to have."""
    before = {name: os.environ.get(name) for name in limits(threads)}
    os.environ.update(limits(threads))
    CONTEXT.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
    for name, value in before.items():
        del os.environ[name]
        os.environ.update({} if value is None else {name: value})


class Forked:
    """`alignzoo train` with these overrides, with what a job needs of `subprocess.Popen`."""

    def __init__(self, overrides: Sequence[str], log: BinaryIO, environment: Mapping[str, str], threads: int) -> None:
        place = (os.getcwd(), dict(environment), threads)
        self.process = CONTEXT.Process(target=_train, args=(tuple(overrides), Output(log.fileno()), *place))
        self.process.start()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, minus the number of the signal that killed it. Raises subprocess.TimeoutExpired."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("alignzoo train", timeout or 0.0)
        return int(self.process.exitcode)

    def terminate(self) -> None:
        self.process.terminate()


class Output:
    """An open file that another process goes on writing to; a lock on it lasts until both have closed it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.number),)


def _received(sent: Any) -> Output:
    return Output(sent.detach())


def _train(overrides: Sequence[str], log: Output, folder: str, environment: Mapping[str, str], threads: int) -> None:
    """In the fork: all that a process of its own would have, and what `atexit` promises, which forks don't keep."""
    import torch

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(log.number, stream)
    os.close(log.number)
    torch.set_num_threads(threads)
    sys.argv = ["alignzoo", "train", *overrides]
    atexit._clear()
    try:
        runpy.run_module("alignzoo", run_name="__main__")
    finally:
        atexit._run_exitfuncs()
