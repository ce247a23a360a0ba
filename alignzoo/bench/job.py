"""One run, carried out: a process with a fixed number of threads, its log, and what is noted of how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from alignzoo.bench.forked import Forked, limits
from alignzoo.common.folder import SUMMARY, line, objects

INTERRUPTED = 130
JOURNAL, STOP = "progress.jsonl", ".stop"
PATIENCE = 0.1  # seconds between looks at whether a run has ended, or is to


@dataclass(frozen=True)
class Job:
    """What a process anywhere needs to know of a run. `bench` is the folder of them all; `forks`: see `forked`."""

    folder: str
    overrides: tuple[str, ...]
    bench: str
    threads: int = 1
    forks: bool = False

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
            code = self._wait(self._start(log))
            if self.stopped() and code == -signal.SIGTERM:  # before it could listen
                code = INTERRUPTED
            seconds = time.perf_counter() - start
            note(
                self.bench, {"run": self.folder, "code": code, "seconds": round(seconds, 1), "error": self._error(code, begin)}
            )
        return code

    def _start(self, log: BinaryIO) -> subprocess.Popen[bytes] | Forked:
        """With a fixed number of threads, so that neither speed nor rounding depends on what runs beside it."""
        environment = os.environ | limits(self.threads)
        if self.forks:
            return Forked(self.overrides, log, environment, self.threads)
        return subprocess.Popen(self.command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def _wait(self, process: subprocess.Popen[bytes] | Forked) -> int:
        """Until it has ended; asked to stop, it saves first. In a session of its own, Ctrl-C reaches it only so."""
        while not self.stopped():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(PATIENCE)
        process.terminate()
        return process.wait()

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
            texts = log.read().decode("utf-8", errors="replace").strip().splitlines()
        messages = [text for text in texts if text.startswith("alignzoo: ")]
        return (messages or texts or [f"no output, exit code {code}"])[-1].removeprefix("alignzoo: ")


def note(bench: str | Path, row: Mapping[str, object]) -> None:
    """One line more in the journal, in one write, so that runs on several machines don't mix theirs."""
    with Path(bench, JOURNAL).open("ab", buffering=0) as file:
        file.write(line(dict(row)))


def journal(bench: str | Path) -> list[dict[str, Any]]:
    """What was noted so far; a line that is still being written is left out."""
    return [row for _, row in objects(Path(bench, JOURNAL)) if row is not None]
