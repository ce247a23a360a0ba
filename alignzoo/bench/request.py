"""What the command line asks for: a suite, what of it is changed, and overrides of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignzoo import config, config_errors
from alignzoo.bench.overrides import take_overrides
from alignzoo.bench.suite import BenchConfig, Suite, grid, labelled, seeds_of
from alignzoo.settings import UserError, nearest, require

OWN = ("suite", "algorithms", "seeds", "folder", "jobs", "bench", "hydra")
PER_RUN = {
    "algorithm": "algorithms=[...]",
    "seed": "seeds=",
    "run_dir": "folder=",
    "resume": "the same command",
    "label": "LABEL:NAME",
}
FREE = ("suite.override.", "suite.vary.", "suite.sweep.")  # nodes whose keys nobody declares


@dataclass(frozen=True, kw_only=True)
class Request:
    """A bench as asked for. `overrides` hold for all runs, `override` for those of one label; both come after the suite's."""

    command: list[str]
    suite_name: str
    suite: Suite
    algorithms: dict[str, str]  # {label: algorithm}
    seeds: list[int]
    folder: Path
    jobs: int | None
    threads: int
    tune: int
    overrides: list[str] = field(default_factory=list)
    override: dict[str, list[str]] = field(default_factory=dict)
    own: list[str] = field(default_factory=list)  # for Hydra: everything but the overrides of runs

    @property
    def vary(self) -> dict[str, list[Any]]:
        return grid(self.suite.vary, "suite.vary")

    @property
    def sweep(self) -> dict[str, list[Any]]:
        return grid(self.suite.sweep, "suite.sweep")


def parse(argv: Sequence[str]) -> Request:
    """Raises UserError for what can't be read, names nobody has, and values out of range."""
    override, rest = take_overrides(argv)
    parsed = config.parse(rest)
    for name, remedy in PER_RUN.items():
        if config.value_of(parsed, name) is not None:
            raise UserError(f"bench sets {name}= for each run: give {remedy}")
    own = [_free(o) for o in parsed if _is_own(o)]
    runs = [str(o.input_line) for o in parsed if not _is_own(o) or o.get_key_element() == "hydra.searchpath"]
    for o in parsed:
        if not _is_own(o) and o.is_sweep_override():
            key = o.get_key_element()
            raise UserError(
                f"{o.input_line}: several values are suite.vary.{key}=[...], each compared by itself, "
                f"or suite.sweep.{key}=[...], one frontier"
            )
    name, chosen = _suite(parsed)
    asked = _compose([*own, *chosen], parsed)
    algorithms = labelled(asked.suite.algorithms if asked.algorithms is None else asked.algorithms)
    for label in override:
        if label not in algorithms:
            has = ", ".join(algorithms)
            raise UserError(f"bench.override.{label}: this bench has no {label!r}.{nearest(label, algorithms)} It has {has}")
    seeds = seeds_of(asked.suite.seeds if asked.seeds is None else asked.seeds)
    if asked.jobs is not None:
        require(asked.jobs >= 1, "jobs", asked.jobs, ">= 1")
    return Request(
        command=["alignzoo", "bench", *argv], suite_name=name, suite=asked.suite, algorithms=algorithms, seeds=seeds,
        folder=Path(asked.folder), jobs=asked.jobs, threads=asked.bench.threads,
        tune=asked.suite.tune if asked.bench.tune is None else asked.bench.tune,
        overrides=runs, override=override, own=[*own, *chosen],
    )  # fmt: skip


def _is_own(override: Override) -> bool:
    key = override.get_key_element().lstrip("+~")
    return key.split(".")[0].split("/")[0].split("@")[0] in OWN


def _free(override: Override) -> str:
    """Keys that no dataclass declares may be added without a +."""
    line = str(override.input_line)
    return f"++{line}" if line.startswith(FREE) else line


def _suite(parsed: Sequence[Override]) -> tuple[str, list[str]]:
    """Its name, and the override that chooses it where the user's doesn't."""
    given = config.value_of(parsed, "suite")
    if given is None:
        described = any(config.value_of(parsed, name) is not None for name in ("data", "experiment"))
        return ("", ["suite=null"]) if described else ("exact", [])
    path = Path(str(given))
    if path.suffix != ".yaml":
        return str(given), []
    if not path.is_file():
        raise UserError(f"suite={given}: there is no such file")
    try:
        node = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"suite={given} can't be read: {str(error).splitlines()[0]}") from None
    ConfigStore.instance().store(group="suite", name=path.stem, node=cast(Any, node))
    return path.stem, [f"suite={path.stem}"]


def _compose(own: Sequence[str], parsed: Sequence[Override]) -> BenchConfig:
    with config.searching(parsed):
        checked = [o for o in config.parse(own) if o.get_key_element() == "suite" and o.value() is not None]
        config.check_options(checked)
        try:
            cfg = hydra_compose("bench", list(own), return_hydra_config=True)
            with open_dict(cfg):
                del cfg["hydra"]
            config_errors.check_keys(cfg)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(config_errors.explain(error)) from error
    return cast(BenchConfig, OmegaConf.to_object(cfg))
