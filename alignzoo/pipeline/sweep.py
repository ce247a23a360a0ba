"""`alignzoo train -m`: one run after the other, through Hydra's sweeper and launcher; of pipelines, by our own hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Self, TypeVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from alignzoo.config import command_line, hydra_errors
from alignzoo.config.composition import compose
from alignzoo.config.run import complete
from alignzoo.config.stage_plan import has_stages
from alignzoo.errors import UserError, masked

T = TypeVar("T")


class RunOutcome(float):
    """What came of a run: what a sweeper such as optuna optimises, NaN where there is nothing, and the exit code."""

    code: int

    def __new__(cls, code: int, objective: float = math.nan) -> Self:
        outcome = super().__new__(cls, objective)
        outcome.code = code
        return outcome


Job = Callable[[Callable[[], DictConfig]], RunOutcome]


def multirun(overrides: Sequence[str], job: Job) -> list[RunOutcome]:
    """Hand every combination's config to `job`, as a function that makes it, and return what came of each.

    Runs with a `run_dir` lie inside it, named after what is swept; stages by their hashes, so that combinations share those
    that are the same. Raises UserError, before the first job starts, for an unknown option or key.
    """
    parsed = command_line.parse(overrides)
    if command_line.value_of(parsed, "resume") is not None:
        raise UserError("resume=RUN goes on with one run: leave out -m")
    for text in overrides:
        if masked(text) != text:
            raise UserError(f"{text}: -m would keep the password in multirun.yaml: give it as ${{oc.env:NAME}}")
    if place := next((o.input_line for o in parsed if o.get_key_element().startswith("hydra.run")), None):
        raise UserError(f"{place} does nothing with -m: the runs' folders are in run_dir=FOLDER")
    if configs := _pipelines(overrides, parsed):
        return [job(lambda cfg=cfg: cfg) for cfg in configs]  # type: ignore[misc]
    overrides = list(overrides)
    swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
    if all(o.get_key_element() != "hydra.sweep.dir" for o in parsed):
        overrides.append(f"hydra.sweep.dir={command_line.value_of(parsed, 'run_dir') or 'runs/multirun'}")
    direction, outcomes = command_line.value_of(parsed, "hydra.sweeper.direction"), list[RunOutcome]()
    # which minimises unless told otherwise
    if direction is None and command_line.value_of(parsed, "hydra/sweeper") == "optuna":
        direction = "maximize"
        overrides.append("hydra.sweeper.direction=maximize")

    def run_one(cfg: DictConfig) -> RunOutcome:
        outcome = job(lambda: _completed(cfg, swept))
        worst = math.inf if direction == "minimize" else -math.inf
        outcomes.append(RunOutcome(outcome.code, worst) if math.isnan(outcome) else outcome)
        return outcomes[-1]

    with command_line.searching(parsed):
        command_line.check_options(parsed)
        # a sweeper that chooses by what came of earlier runs keeps that to itself
        return launch("train", run_one, overrides) or outcomes


def _pipelines(overrides: Sequence[str], parsed: Sequence[Override]) -> list[DictConfig]:
    """The configs of every combination where these are pipelines; none where they are single runs. Hydra itself can't sweep the
    former: a key of one stage is unknown to the others."""
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] if o.is_discrete_sweep() else [text]
        for text, o in zip(overrides, parsed, strict=True)
    ]
    combinations = [*product(*choices)]
    staged = [has_stages(combination) for combination in combinations]
    if not any(staged):
        return []
    if not all(staged):
        single = " ".join(combinations[staged.index(False)])
        raise UserError(f"-m runs pipelines or single runs, and {single} is no pipeline")
    if hydra := [text for text in overrides if text.lstrip("+").startswith(("hydra/", "hydra.launcher", "hydra.sweep"))]:
        raise UserError(f"{hydra[0]}: the runs of a pipeline go through no launcher or sweeper: leave it out")
    if command_line.value_of(parsed, "stages_dir"):
        raise UserError("stages_dir= is for one pipeline: leave it out with -m, which shares the stages that are the same")
    return list(map(compose, combinations))


def launch(name: str, job: Callable[[DictConfig], T], overrides: Sequence[str]) -> list[T]:
    """Hand every combination of the config `name`, within `config.searching`, to `job`, through Hydra's sweeper and launcher,
    and return what it returned, as far as the sweeper tells. Raises UserError like `multirun`.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    try:
        batches = hydra.multirun(name, job, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(hydra_errors.explain(error)) from error
    return [job_return.return_value for batch in batches or () for job_return in batch]


def _completed(cfg: DictConfig, swept: Sequence[str]) -> DictConfig:
    hydra = HydraConfig.get()
    completed = complete(cfg, hydra.runtime.choices, hydra.overrides.task)
    if completed.run_dir:
        lines = {o.get_key_element(): o.input_line or "" for o in command_line.parse(hydra.overrides.task)}
        completed.run_dir += "/" + (",".join(lines[key].replace("/", "_") for key in swept) or str(hydra.job.num))
    return completed
