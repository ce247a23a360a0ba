"""Every run of a bench: each combination of varied values x algorithm x seed, with its folder and its overrides."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from alignzoo.bench.suite import Request
from alignzoo.common.folder import SUMMARY
from alignzoo.common.progress import counted
from alignzoo.config import command_line
from alignzoo.config.composition import compose
from alignzoo.config.quoting import written
from alignzoo.config.stage_plan import has_stages
from alignzoo.errors import UserError
from alignzoo.pipeline.stages import Stage, stages
from alignzoo.pipeline.train import check
from alignzoo.runs import results, single
from alignzoo.runs.comparable import check_comparable
from alignzoo.settings import Unit

STAGES = "stages"  # the folder, in that of the bench, of stages before the last
LONGEST = 80  # letters of a folder's name that is made from values
Settings = Mapping[str, object]  # {dotted key: value}


@dataclass(frozen=True)
class BenchRun:
    """One run of the grid. `point` are the values of what is varied and swept."""

    label: str
    algorithm: str
    seed: int
    point: Settings
    folder: Path
    overrides: tuple[str, ...]

    @cached_property
    def config(self) -> DictConfig:
        return compose(self.overrides)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Of a pipeline, whose last stage it is, those before."""
        return tuple(stages(self.config)[:-1])

    @property
    def finished(self) -> bool:
        return (self.folder / SUMMARY).is_file()

    @property
    def shared(self) -> tuple[str, ...]:
        """Its overrides without those that tell it from the runs of other seeds."""
        return tuple(text for text in self.overrides if not text.startswith(("seed=", "run_dir=")))


def plan(request: Request, tuned: Mapping[tuple[str, str], Settings] | None = None) -> list[BenchRun]:
    """The runs, in the order they are started: all algorithms of a seed before the next, each with the settings {key: value}
    that are `tuned` for its label and condition. Every one's config was composed and checked but for its seed, and what the
    report will refuse to compare is refused before anything has run. Raises UserError for whatever is wrong with one of them.
    """
    runs = grid(request, tuned)
    of_one_seed = [r for r in runs if r.seed == request.seeds[0]]
    for r in counted(of_one_seed, "checking the config of every run", len(of_one_seed), each=1):
        try:
            _check(request, r)
        except UserError as error:
            where = "" if r.label in str(error) else f"{name_of(r.point)} {r.label}".strip() + ": "
            raise UserError(f"{where}{error}") from None
    check_comparable(
        [results.Run(r.folder, results.by_stage(single.contents(r.config)), summary={}, environment={}) for r in of_one_seed],
        [*request.suite.vary, *request.suite.sweep],
    )
    return runs


def grid(request: Request, tuned: Mapping[tuple[str, str], Settings] | None = None) -> list[BenchRun]:
    """As `plan`, without a look at what the configs come to."""
    _check_keys(request)
    return [
        bench_run(request, point | swept, label, seed, (tuned or {}).get((label, condition(request, point)), {}))
        for point in conditions(request)
        for swept in points(request.suite.sweep)
        for seed in request.seeds
        for label in request.algorithms
    ]


def condition(request: Request, point: Settings) -> str:
    """The name of what is varied at this point, whatever is swept."""
    return name_of({key: value for key, value in point.items() if key in request.suite.vary})


def bench_run(
    request: Request, point: Settings, label: str, seed: int, settings: Settings, folder: Path | None = None,
    last: Sequence[str] = (),
) -> BenchRun:  # fmt: skip
    """A run with these settings on top of what was asked for, where `{seed}` stands for its seed, and after that the overrides
    `last`; its folder is the grid's unless given.
    """
    algorithm = request.algorithms[label]
    folder = folder or request.folder / name_of(point) / f"{label}-{seed}"
    chosen = [f"algorithm={algorithm}", f"seed={seed}", f"run_dir={written(folder)}"]
    if label != algorithm:
        chosen.append(f"label={label}")
    of_suite, of_user = request.suite.override.get(label, []), request.bench.override.get(label, [])
    templates = (*request.suite.overrides, *of_suite, *request.overrides, *of_user, *last)
    asked_for = tuple(text.replace("{seed}", str(seed)) for text in templates)
    keys = {o.get_key_element() for o in command_line.parse(asked_for)}
    several = bool(keys & {"pipeline", "experiment"})  # perhaps: an experiment may be a pipeline's
    if several and "stages_dir" not in keys:
        chosen.append(f"stages_dir={written(request.folder / STAGES)}")
    # where there are stages before the run, what was tuned is said of the last alone
    prefix = "stage.last." if several and has_stages(asked_for) else ""
    values = {**{f"{prefix}{key}": value for key, value in settings.items()}, **point}
    overrides = (*asked_for, *(f"{key}={written(value)}" for key, value in values.items()), *chosen)
    return BenchRun(label, algorithm, seed, point, folder, overrides)


def conditions(request: Request) -> list[dict[str, object]]:
    """Every combination of what varies; where the suite's are not crossed, those that differ from the first in one key."""
    first, *rest = points(request.suite.vary)
    return [first, *(p for p in rest if request.suite.crossed or sum(p[key] != first[key] for key in p) <= 1)]


def points(axes: Mapping[str, list[object]]) -> Iterator[dict[str, object]]:
    """Every combination of the values of {key: values}; one without any where there is none."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def name_of(point: Settings) -> str:
    """A name that can be read, or at least told from the others where the values are long or hold a slash."""
    whole = ",".join(f"{key}={value}" for key, value in point.items())
    name = re.sub(r"[^\w.,=+-]", "_", whole)
    if name == whole and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def _check_keys(request: Request) -> None:
    """What is varied or swept is not also set to one value, which would be ignored. Raises UserError."""
    if both := set(request.suite.vary) & set(request.suite.sweep):
        raise UserError(f"{sorted(both)[0]} is in vary and in sweep: choose one")
    for name, axes in (("vary", request.suite.vary), ("sweep", request.suite.sweep)):
        for key, values in axes.items():
            if twice := [value for i, value in enumerate(values) if value in values[:i]]:
                raise UserError(f"suite.{name}: {key} has the value {twice[0]} twice")
        for overrides in (request.overrides, *request.bench.override.values()):
            for o in command_line.parse(overrides):
                if (key := o.get_key_element().lstrip("+~")) in axes:
                    raise UserError(f"{o.input_line}: the suite has several values of it. Give suite.{name}.{key}=[...]")


def _check(request: Request, r: BenchRun) -> None:
    """What varies are single values, by which the report can tell the runs apart; a budget is the one limit of a run, beside
    which a number of steps would be ignored; and the config can be carried out. Raises UserError."""
    for key in r.point:
        if isinstance(OmegaConf.select(r.config, key), DictConfig):
            raise UserError(f"{key} is a group of settings: vary or sweep one of them, as in {key}.KEY=[...]")
    budget = r.config.budget
    for o in command_line.parse([*request.overrides, *request.bench.override.get(r.label, [])]):
        if budget.unit is not Unit.none and o.get_key_element() in ("trainer.max_steps", "trainer.epochs"):
            raise UserError(
                f"{o.input_line}: {r.label} ends after {budget.amount:g} {budget.unit.value}, whatever its steps. "
                "Give budget.amount=...,\nor, for steps, budget.unit=none budget.amount=0"
            )
    check(r.config)
