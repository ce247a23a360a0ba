"""Starting scripts under torchrun, two ranks on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.limits import HANG

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start("script.py", *arguments)` under torchrun; whatever still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def launch(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        command = [*TORCHRUN, *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=cwd, env=os.environ | QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield launch
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def torchrun(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Runs to the end; fails with the script's errors. Returns what it printed."""

    def complete(*arguments: str | Path, cwd: Path | None = None) -> str:
        process = start(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == 0, err[-4000:]
        return out

    return complete
