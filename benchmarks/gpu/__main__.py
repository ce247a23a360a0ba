"""All of it, in the time there is: `python -m benchmarks.gpu OUT [--small]`, by `run.sh`, which says when that ends."""

from __future__ import annotations

import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu import lines
from benchmarks.gpu.bundle import ROOT, commit
from benchmarks.gpu.job import Job
from benchmarks.gpu.plan import LARGE, ROWS, SMALL, SMALL_ROWS, WARM_UP, Row, Size
from benchmarks.speed.kinds import KINDS
from benchmarks.speed.turns import Player

SET_UP, SEGMENT = 100, 75  # seconds that a program may take until it trains, and for a segment, one that compiles included
TESTS = 120
LAST = 10  # seconds before the end, when nothing new is begun
PACKAGES = ("torch", "transformers", "trl", "datasets", "pyarrow", "accelerate", "triton", "numpy")


class Program(Player):
    """One side of a row, waited for no longer than it may take."""

    def __init__(self, job: Job, folder: Path) -> None:
        name = job.side.replace(" ", "-")
        command = [sys.executable, "-m", "benchmarks.gpu.side", str(job.save(folder / f"{name}.json"))]
        super().__init__(command, {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}, folder / name)

    def ready(self, seconds: float) -> float:
        """Seconds that it has taken; raises RuntimeError where those are more than it may take."""
        start = time.perf_counter()
        if not select.select([self.read], [], [], max(seconds, 0.1))[0]:
            raise RuntimeError(f"not done after {seconds:.0f} s\n{self.printed.read_text(errors='replace')[-2000:]}")
        self.done()
        return time.perf_counter() - start

    def go(self, command: str, seconds: float) -> float:
        self.told.write(command + "\n")
        self.told.flush()
        return self.ready(seconds)


class Bench:
    """Everything that is measured goes into one file, and what is not measured too, with the reason."""

    def __init__(self, out: Path, small: bool, ends: float) -> None:
        self.results, self.small, self.ends = out / "results.jsonl", small, ends
        self.size: Size = SMALL if small else LARGE
        self.about: dict[str, Any] = {
            "commit": os.environ.get("COMMIT") or commit(ROOT / ".gpu"), "device": "unknown", "machine": platform.platform(),
            "python": platform.python_version(), "versions": {name: version(name) for name in PACKAGES},
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "model": asdict(self.size),
        }  # fmt: skip

    @property
    def left(self) -> float:
        return self.ends - time.time()

    def within(self, seconds: float) -> float:
        """So long, but no longer than there is; a CPU that rehearses may be busy with other things."""
        return min(seconds * (4 if self.small else 1), self.left)

    def note(self, kind: str, **figures: Any) -> None:
        lines.write(self.results, {"kind": kind} | figures | self.about)
        shown = {name: value for name, value in figures.items() if name != "output"}
        print(f"[{self.left:4.0f} s left] {kind} {json.dumps(shown)}", flush=True)

    def attempt(self, what: dict[str, Any], act: Callable[[], Any]) -> Any:
        """What `act` returns; where it fails a line says so, and None comes back."""
        try:
            return act()
        except Exception as error:
            printed = getattr(error, "stdout", None) or b""  # of a program that took too long
            output = f"{printed.decode(errors='replace') if isinstance(printed, bytes) else printed}\n{error}"
            self.note("failed", **what, error=type(error).__name__, output=output[-3000:])
            return None

    def run(self, tests: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            command = [sys.executable, "-m", "benchmarks.gpu.material", str(folder / "material"), *["small"] * self.small]
            printed = self.attempt({"row": "material"}, lambda: printed_by(command, min(self.left, 150)))
            if printed is None:
                return
            self.about |= json.loads(printed.splitlines()[-1])
            self.note("material")
            self.attempt({"row": "tests"}, lambda: self.tests(tests))
            for number, row in enumerate(SMALL_ROWS if self.small else ROWS):
                if self.left < row.seconds:
                    self.note("skipped", row=row.name, reason=f"takes {row.seconds:.0f} s, {max(self.left, 0):.0f} s are left")
                    continue
                self.attempt({"row": row.name}, lambda row=row, n=number: self.row(row, folder / "material", folder / str(n)))
        self.note("end")

    def tests(self, wanted: str) -> None:
        """The tests that wait for a GPU."""
        options = ["-k", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *wanted.split(), *options]
        start = time.time()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=self.within(TESTS), cwd=ROOT)
        printed = ended.stdout.strip().splitlines() or [ended.stderr[-500:]]
        self.note(
            "tests", passed=ended.returncode == 0, summary=printed[-1], seconds=time.time() - start,
            output="" if ended.returncode == 0 else (ended.stdout + ended.stderr)[-6000:],
        )  # fmt: skip

    def row(self, row: Row, material: Path, folder: Path) -> None:
        """All sides set up at once, then in turns; one that fails drops out."""
        folder.mkdir()
        with ExitStack() as stack:
            programs: dict[str, Program] = {}
            for side in row.sides:
                programs[side] = Program(self.job(row, side, material, folder), folder)
                stack.callback(programs[side].close)
            for side in row.sides:
                self.turn(row, programs, side, lambda program: program.ready(self.within(SET_UP)))
            passes, place = KINDS[row.algorithm].passes, 0

            def segments(what: str, steps: int, limit: float = SEGMENT, backwards: bool = False) -> list[float]:
                """One of each side; seconds. Raises TimeoutError when there is no time for more."""
                nonlocal place
                if self.left < LAST:
                    raise TimeoutError("the time is up")
                spent = []
                for side in list(programs)[:: -1 if backwards else 1]:
                    command, place = f"{what} {steps} {place}", place + 1
                    spent.append(
                        self.turn(row, programs, side, partial(Program.go, command=command, seconds=self.within(limit)))
                    )
                return [seconds for seconds in spent if seconds is not None]

            self.note("set up", row=row.name)
            segments("warm", max(WARM_UP, passes))
            pace = max(segments("warm", passes), default=1.0) / passes
            steps = passes * max(1, min(self.size.most, round(row.segment / pace)) // passes)
            self.note("measuring", row=row.name, steps=steps, seconds_of_a_step=pace)
            for number in range(row.rounds):
                segments("run", steps, 20 + 2 * pace * steps, backwards=number % 2 == 1)
            segments("profile", passes)

    def turn(self, row: Row, programs: dict[str, Program], side: str, act: Callable[[Program], float]) -> float | None:
        """Seconds that one side took; where it fails it is closed."""
        seconds: float | None = self.attempt({"row": row.name, "side": side}, lambda: act(programs[side]))
        if seconds is None:
            programs.pop(side).close()
        return seconds

    def job(self, row: Row, side: str, material: Path, folder: Path) -> Job:
        steps = self.size.pairs * max(KINDS[row.algorithm].samples, 1) // row.batch
        return Job(
            folder=str(material), out=str(self.results), rollouts=str(folder / "rollouts.json"), side=side, steps=steps,
            algorithm=row.algorithm, batch=row.batch, new_tokens=row.new_tokens, precision=row.precision,
            about={"row": row.name, "precision": row.precision} | self.about,
        )  # fmt: skip


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def printed_by(command: list[str], seconds: float) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-3000:])
    return ended.stdout


def main(arguments: list[str], environment: Mapping[str, str] = os.environ) -> None:
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    small = "--small" in arguments
    bench = Bench(out, small, float(environment.get("ENDS", time.time() + 540)))
    bench.run(environment.get("TESTS", "tests/models/test_varlen.py" + " tests/gpu" * (not small)))


if __name__ == "__main__":
    main(sys.argv[1:])
