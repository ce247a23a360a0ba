"""What the command line asks for: a suite, what of it is changed, and overrides of the runs."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose as hydra_compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignzoo.bench.overrides import take_overrides
from alignzoo.bench.space import flat
from alignzoo.bench.suite import BenchConfig, Options, Suite, grid, labelled, pairs_of, seeds_of, tuning_seeds
from alignzoo.config import grammar, messages
from alignzoo.errors import UserError, masked, nearest, require

SEARCH_PATH = "hydra.searchpath"
EXTRAS = ("joblib", "submitit")  # launchers that alignzoo's extras install
OWN = ("suite", "algorithms", "seeds", "folder", "jobs", "dry_run", "bench", "hydra")
PER_RUN = {
    "algorithm": "algorithms=[...]",
    "seed": "seeds=",
    "run_dir": "folder=",
    "resume": "the same command",
    "label": "LABEL:NAME",
}
FREE = ("suite.override.", "suite.vary.", "suite.sweep.", "suite.search.", "bench.search.")  # nodes whose keys nobody declares


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
    dry_run: bool
    threads: int
    tune: int
    overrides: list[str] = field(default_factory=list)
    override: dict[str, list[str]] = field(default_factory=dict)
    tune_seeds: list[int] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)  # {key or label.key: range as written}
    launcher: str | None = None  # Hydra's, by name; none: a pool of this process
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
    parsed = grammar.parse(rest)
    _check_runs([o for o in parsed if not _is_own(o)])
    name, own = _own(parsed)
    asked = _compose(own, parsed)
    algorithms = labelled(asked.suite.algorithms if asked.algorithms is None else asked.algorithms)
    _check_labels(asked.suite, algorithms, override)
    return Request(
        command=["alignzoo", "bench", *map(masked, argv)], suite_name=name, suite=asked.suite, algorithms=algorithms,
        seeds=seeds_of(asked.suite.seeds if asked.seeds is None else asked.seeds),
        folder=Path(asked.folder), jobs=asked.jobs, dry_run=asked.dry_run, threads=asked.bench.threads,
        tune=_tune(asked), tune_seeds=tuning_seeds(asked.bench.tune_seeds), search=_search(asked, algorithms),
        overrides=[str(o.input_line) for o in parsed if not _is_own(o) or o.get_key_element() == SEARCH_PATH],
        override=override, launcher=_launcher(parsed, asked.jobs), own=own,
    )  # fmt: skip


def _tune(asked: BenchConfig) -> int:
    """How many trials. Raises UserError for what is said of none."""
    tune = asked.suite.tune if asked.bench.tune is None else asked.bench.tune
    for name, given in (("search", bool(asked.bench.search)), ("tune_seeds", asked.bench.tune_seeds != Options().tune_seeds)):
        if given and not tune:
            raise UserError(f"bench.{name} is for tuning, and nothing is tuned: give bench.tune=N too")
    return tune


def _search(asked: BenchConfig, algorithms: dict[str, str]) -> dict[str, Any]:
    """{key or label.key: range as written}, the user's in place of the suite's."""
    suite, own = flat(asked.suite.search), flat(asked.bench.search)
    for key in own:
        label = key.split(".")[0]
        if label in labelled(asked.suite.algorithms) and label not in algorithms:
            raise UserError(f"bench.search.{key}: this bench has no {label!r}. It has {', '.join(algorithms)}")
    return suite | own


def _is_own(override: Override) -> bool:
    """Bench's, or its launcher's; all others are the runs'."""
    return re.split(r"[./@]", override.get_key_element().lstrip("+~"))[0] in OWN


def _check_runs(overrides: Sequence[Override]) -> None:
    for o in overrides:
        key = o.get_key_element().lstrip("+~")
        if key in PER_RUN:
            raise UserError(f"bench sets {key}= for each run: give {PER_RUN[key]}")
        if o.is_sweep_override():
            raise UserError(
                f"{o.input_line}: for several values write suite.vary.{key}=[...], each compared by itself,\n"
                f"or suite.sweep.{key}=[...], which makes one frontier"
            )


