"""What the command line asks for: a suite, what of it is changed, and overrides of the runs."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignzoo.bench.suite import Options, Request
from alignzoo.config import command_line, hydra_errors
from alignzoo.config.quoting import split_list
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


def parse(argv: Sequence[str]) -> Request:
    """Raises UserError for what can't be read, names nobody has, and values out of range."""
    override, rest = take_overrides(argv)
    parsed = command_line.parse(rest)
    _check_runs([o for o in parsed if not _is_own(o)])
    suite_name, lines = _bench_lines(parsed)
    request = _compose(lines, parsed)
    request.bench.override = override
    _check_labels(request)
    request.launcher = command_line.value_of(parsed, "hydra/launcher")
    if request.jobs is not None:
        require(request.jobs >= 1, "jobs", request.jobs, ">= 1")
        if request.launcher is not None:
            launcher = f"hydra/launcher={request.launcher}"
            raise UserError(f"jobs={request.jobs} is for bench's own pool: {launcher} has settings of its own")
    request.command, request.suite_name, request.bench_lines = ["alignzoo", "bench", *map(masked, argv)], suite_name, lines
    request.overrides = [str(o.input_line) for o in parsed if not _is_own(o) or o.get_key_element() == SEARCH_PATH]
    return request


def take_overrides(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """{label: overrides} of every bench.override.LABEL=[key=value,...], for which Hydra's grammar has no room, and the rest of
    `argv`. Raises UserError for an unreadable one."""
    override: dict[str, list[str]] = {}
    rest = []
    for text in argv:
        key, _, value = text.lstrip("+").partition("=")
        node, *names = key.split(".")
        if node != "bench" or names[:1] != ["override"]:
            if node == "bench" and names and names[0] not in {f.name for f in fields(Options)}:  # before Hydra can't read it
                raise UserError(hydra_errors.unknown_key(f"bench.{names[0]}", Options))
            rest.append(text)
            continue
        label, lines = ".".join(names[1:]), split_list(value)
        if not label or not lines or any(line.split(".")[0] in ("", "[") for line in lines):
            raise UserError(f"can't read {text!r}: write bench.override.LABEL='[key=value,key=value]'")
        command_line.parse(lines)
        override.setdefault(label, []).extend(lines)
    return override, rest


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _is_own(override: Override) -> bool:
    """Bench's, or its launcher's; all others are the runs'."""
    return re.split(r"[./@]", _key(override))[0] in OWN


def _check_runs(overrides: Sequence[Override]) -> None:
    for o in overrides:
        if _key(o) in PER_RUN:
            raise UserError(f"bench sets {_key(o)}= for each run: give {PER_RUN[_key(o)]}")
        if o.is_sweep_override():
            raise UserError(
                f"{o.input_line}: for several values write suite.vary.{_key(o)}=[...], each compared by itself,\n"
                f"or suite.sweep.{_key(o)}=[...], which makes one frontier"
            )


def _check_labels(request: Request) -> None:
    """What is said of one algorithm is said of one that is there; a suite's own may have been left out by the user."""
    suite, of_suite = request.suite, {**request.suite.algorithms, **request.algorithms}
    for where, label, labels, whose in (
        *((f"bench.override.{label}", label, request.algorithms, "bench") for label in request.bench.override),
        *((f"suite.override.{label}", label, of_suite, "suite") for label in suite.override),
        *((f"suite.planned {pair}", label, of_suite, "suite") for pair in suite.planned for label in pair),
    ):
        if label not in labels:
            raise UserError(f"{where}: this {whose} has no {label!r}.{nearest(label, labels)} It has {', '.join(labels)}")


def _bench_lines(parsed: Sequence[Override]) -> tuple[str, list[str]]:
    """The suite's name, empty where data= or experiment= says what is compared; and what Hydra makes the bench from, where keys
    that no dataclass declares may be added without a +."""
    lines = [f"{'++' if str(o.input_line).startswith(FREE) else ''}{o.input_line}" for o in parsed if _is_own(o)]
    suite = command_line.value_of(parsed, "suite")
    if suite is None:
        described = any(command_line.value_of(parsed, name) is not None for name in ("data", "experiment", "pipeline"))
        return ("", [*lines, "~suite"]) if described else ("exact", lines)
    path = Path(str(suite))
    if path.suffix != ".yaml":
        return str(suite), lines
    _store(path, parsed)
    return path.stem, [*(line for line in lines if not line.startswith("suite=")), f"suite={path.stem}"]


def _store(path: Path, parsed: Sequence[Override]) -> None:
    """Makes a file of the user's an option of the group. Raises UserError where it isn't one."""
    if not path.is_file():
        raise UserError(f"suite={path}: there is no such file")
    with command_line.searching(parsed):
        taken = command_line.options("suite", parsed)
    if path.stem in taken and ConfigStore.instance().repo.get("suite", {}).get(path.name) is None:
        raise UserError(f"suite={path}: there is a suite {path.stem!r} already. Give the file another name")
    try:
        node = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"suite={path} can't be read: {' '.join(str(error).split())}") from None
    ConfigStore.instance().store(group="suite", name=path.stem, node=node)


def _compose(lines: Sequence[str], parsed: Sequence[Override]) -> Request:
    chosen = [o for o in command_line.parse(lines) if o.get_key_element() in ("suite", SEARCH_PATH) and o.value() is not None]
    with command_line.searching(parsed):
        command_line.check_options(chosen)
        try:
            cfg = hydra_compose("bench", list(lines), return_hydra_config=True)
            with open_dict(cfg):
                del cfg["hydra"]
            hydra_errors.check_keys(cfg)
            request = OmegaConf.to_object(cfg)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(hydra_errors.explain(error) + _remedy(lines)) from error
    assert isinstance(request, Request)
    return request


def _remedy(lines: Sequence[str]) -> str:
    """Of a launcher that one of alignzoo's extras would install."""
    wanted = next((line.partition("=")[2] for line in lines if line.startswith("hydra/launcher=")), "").split("_")[0]
    if wanted not in EXTRAS:
        return ""
    try:
        installed = importlib.util.find_spec(f"hydra_plugins.hydra_{wanted}_launcher") is not None
    except ModuleNotFoundError:  # no launcher at all
        installed = False
    return "" if installed else f"\nTo have it: pip install 'alignzoo[{wanted}]'"
