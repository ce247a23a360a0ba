"""Every run of a bench: each combination of varied values x algorithm x seed, with its folder and its overrides."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignzoo.bench.request import Request
from alignzoo.common.folder import SUMMARY
from alignzoo.common.progress import counted
from alignzoo.config import grammar
from alignzoo.config.composition import compose
from alignzoo.config.overrides import written
from alignzoo.config.stages import Planned, find
from alignzoo.errors import UserError
from alignzoo.pipeline.train import check
from alignzoo.runs import results, single
from alignzoo.runs.comparable import check_comparable
from alignzoo.settings import Unit

NOTHING: Mapping[tuple[str, str], dict[str, Any]] = MappingProxyType({})
STAGES = "stages"  # the folder, in that of the bench, of stages before the last
LONGEST = 80  # letters of a folder's name that is made from values


@dataclass(frozen=True)
class Run:
    """One run of the grid. `point` are the values of what is varied and swept."""

    label: str
    algorithm: str
    seed: int
    point: dict[str, Any]
    folder: Path
    overrides: tuple[str, ...]

    @cached_property
    def config(self) -> Any:
        return compose(self.overrides)

    @cached_property
    def stages(self) -> tuple[Planned, ...]:
        """Of a pipeline, whose last stage it is, those before."""
        pipeline = find(self.overrides)
        return pipeline.stages[:-1] if pipeline else ()

    @property
    def name(self) -> str:
        """For people: its label, seed and point."""
        return ", ".join([f"{self.label}, seed {self.seed}", *(f"{key}={value}" for key, value in self.point.items())])

    @property
    def finished(self) -> bool:
        return (self.folder / SUMMARY).is_file()

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def shared(self) -> tuple[str, ...]:
        """Its overrides without those that tell it from the runs of other seeds."""
        return tuple(text for text in self.overrides if not text.startswith(("seed=", "run_dir=")))


def plan(request: Request, tuned: Mapping[tuple[str, str], dict[str, Any]] = NOTHING) -> list[Run]:
    """The runs, in the order they are started: all algorithms of a seed before the next, each with the settings {key: value}
    that are `tuned` for its label and condition. Every one's config was composed and checked but for its seed. Raises UserError
    for whatever is wrong with one of them.
    """
    runs = grid(request, tuned)
    of_one_seed = [r for r in runs if r.seed == request.seeds[0]]
    for r in counted(of_one_seed, "checking the config of every run", len(of_one_seed), each=1):
        _check(request, r)
    _check_comparable(request, of_one_seed)
    return runs


def grid(request: Request, tuned: Mapping[tuple[str, str], dict[str, Any]] = NOTHING) -> list[Run]:
    """As `plan`, without a look at what the configs come to."""
    _check_keys(request)
    return [
        made(request, point | swept, label, seed, tuned.get((label, condition(request, point)), {}))
        for point in conditions(request)
        for swept in points(request.sweep)
        for seed in request.seeds
        for label in request.algorithms
    ]


def _check_comparable(request: Request, runs: Sequence[Run]) -> None:
    """What the report will refuse to compare is refused before anything has run. Raises UserError."""
    planned = [results.Run(r.folder, results.by_stage(single.contents(r.config)), summary={}, environment={}) for r in runs]
    check_comparable(planned, [*request.vary, *request.sweep])


def _check(request: Request, r: Run) -> None:
    try:
        _check_values(r)
        _check_limits(request, r)
        check(r.config)
    except UserError as error:
        where = "" if r.label in str(error) else f"{name_of(r.point)} {r.label}".strip() + ": "
        raise UserError(f"{where}{error}") from None


def condition(request: Request, point: Mapping[str, Any]) -> str:
    """The name of what is varied at this point, whatever is swept."""
    return name_of({key: value for key, value in point.items() if key in request.vary})


def made(
    request: Request, point: dict[str, Any], label: str, seed: int, settings: Mapping[str, Any], folder: Path | None = None
) -> Run:
    """A run with these settings on top of what was asked for, where `{seed}` stands for its seed; its folder is the grid's
    unless given.
    """
    algorithm = request.algorithms[label]
    folder = folder or request.folder / name_of(point) / f"{label}-{seed}"
    chosen = [f"algorithm={algorithm}", f"seed={seed}", f"run_dir={written(folder)}"]
    if label != algorithm:
        chosen.append(f"label={label}")
    written_as = (
        *request.suite.overrides, *request.suite.override.get(label, []), *request.overrides, *request.override.get(label, []),
    )  # fmt: skip
    given = tuple(text.replace("{seed}", str(seed)) for text in written_as)
    keys = {o.get_key_element() for o in grammar.parse(given)}
    several = bool(keys & {"pipeline", "experiment"})  # perhaps: an experiment may be a pipeline's
    if several and "stages_dir" not in keys:
        chosen.append(f"stages_dir={written(request.folder / STAGES)}")
    own = {f"stage.last.{key}" if several and _staged(given) else key: value for key, value in settings.items()}
    overrides = (*given, *(f"{key}={written(value)}" for key, value in {**own, **point}.items()), *chosen)
    return Run(label, algorithm, seed, point, folder, overrides)


def _staged(given: Sequence[str]) -> bool:
    """Whether there are stages before the run: what was tuned is then said of the last alone."""
    return find([*given, "stages_dir=stages"]) is not None


def conditions(request: Request) -> list[dict[str, Any]]:
    """Every combination of what varies; where the suite's are not crossed, those that differ from the first in one key."""
    found = list(points(request.vary))
    if request.suite.crossed:
        return found
    return [point for point in found if sum(point[key] != found[0][key] for key in point) <= 1]