def _check_labels(suite: Suite, algorithms: dict[str, str], override: dict[str, list[str]]) -> None:
    """What is said of one algorithm is said of one that is there; a suite's own may have been left out by the user."""
    for label in override:
        if label not in algorithms:
            has = ", ".join(algorithms)
            raise UserError(f"bench.override.{label}: this bench has no {label!r}.{nearest(label, algorithms)} It has {has}")
    known = {**labelled(suite.algorithms), **algorithms}
    planned = [(f"planned {pair}", label) for pair in pairs_of(suite.planned) for label in pair]
    for where, label in [*((f"override.{label}", label) for label in suite.override), *planned]:
        if label not in known:
            raise UserError(f"suite.{where}: this suite has no {label!r}.{nearest(label, known)} It has {', '.join(known)}")


def _launcher(parsed: Sequence[Override], jobs: int | None) -> str | None:
    name = grammar.value_of(parsed, "hydra/launcher")
    if jobs is not None:
        require(jobs >= 1, "jobs", jobs, ">= 1")
        if name is not None:
            raise UserError(f"jobs={jobs} is for bench's own pool: hydra/launcher={name} has settings of its own")
    return name


def _own(parsed: Sequence[Override]) -> tuple[str, list[str]]:
    """The suite's name, empty where data= or experiment= says what is compared; and what Hydra makes the bench from."""
    lines = [_free(o) for o in parsed if _is_own(o)]
    given = grammar.value_of(parsed, "suite")
    if given is None:
        described = any(grammar.value_of(parsed, name) is not None for name in ("data", "experiment", "pipeline"))
        return ("", [*lines, "~suite"]) if described else ("exact", lines)
    path = Path(str(given))
    if path.suffix != ".yaml":
        return str(given), lines
    _store(path, parsed)
    return path.stem, [*(line for line in lines if not line.startswith("suite=")), f"suite={path.stem}"]


def _free(override: Override) -> str:
    """Keys that no dataclass declares may be added without a +."""
    line = str(override.input_line)
    return f"++{line}" if line.startswith(FREE) else line


def _store(path: Path, parsed: Sequence[Override]) -> None:
    """Makes a file of the user's an option of the group. Raises UserError where it isn't one."""
    if not path.is_file():
        raise UserError(f"suite={path}: there is no such file")
    with grammar.searching(parsed):
        taken = grammar.options("suite", parsed)
    if path.stem in taken and ConfigStore.instance().repo.get("suite", {}).get(path.name) is None:
        raise UserError(f"suite={path}: there is a suite {path.stem!r} already. Give the file another name")
    try:
        node = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"suite={path} can't be read: {' '.join(str(error).split())}") from None
    ConfigStore.instance().store(group="suite", name=path.stem, node=node)


def _compose(own: Sequence[str], parsed: Sequence[Override]) -> BenchConfig:
    chosen = [o for o in grammar.parse(own) if o.get_key_element() in ("suite", SEARCH_PATH) and o.value() is not None]
    with grammar.searching(parsed):
        grammar.check_options(chosen)
        try:
            cfg = hydra_compose("bench", list(own), return_hydra_config=True)
            with open_dict(cfg):
                del cfg["hydra"]
            messages.check_keys(cfg)
            return cast(BenchConfig, OmegaConf.to_object(cfg))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(messages.explain(error) + _remedy(own)) from error


def _remedy(own: Sequence[str]) -> str:
    wanted = next((line.partition("=")[2] for line in own if line.startswith("hydra/launcher=")), "").split("_")[0]
    return f"\nTo have it: pip install 'alignzoo[{wanted}]'" if wanted in EXTRAS and not _installed(wanted) else ""


def _installed(launcher: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is not None
    except ModuleNotFoundError:  # no launcher at all
        return False
