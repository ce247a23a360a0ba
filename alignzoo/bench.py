"""Many runs, one comparison: algorithms x seeds, each in a process of its own, and the table of what they reached."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo import config, run
from alignzoo.evaluation.intervals import summarize
from alignzoo.settings import UserError, require

ALGORITHMS = ("dpo", "ppo", "distill", "reinforce")  # the longest first, so that none is left to run alone at the end
INTERRUPTED = 130
HELP = """usage: alignzoo bench [algorithms=[dpo,ppo,...]] [seeds=1] [folder=runs/bench] [jobs=2] [OVERRIDE ...]

Trains each algorithm with each seed, and compares them. Overrides are those of `alignzoo train` and hold for all runs;
without experiment= or data= they are the tuned settings of the exact task (experiment=exact). The same command again
keeps what is finished.

  algorithms  names, as `alignzoo list algorithm` shows them
  seeds       how many (0, 1, ...), or which, as in seeds=[3,4]
  folder      where the runs go, with results.jsonl and a log of each
  jobs        runs at a time, each on one thread
"""


@dataclass(kw_only=True)
class Bench:
    """What `alignzoo bench` was asked for; `overrides` hold for every run."""

    algorithms: list[str] = field(default_factory=lambda: list(ALGORITHMS))
    seeds: list[int] = field(default_factory=lambda: [0])
    folder: Path = Path("runs/bench")
    jobs: int = 2
    overrides: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(bool(self.algorithms), "algorithms", self.algorithms, "one or more names")
        require(bool(self.seeds), "seeds", self.seeds, "a number >= 1, or a list of seeds")
        require(self.jobs >= 1, "jobs", self.jobs, ">= 1")

    def runs(self) -> list[Run]:
        """Every run, its config composed, so that a mistake is found before the first one starts."""
        return [self._run(algorithm, seed) for algorithm in self.algorithms for seed in self.seeds]

    def _run(self, algorithm: str, seed: int) -> Run:
        where = self.folder / f"{algorithm}-{seed}"
        overrides = [*self.overrides, f"algorithm={algorithm}", f"seed={seed}", f"run_dir={where}"]
        return Run(algorithm, seed, where, overrides, config.compose(overrides))


@dataclass(frozen=True)
class Run:
    algorithm: str
    seed: int
    folder: Path
    overrides: list[str]
    config: Any

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the finished run reached, None while it isn't finished. Raises UserError where the folder holds another run."""
        saved = self.folder / "config.yaml"
        if saved.exists() and saved.read_text("utf-8") != run.identity(self.config):
            raise UserError(f"{self.folder} holds a run with other settings: choose another folder=, or remove it")
        path = self.folder / "summary.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    @property
    def command(self) -> list[str]:
        """Goes on where an earlier attempt was stopped."""
        unfinished = any((self.folder / "checkpoints").glob("checkpoint-*"))
        return [sys.executable, "-m", "alignzoo", "train", *([f"resume={self.folder}"] if unfinished else self.overrides)]

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")


