"""`alignzoo bench dry_run=true`: the plan, before every run's config is composed and checked, which takes a while for many."""

from __future__ import annotations

from alignzoo.bench.plan import Run, conditions, grid
from alignzoo.bench.request import Request
from alignzoo.settings import Unit


def preview(request: Request) -> str:
    """The runs that there would be, those of each seed alike told once; the config of one run a label is composed. Raises
    UserError where that can't be."""
    runs = grid(request)
    lines = [
        f"{request.suite_name or 'bench'}: {len(runs)} runs in {request.folder}, of which {sum(r.finished for r in runs)} are "
        f"finished; {', '.join(map(str, request.seeds))} are the seeds"
    ]
    if request.tune:
        trials = request.tune * len(request.tune_seeds) * len(conditions(request)) * len(request.algorithms)
        lines.append(
            f"before them {trials} runs to tune: {request.tune} trials of each algorithm, {len(request.tune_seeds)} seed(s)"
        )
    horizons = {r.label: _horizon(r) for r in runs[: len(request.algorithms)]}
    for r in runs:
        if r.seed == request.seeds[0]:
            settings = [f"{key}={value}" for key, value in r.point.items()] + _own(request, r)
            lines.append("  ".join([f"  {r.label:{max(map(len, horizons))}}", horizons[r.label], *settings]))
    return "\n".join(
        [*lines, "dry_run=true: nothing was carried out or written, and no more than one config a label was composed"]
    )


def _horizon(r: Run) -> str:
    budget, training = r.config.budget, r.config.trainer
    if budget.unit is not Unit.none:
        return f"{budget.amount:g} {budget.unit.value}"
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs:g} epochs, steps"
    return f"{length} of {training.batch} records"


def _own(request: Request, r: Run) -> list[str]:
    """What is said of this label alone."""
    algorithm = [f"algorithm={r.algorithm}"] if r.algorithm != r.label else []
    return [*algorithm, *request.suite.override.get(r.label, []), *request.override.get(r.label, [])]