def points(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of {key: values}; one without any where there is none."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def name_of(point: Mapping[str, Any]) -> str:
    """A name that can be read, or at least told from the others where the values are long or hold a slash."""
    whole = ",".join(f"{key}={value}" for key, value in point.items())
    name = re.sub(r"[^\w.,=+-]", "_", whole)
    if name == whole and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def _check_keys(request: Request) -> None:
    """What is varied or swept is not also set to one value, which would be ignored. Raises UserError."""
    if both := set(request.vary) & set(request.sweep):
        raise UserError(f"{sorted(both)[0]} is in vary and in sweep: choose one")
    for name, node in (("vary", request.vary), ("sweep", request.sweep)):
        for key, values in node.items():
            if twice := [value for i, value in enumerate(values) if value in values[:i]]:
                raise UserError(f"suite.{name}: {key} has the value {twice[0]} twice")
        for given in (request.overrides, *request.override.values()):
            for o in grammar.parse(given):
                if o.get_key_element().lstrip("+~") in node:
                    key = o.get_key_element().lstrip("+~")
                    raise UserError(f"{o.input_line}: the suite has several values of it. Give suite.{name}.{key}=[...]")


def _check_values(r: Run) -> None:
    """What varies are single values, by which the report can tell the runs apart. Raises UserError."""
    for key in r.point:
        if isinstance(OmegaConf.select(r.config, key), DictConfig):
            raise UserError(f"{key} is a group of settings: vary or sweep one of them, as in {key}.KEY=[...]")


def _check_limits(request: Request, r: Run) -> None:
    """A budget is the one limit of a run: a number of steps beside it would be ignored. Raises UserError."""
    budget = r.config.budget
    for o in grammar.parse([*request.overrides, *request.override.get(r.label, [])]):
        if budget.unit is not Unit.none and o.get_key_element() in ("trainer.max_steps", "trainer.epochs"):
            allowed = f"{budget.amount:g} {budget.unit.value}"
            raise UserError(
                f"{o.input_line}: {r.label} ends after {allowed}, whatever its steps. Give budget.amount=...,\n"
                "or, for steps, budget.unit=none budget.amount=0"
            )