def parse(argv: Sequence[str]) -> Bench:
    """Raises UserError for values of the wrong kind."""
    parsed = config.parse(argv)
    own = ("algorithms", "seeds", "folder", "jobs")
    given = {name: config.value_of(parsed, name) for name in own if config.value_of(parsed, name) is not None}
    for name in ("algorithm", "seed", "run_dir", "resume"):
        if config.value_of(parsed, name) is not None:
            raise UserError(f"bench sets {name}= for each run: give algorithms=[...], seeds=, folder=")
    rest = [o.input_line for o in parsed if o.get_key_element() not in own and o.input_line]
    if config.value_of(parsed, "experiment") is None and config.value_of(parsed, "data") is None:
        rest.insert(0, "experiment=exact")
    try:
        if isinstance(given.get("seeds"), int):
            given["seeds"] = list(range(given["seeds"]))
        listed = {name: _listed(given[name]) for name in ("algorithms", "seeds") if name in given}
        chosen: dict[str, Any] = {"jobs": int(given.get("jobs", 2)), "folder": Path(str(given.get("folder", "runs/bench")))}
        if "algorithms" in listed:
            chosen["algorithms"] = [str(name) for name in listed["algorithms"]]
        if "seeds" in listed:
            chosen["seeds"] = [int(seed) for seed in listed["seeds"]]
    except (TypeError, ValueError) as error:
        raise UserError(f"can't read {' '.join(argv)}: seeds and jobs are whole numbers ({error})") from None
    return Bench(overrides=rest, **chosen)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def main(argv: Sequence[str]) -> int:
    """The command: 0 when all runs finished, 1 when one failed, 130 when interrupted."""
    if any(word in ("-h", "--help") for word in argv):
        print(HELP, end="")
        return 0
    bench = parse(argv)
    runs = bench.runs()
    waiting = [r for r in runs if r.summary is None]
    bench.folder.mkdir(parents=True, exist_ok=True)
    try:
        failed = execute(waiting, bench.jobs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
        return INTERRUPTED
    finished = [r for r in runs if r.summary is not None]
    _write(bench.folder / "results.jsonl", [_result(r) for r in finished])
    show([_result(r) for r in finished])
    for r in failed:
        print(f"{r.algorithm}, seed {r.seed}, failed: {_last_line(r.log)} (all of it in {r.log})")
    return 1 if failed else 0


def execute(runs: Sequence[Run], jobs: int) -> list[Run]:
    """Run them, `jobs` at a time, and return those that failed. One that fails doesn't stop the others."""
    failed, alive = [], list[subprocess.Popen[bytes]]()
    with ThreadPoolExecutor(min(jobs, os.cpu_count() or 1)) as pool, _stopping(alive, pool):
        started = {pool.submit(_run_one, r, alive): r for r in runs}
        for done in as_completed(started):
            r, (code, seconds) = started[done], done.result()
            print(f"{r.algorithm}, seed {r.seed}: {'done' if code == 0 else 'failed'} after {seconds:.0f} s", flush=True)
            if code:
                failed.append(r)
    return failed


@contextmanager
def _stopping(alive: list[subprocess.Popen[bytes]], pool: ThreadPoolExecutor) -> Iterator[None]:
    """Ctrl-C and SIGTERM reach the runs, which save; none is started after that."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in alive:
            process.terminate()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_one(r: Run, alive: list[subprocess.Popen[bytes]]) -> tuple[int, float]:
    """The exit code, and the seconds it took. One thread, so that neither speed nor rounding depends on what runs beside it."""
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with r.log.open("ab") as log:
        # a session of its own, so that Ctrl-C reaches it once, by way of `_stopping`
        process = subprocess.Popen(r.command, stdout=log, stderr=log, env=environment, start_new_session=True)
        alive.append(process)
        code = process.wait()
        alive.remove(process)
    return code, time.perf_counter() - start


def _result(r: Run) -> dict[str, Any]:
    """One line of results.jsonl."""
    summary = r.summary or {}
    names = ("steps", "samples", "trained_tokens", "total_seconds", "evaluation_seconds")
    numbers = {name: summary[name] for name in names}
    records = summary["samples"] or summary["steps"] * r.config.trainer.batch
    return {"algorithm": r.algorithm, "seed": r.seed, **numbers, "records": records, "metrics": summary["metrics"]}


@dataclass(frozen=True)
class Column:
    """A number of a run: the first of `keys` that is among its metrics or beside them. `interval` where its spread over seeds
    is of interest."""

    title: str
    keys: tuple[str, ...]
    decimals: int
    factor: float = 1
    interval: bool = False

    def values(self, results: Sequence[dict[str, Any]]) -> list[float]:
        found = [self._first({**result, **result["metrics"]}) for result in results]
        return [value * self.factor for value in found if value is not None]

    def _first(self, numbers: dict[str, Any]) -> float | None:
        return next((numbers[key] for key in self.keys if key in numbers), None)

    def cell(self, results: Sequence[dict[str, Any]]) -> str:
        values = self.values(results)
        if not values:
            return ""
        found = summarize(values)
        between = "" if found.interval is None else " [{0:.{2}f}, {1:.{2}f}]".format(*found.interval, self.decimals)
        return f"{found.mean:,.{self.decimals}f}{between if self.interval else ''}"


COLUMNS = (
    Column("gap closed %", ("gap_closed",), 1, 100, interval=True),
    Column("reward", ("expected_reward", "reward"), 3, interval=True),
    Column("KL", ("exact_kl", "kl"), 3, interval=True),
    Column("samples or rows", ("records",), 0),
    Column("seconds", ("total_seconds",), 0),
)


def show(results: Sequence[dict[str, Any]]) -> None:
    """One row an algorithm: means over its seeds and, with several, 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    columns = [column for column in COLUMNS if column.values(results)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("algorithm", "seeds", *(column.title for column in columns)):
        table.add_column(title, justify="left" if title == "algorithm" else "right")
    for name in dict.fromkeys(result["algorithm"] for result in results):
        mine = [result for result in results if result["algorithm"] == name]
        table.add_row(name, str(len(mine)), *(column.cell(mine) for column in columns))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table, highlight=False, markup=False)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"
