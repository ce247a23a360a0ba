"""The command `alignzoo bench`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from alignzoo.bench import launch, record, tuning
from alignzoo.bench.job import INTERRUPTED
from alignzoo.bench.plan import Run, plan
from alignzoo.bench.preview import preview
from alignzoo.bench.request import Request, parse
from alignzoo.config import catalogue
from alignzoo.config.registry import Registry
from alignzoo.errors import printable

HELP = """\
usage: alignzoo bench [suite=NAME] [algorithms=[...]] [seeds=N] [folder=FOLDER] [OVERRIDE ...]

Trains each algorithm of a suite with each seed, every run a process of its own, and reports which is better, by how much, how
sure, and at what cost. The same command again keeps what is finished and goes on with what is not.

  suite=NAME                  what is compared, and on what: one of those below, or a file NAME.yaml. Without suite=, data= and
                              experiment= it is exact
  algorithms=[ppo,half:ppo]   algorithms and presets, as `alignzoo list algorithm` shows them; LABEL:NAME gives one another name
  seeds=10                    how many (0, 1, ...), or which, as in seeds=[3,4]
  folder=runs/bench           where the runs go, and the report: FOLDER/report/report.html
  OVERRIDE                    those of `alignzoo train`, for every run
  bench.override.half='[trainer.learning_rate=5e-4]'   for the runs of one label, after those for all
  suite.vary.KEY=[...]        each value is a condition, compared by itself
  suite.sweep.KEY=[...]       all values together make one frontier, as those of the KL's strength do
  suite.KEY=...               anything else that the suite's file says: planned, threshold, metric, ...
  bench.tune=N                so many trials of every algorithm over its search space first, on other seeds
  bench.search.KEY=[low,high]   where to look for a setting; bench.search.LABEL.KEY for one algorithm, null for nowhere
  bench.threads=1             of each run
  jobs=2                      runs at a time; without it, as many as the cores have room for, one with a GPU
  dry_run=true                print the plan, and carry out and write nothing
  hydra/launcher=joblib       or submitit_local, submitit_slurm, ...: who runs them; hydra.launcher.KEY=... are its settings

"""


def main(argv: Sequence[str]) -> int:
    """0 when all runs finished, 1 when one failed, 130 when interrupted. Raises UserError for a mistake, before any run."""
    if any(word in ("-h", "--help") for word in argv):
        print(HELP, end="")
        catalogue.show_list(Registry(), "suite")
        return 0
    request = parse(argv)
    if request.dry_run:
        print(preview(request))
        return 0
    tunings, runs = tuning.plan(request), plan(request)
    record.prepare(request, runs, first=tuning.runs(tunings))
    record.write(request, runs)
    tried = tuning.carry_out(request, tunings)
    if tried:
        runs = plan(request, tuning.tuned(tried))
        record.prepare(request, runs)
    codes = [INTERRUPTED] if tried is None else launch.execute(runs, request)
    record.write(request, runs, tried or [])
    if INTERRUPTED in codes:
        finished = sum(r.finished for r in runs)
        print(f"interrupted with {finished} of {len(runs)} runs finished; the same command goes on from here")
        return INTERRUPTED
    return conclude(request, runs)


def conclude(request: Request, runs: Sequence[Run]) -> int:
    """Says which runs failed and why, prints the answer and writes the report."""
    from alignzoo.report.main import write

    failed = record.failures(request, runs)
    if any(r.finished for r in runs):
        page = write([request.folder], request.folder / "report", request.suite.metric, shlex.join(request.command))
        print(f"\n{page}")
    for folder, why in failed.items():
        print(printable(f"alignzoo: {folder} failed: {why}"), file=sys.stderr)
    if failed:
        print(f"alignzoo: {len(failed)} of {len(runs)} runs failed, each with a log beside its folder", file=sys.stderr)
    return 1 if failed else 0
