"""One run, carried out: a subprocess with a fixed number of threads, its log, and what is noted of how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from alignzoo.common.folder import SUMMARY

INTERRUPTED = 130
JOURNAL, STOP = "progress.jsonl", ".stop"
PATIENCE = 0.1  # seconds between looks at whether a run has ended, or is to


@dataclass(frozen=True)
class Job:
    """What a process anywhere needs to know of a run. `bench` is the folder of them all."""

    folder: str
    overrides: tuple[str, ...]
    bench: str
    threads: int = 1

    @property
    def log(self) -> Path:
        return Path(f"{self.folder}.log")

    @property
    def command(self) -> list[str]:
        """Goes on where an earlier attempt was stopped."""
        return [sys.executable, "-m", "alignzoo", "train", *self.overrides]

    def finished(self) -> bool:
        return Path(self.folder, SUMMARY).is_file()

    def stopped(self) -> bool:
        """Whether someone has asked all runs of this bench to end."""
        return Path(self.bench, STOP).exists()

    def __call__(self) -> int:
        """Runs it, unless it is finished, and returns the exit code, which goes into the journal too."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self._only_one() as log:
            if self.stopped():
                return INTERRUPTED
            if self.finished():
                return 0
            start, begin = time.perf_counter(), self.log.stat().st_size
            code = self._wait(
                subprocess.Popen(self.command, stdout=log, stderr=log, env=self._environment(), start_new_session=True)
            )
            if self.stopped() and code == -signal.SIGTERM:  # before it could listen
                code = INTERRUPTED
            seconds = time.perf_counter() - start
            note(
                self.bench, {"run": self.folder, "code": code, "seconds": round(seconds, 1), "error": self._error(code, begin)}
            )
        return code

    def _environment(self) -> dict[str, str]:
        """A fixed number of threads, so that neither speed nor rounding depends on what runs beside it."""
        return os.environ | {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Until it has ended; asked to stop, it saves first. In a session of its own, Ctrl-C reaches it only so."""
        asked = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(PATIENCE)
            if self.stopped() and not asked:
                process.terminate()
                asked = True

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[BinaryIO]:
        """The log, locked for as long as the run or this process lives: a run that outlived its bench is waited for, not
        started a second time.
        """
        with self.log.open("ab") as log:
            while True:
                try:
                    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.stopped() or self.finished():
                        break
                    time.sleep(PATIENCE)
            yield log

    def _error(self, code: int, begin: int) -> str | None:
        """What the run said last, of this attempt."""
        if code in (0, INTERRUPTED):
            return None
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        with self.log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
        told = [line for line in lines if line.startswith("alignzoo: ")]
        return (told or lines or [f"no output, exit code {code}"])[-1].removeprefix("alignzoo: ")


def note(bench: str | Path, row: dict[str, Any]) -> None:
    """One line more in the journal, in one write, so that runs on several machines don't mix theirs."""
    line = (json.dumps(row) + "\n").encode()
    journal = os.open(Path(bench, JOURNAL), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(journal, line)
    finally:
        os.close(journal)


def journal(bench: str | Path) -> list[dict[str, Any]]:
    """What was noted so far; a line that is still being written is left out."""
    path = Path(bench, JOURNAL)
    lines = path.read_text("utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
