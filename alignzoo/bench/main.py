"""The command `alignzoo bench`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from alignzoo.bench import launch, record
from alignzoo.bench.job import INTERRUPTED
from alignzoo.bench.plan import Run, plan
from alignzoo.bench.request import Request, parse

HELP = """usage: alignzoo bench [suite=exact] [algorithms=[dpo,ppo,...]] [seeds=10] [folder=runs/bench] [jobs=2] [OVERRIDE ...]

Trains each algorithm of a suite with each seed, and reports which is better, by how much, how sure and at what cost. The same
command again keeps what is finished and goes on with the rest.

"""


def main(argv: Sequence[str]) -> int:
    """0 when all runs finished, 1 when one failed, 130 when interrupted. Raises UserError for a mistake, before any run."""
    if any(word in ("-h", "--help") for word in argv):
        print(HELP, end="")
        return 0
    request = parse(argv)
    runs = plan(request)
    record.prepare(request, runs)
    record.write(request, runs)
    codes = launch.execute(runs, request)
    record.write(request, runs)
    if INTERRUPTED in codes:
        print("interrupted; the same command goes on from here")
        return INTERRUPTED
    return report(request, runs)


def report(request: Request, runs: Sequence[Run]) -> int:
    """Prints the table and the answer, writes the report."""
    from alignzoo.report.main import write

    failed = record.failures(request, runs)
    for name, why in failed.items():
        print(f"{name} failed: {why} (all of it in {name}.log)")
    if any(r.finished for r in runs):
        page = write([request.folder], request.folder / "report", request.suite.metric, shlex.join(request.command))
        print(f"\n{page}")
    return 1 if failed else 0
