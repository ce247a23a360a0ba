"""The command `alignzoo bench`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from alignzoo.bench import bench_folder, launch, tuning
from alignzoo.bench.grid import BenchRun, conditions, grid, plan
from alignzoo.bench.job import INTERRUPTED
from alignzoo.bench.request import parse
from alignzoo.bench.suite import Request
from alignzoo.config import catalogue
from alignzoo.config.own_folder import with_folder
from alignzoo.config.registry import Registry
from alignzoo.errors import tell
from alignzoo.settings import Unit

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
  --config-dir FOLDER         a folder of configs of one's own, such as FOLDER/suite/NAME.yaml
  hydra/launcher=joblib       or submitit_local, submitit_slurm, ...: who runs them; hydra.launcher.KEY=... are its settings

"""


def main(argv: Sequence[str]) -> int:
    """0 when all runs finished, 1 when one failed, 130 when interrupted. Raises UserError for a mistake, before any run."""
    if any(word in ("-h", "--help") for word in argv):
        print(HELP, end="")
        catalogue.show_list(Registry(), "suite")
        return 0
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-cd", "--config-dir")
    args, overrides = parser.parse_known_args(list(argv))
    request = parse(with_folder(overrides, args.config_dir, None) if args.config_dir else argv)
    if request.dry_run:
        print(preview(request))
        return 0
    tunings, runs = tuning.plan(request), plan(request)
    bench_folder.prepare(request, runs, first=tuning.runs(tunings))
    bench_folder.write(request, runs)
    tried = tuning.carry_out(request, tunings)
    if tried:
        runs = plan(request, tuning.chosen_settings(tried))
        bench_folder.prepare(request, runs)
    codes = [INTERRUPTED] if tried is None else launch.execute(runs, request)
    bench_folder.write(request, runs, tried or [])
    if INTERRUPTED in codes:
        finished = sum(r.finished for r in runs)
        print(f"interrupted with {finished} of {len(runs)} runs finished; the same command goes on from here")
        return INTERRUPTED
    return conclude(request, runs)


def conclude(request: Request, runs: Sequence[BenchRun]) -> int:
    """Says which runs failed and why, prints the answer and writes the report."""
    from alignzoo.report.report import write

    failed = bench_folder.failures(request, runs)
    if any(r.finished for r in runs):
        page = write([request.folder], request.folder / "report", request.suite.metric, shlex.join(request.command))
        print(f"\n{page}")
    for folder, why in failed.items():
        tell(f"{folder} failed: {why}")
    if failed:
        tell(f"{len(failed)} of {len(runs)} runs failed, each with a log beside its folder")
    return 1 if failed else 0


def preview(request: Request) -> str:
    """The runs that there would be, those of each seed alike told once; the config of one run a label is composed. Raises
    UserError where that can't be."""
    runs = grid(request)
    lines = [
        f"{request.suite_name or 'bench'}: {len(runs)} runs in {request.folder}, of which {sum(r.finished for r in runs)} are "
        f"finished; {', '.join(map(str, request.seeds))} are the seeds"
    ]
    if tune := request.bench.tune:
        seeds = len(request.bench.tune_seeds)
        trials = tune * seeds * len(conditions(request)) * len(request.algorithms)
        lines.append(f"before them {trials} runs to tune: {tune} trials of each algorithm, {seeds} seed(s)")
    horizons = {r.label: _horizon(r) for r in runs[: len(request.algorithms)]}
    for r in runs:
        if r.seed == request.seeds[0]:
            settings = [f"{key}={value}" for key, value in r.point.items()] + _own(request, r)
            lines.append("  ".join([f"  {r.label:{max(map(len, horizons))}}", horizons[r.label], *settings]))
    return "\n".join(
        [*lines, "dry_run=true: nothing was carried out or written, and no more than one config a label was composed"]
    )


def _horizon(r: BenchRun) -> str:
    budget, training = r.config.budget, r.config.trainer
    if budget.unit is not Unit.none:
        return f"{budget.amount:g} {budget.unit.value}"
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs:g} epochs, steps"
    return f"{length} of {training.batch} records"


def _own(request: Request, r: BenchRun) -> list[str]:
    """What is said of this label alone."""
    algorithm = [f"algorithm={r.algorithm}"] if r.algorithm != r.label else []
    return [*algorithm, *request.suite.override.get(r.label, []), *request.bench.override.get(r.label, [])]
