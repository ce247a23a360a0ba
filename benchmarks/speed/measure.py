"""One comparison: both programs run, in turns, and what came out of it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.speed import compare
from benchmarks.speed.job import Job
from benchmarks.speed.kinds import KINDS
from benchmarks.speed.material import prepare
from benchmarks.speed.turns import alternate

RESULTS = Path("benchmarks/results/speed")
UNITS = {"steps": "step", "tokens": "token", "sampled": "sampled token"}
WORK = Path(tempfile.gettempdir()) / "alignzoo-bench-speed"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison, a row of a table."""

    algorithm: str
    size: str = "1M"
    column: str = "tuned"
    profile: str = "hh"
    steps: int = 24
    turn: int = 4  # steps: an alternation's
    threads: int = 1
    waiting: str = "passive"  # threads that wait for each other sleep; "library": they spin first, as OpenMP has it
    new_tokens: int = 128
    overrides: list[str] = field(default_factory=list)
    label: str = ""  # tells rows apart that differ in overrides
    beside: str = ""  # a checkout of alignzoo, set up, that is the other program instead of TRL

    def __post_init__(self) -> None:
        if self.steps % self.turn:
            raise ValueError(f"--steps {self.steps} is not a multiple of --turn {self.turn}")

    @property
    def name(self) -> str:
        threads = f"{self.threads}-threads" + "-spinning" * (self.waiting == "library")
        more = [self.label] * bool(self.label) + [threads] * (self.threads > 1)
        return "-".join([self.algorithm, self.profile, self.size, self.column, *more])

    @property
    def itself(self) -> bool:
        """Whether both programs are alignzoo."""
        return bool(self.beside) or KINDS[self.algorithm].itself

    @property
    def clock(self) -> str:
        """CPU time says nothing of threads that wait for each other."""
        return "wall" if self.threads > 1 else "cpu"

    @property
    def unit(self) -> str:
        """Per what times are compared: a step, where both do the same work in it."""
        if KINDS[self.algorithm].samples and not self.itself:
            return "sampled"
        packed = self.column == "best" and self.algorithm in ("sft", "bradley_terry")  # packing, and batches by length
        return "tokens" if packed else "steps"


def measure(row: Row, data: Path, work: Path = WORK, rows: int = 400) -> dict[str, Any]:
    """The two programs' figures for one row. Raises RuntimeError where one of them fails."""
    folder = work / f"{row.profile}-{row.size}"
    prepare(folder, row.size, data, rows)
    load = os.getloadavg()[0]
    with cores(row.threads):
        ours, theirs = pair(row, folder)
        figures = compare.summary(ours, theirs, row.unit, row.turn, row.clock)
        figures["gate"] = gated(row, folder, ours, theirs)
    return asdict(row) | {"name": row.name, "unit": row.unit} | figures | provenance(load) | {
        "runs": {"ours": {k: v for k, v in ours.items() if k != "rollouts"}, "theirs": theirs}
    }  # fmt: skip


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Inside, this process and those it starts stay on so many cores, the last ones."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pair(row: Row, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each of the two has measured."""
    with tempfile.TemporaryDirectory() as scratch:
        outs = {side: Path(scratch) / f"{side}.json" for side in ("ours", "theirs")}
        jobs = {side: job(row, folder, side, out, steps=row.steps, block=row.turn) for side, out in outs.items()}
        commands = {side: command(row, side, what, Path(scratch) / f"{side}-job.json") for side, what in jobs.items()}
        alternate(commands, environment(row), row.steps // row.turn)
        ours, theirs = (json.loads(out.read_text()) for out in outs.values())
    return ours, theirs


def gated(row: Row, folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The gate of a row: on the timed runs themselves where both read the same rows in float32, on the same completions where
    they sample; none where precision or rows differ by what the column is."""
    if KINDS[row.algorithm].samples:
        return compare.gate(*replayed(row, folder), replayed=True) if row.column == "tuned" else _none("tuned")
    if row.column == "default" or row.unit == "tokens":
        return _none("tuned")
    return compare.gate(ours, theirs)


def _none(column: str) -> dict[str, Any]:
    return {"steps": 0, "passed": True, "see": column}


def replayed(row: Row, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both programs on the completions that alignzoo samples; where both are alignzoo, each samples them."""
    with tempfile.TemporaryDirectory() as scratch:
        for side in ("ours", "theirs"):
            replays = side == "theirs" and not row.itself
            what = job(
                row, folder, side, Path(scratch) / f"{side}.json", steps=min(compare.GATED, row.steps), replay=True,
                completions=str(Path(scratch) / "ours.json") if replays else "",
            )  # fmt: skip
            program = command(row, side, what, Path(scratch) / "job.json")
            ended = subprocess.run(program, env=environment(row), capture_output=True, text=True)
            if ended.returncode:
                raise RuntimeError(ended.stderr[-3000:])
        ours, theirs = (json.loads((Path(scratch) / f"{side}.json").read_text()) for side in ("ours", "theirs"))
    if row.algorithm == "rloo":  # a sum over a completion's tokens: that of one token, as others log
        lengths = [tokens / KINDS["rloo"].batch for tokens in ours["sampled"]]
        for side in (ours, theirs):
            side["loss"] = compare.per(side["loss"], lengths)
    return ours, theirs


def job(row: Row, folder: Path, side: str, out: Path, **more: Any) -> Job:
    """What one side is to do: of what TRL hasn't got, the other side is alignzoo's padded path, or that of another checkout."""
    padded = row.itself and side == "theirs" and not row.beside
    return Job(
        folder=str(folder), out=str(out), algorithm=row.algorithm, column="padded" if padded else row.column,
        new_tokens=row.new_tokens, overrides=row.overrides if side == "ours" or row.beside else [], **more,
    )  # fmt: skip


def command(row: Row, side: str, what: Job, path: Path) -> list[str]:
    """What runs this side, with the job in a file of its own."""
    python, program = [sys.executable], "ours" if row.itself else side
    if row.beside and side == "theirs":
        checkout = Path(row.beside).resolve()
        python = ["env", "-C", str(checkout), str(checkout / ".venv/bin/python")]
    return [*python, "-m", f"benchmarks.speed.{program}", str(what.save(path))]


def environment(row: Row) -> dict[str, str]:
    fixed = {"OMP_NUM_THREADS": str(row.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return inherited | fixed | ({"OMP_WAIT_POLICY": "PASSIVE"} if row.waiting == "passive" else {})


def provenance(load: float) -> dict[str, Any]:
    """What was measured, on what, and what else the machine did then."""
    return {
        "commit": commit(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "load": [load, os.getloadavg()[0]],
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "trl")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip


def commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return described.stdout.strip() or "unknown"


def line(result: dict[str, Any]) -> str:
    ratio, gate = result["ratio"], result["gate"]
    apart = f"loss apart {gate['loss']:.1e}" if "loss" in gate else "no gate of its own"
    return (
        f"{result['name']}: {ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f}) a {UNITS[result['unit']]}, "
        f"peak memory {result['peak_ratio']:.2f}, whole run {result['whole_run_ratio']:.2f}x, {apart}"
    )


def save(result: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    path.write_text(json.dumps(_rounded(result), indent=1) + "\n")
    return path


def _rounded(value: Any) -> Any:
    """To seven digits: enough for every figure and for the gate."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
