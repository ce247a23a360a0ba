"""The results kept in benchmarks/results: every suite, one after the other, and the page that leads to their reports.

    python -m benchmarks.golden [SUITE ...]

Runs stay in runs/golden/SUITE; the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
RUNS, RESULTS = Path("runs/golden"), Path("benchmarks/results")
CLAIMS = Path("benchmarks/claims")
EXACT = ("exact", "exact-noisy", "exact-hard", "frontier", "budget", "trl", "identical", "halved", "discriminator")
LITERATURE = ("variants", "semi_online", "refill")
SUITES = (*EXACT, "zoo", *LITERATURE, "sentiment", "overoptimisation")
SPENT = "seconds.txt"  # what all attempts at a bench have taken, in its folder
PAGE = """# Results

Each folder holds the report of one suite (`report.html`, `report.md`, plots), one row a run (`results.jsonl`,
`results.parquet`) and `bench.json`, which says what was asked for. All of them again: `make bench-golden`.

The rows of `distill` in exact and exact-hard are of runs whose shares were wrong (the first lines of those reports say how);
all else stands.

| suite | the report's answer | runs | minutes on this machine | command |
|---|---|---|---|---|
{rows}
"""


def main(wanted: list[str]) -> int:
    """Exit code 1 if a bench fails; what finished before it is kept."""
    for name in wanted or SUITES:
        print(f"--- {name}", flush=True)
        if code := bench(name):
            return code
        keep(RUNS / name, RESULTS / name)
        (RESULTS / "README.md").write_text(page(), "utf-8")
    return 0


def command(name: str) -> list[str]:
    suite = CLAIMS / f"{name}.yaml"
    return ["alignzoo", "bench", f"suite={suite if suite.is_file() else name}", f"folder={RUNS / name}"]


def bench(name: str) -> int:
    start = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", *command(name)]).returncode
    spent = RUNS / name / SPENT
    if spent.parent.is_dir():
        before = float(spent.read_text()) if spent.is_file() else 0.0
        spent.write_text(f"{before + time.perf_counter() - start:.0f}\n")
    return code


def keep(folder: Path, place: Path) -> None:
    """The report and what it was made from, without the runs."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "report", place)
    for name in ("bench.json", SPENT):
        shutil.copy2(folder / name, place)


def page() -> str:
    return PAGE.format(rows="\n".join(row(name) for name in SUITES if (RESULTS / name / "bench.json").is_file()))


def row(name: str) -> str:
    place = RESULTS / name
    answer = (place / "report.md").read_text("utf-8").splitlines()[0].removeprefix("# ")
    runs = len((place / "results.jsonl").read_text("utf-8").splitlines())
    minutes = float((place / SPENT).read_text()) / 60
    command = shlex.join(json.loads((place / "bench.json").read_text("utf-8"))["command"])
    return f"| [{name}]({name}/report.md): {title(name)} | {answer} | {runs} | {minutes:.0f} | `{command}` |"


def title(name: str) -> str:
    """The question that the suite asks."""
    suites = [CLAIMS / f"{name}.yaml", ROOT / "conf" / "suite" / f"{name}.yaml"]
    return str(next(yaml.safe_load(path.read_text("utf-8"))["title"] for path in suites if path.is_file()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
