"""`alignzoo train -m`: one run after the other, through Hydra's sweeper and launcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from alignzoo import config, config_errors
from alignzoo.settings import UserError

Job = Callable[[Callable[[], DictConfig]], int]


def multirun(overrides: Sequence[str], job: Job) -> list[int]:
    """Hand every combination's config to `job`, as a function that makes it, and return the jobs' exit codes.

    Runs with a `run_dir` lie inside it, named after what is swept. Raises UserError, before the first job starts, for an
    unknown option or key.
    """
    parsed = config.parse(overrides)
    if config.value_of(parsed, "resume") is not None:
        raise UserError("resume=RUN goes on with one run: leave out -m")
    swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
    where = f"hydra.sweep.dir={config.value_of(parsed, 'run_dir') or 'runs/multirun'}"
    given = any(o.get_key_element() == "hydra.sweep.dir" for o in parsed)

    def run_one(cfg: DictConfig) -> int:
        return job(lambda: _completed(cfg, swept))

    with config.searching(parsed):
        config.check_options(parsed)
        return launch("train", run_one, [*overrides, *([] if given else [where])])


def launch(name: str, job: Callable[[DictConfig], int], overrides: Sequence[str]) -> list[int]:
    """Hand every combination of the config `name`, within `config.searching`, to `job`, through Hydra's sweeper and launcher,
    and return what it returned. Raises UserError like `multirun`.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    try:
        batches = hydra.multirun(name, job, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(config_errors.explain(error)) from error
    return [one.return_value for batch in batches for one in batch]


def _completed(cfg: DictConfig, swept: Sequence[str]) -> DictConfig:
    hydra = HydraConfig.get()
    done = config.complete(cfg, hydra.runtime.choices)
    if done.run_dir:
        own = {o.get_key_element(): o for o in config.parse(hydra.overrides.task)}
        done.run_dir = f"{done.run_dir}/{','.join(_named(own[key]) for key in swept) or hydra.job.num}"
    return done


def _named(override: Override) -> str:
    return override.input_line.replace("/", "_") if override.input_line else ""
