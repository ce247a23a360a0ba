"""The config that a command line asks for: of one run, of a pipeline's last, or of a run that is resumed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alignzoo.common.fingerprint import NAMES_ONLY, Items
from alignzoo.common.folder import CONFIG, ORIGIN, is_own
from alignzoo.config import handed, hydra_errors, strangers
from alignzoo.config.command_line import groups, parse, searching, value_of
from alignzoo.config.environment import interpolations
from alignzoo.config.foreign_names import REMOVED
from alignzoo.config.registry import GROUPS, Registry
from alignzoo.config.run import single
from alignzoo.config.stage_plan import last_stage
from alignzoo.errors import HIDDEN, UserError, first_line, masked


def compose(overrides: Sequence[str] = (), algorithm: object = None) -> DictConfig:
    """The config of a run, typed, resolved and checked for keys; of a pipeline's last, with the overrides of all in `pipeline`.
    `algorithm` is a class, or an instance whose values are defaults, that no override names. Raises UserError for whatever is
    wrong with `overrides`."""
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r} is a text: give a list of them, [{overrides!r}]")
    handed.forget_values()
    parsed = parse(overrides)
    _check_hydra(parsed)
    resumed = value_of(parsed, "resume")
    if algorithm is not None:
        if (name := value_of(parsed, "algorithm")) is not None:
            raise UserError(f"algorithm={name} among the overrides, and another is handed over: leave one of them out")
        if isinstance(algorithm, str):
            raise UserError(f"algorithm={algorithm!r} is a name: add 'algorithm={algorithm}' to the overrides instead")
        name = Registry(value_of(parsed, "plugins_dir")).hand(algorithm)
        if resumed is None:
            overrides = [*overrides, f"algorithm={name}"]
            parsed = parse(overrides)
    if resumed is not None:
        return _resumed(Path(str(resumed)), parsed)
    last = last_stage(overrides)
    return single(overrides) if last is None else last


def tied(overrides: Sequence[str] = ()) -> dict[str, str]:
    """{key: expression} of the settings of a run that take their value from others, as in `beta: ${data.beta}`."""
    last = last_stage(overrides)
    of_the_run = list(overrides if last is None else [*last.pipeline.stages.values()][-1])
    with searching(parse(of_the_run)):
        try:
            return {key: text for key, _, text in interpolations(hydra_compose("train", of_the_run))}
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(hydra_errors.explain(error)) from error


def load_run(folder: str | Path, trust: bool = False, judges: bool = True, option: str = "trust=true") -> DictConfig:
    """The config that a run was started with, typed; without `judges`, as if it had no reward, gold and metrics.

    Raises UserError where the folder holds none, and, without `trust`, where it wasn't begun by this user and names code or
    secrets; `option` is how to trust it.
    """
    saved, ours = _saved(Path(folder), judges)
    if not (ours or trust) and (risks := strangers.risks(saved)):
        listed = ", ".join(f"{key}={value}" for key, value in risks.items())
        raise UserError(
            f"{folder} was not begun by you here, or its config.yaml was edited ({ORIGIN} would tell), and asks for {listed}\n"
            f"that runs code or reads secrets: if you have looked at it and trust it, add {option}"
        )
    choices = {group: name for group, name in saved["choices"].items() if group not in NAMES_ONLY}
    for group, name in choices.items():
        if not re.fullmatch(r"[\w-]+", str(name)):  # Hydra would read quotes and spaces as it does on a command line
            raise UserError(f"{folder}/config.yaml: choices.{group}={name!r} is no option's name")
    plugins_dir = [f"plugins_dir={saved['plugins_dir']}"] if saved.get("plugins_dir") else []
    try:
        cfg = compose([*(f"{group}={name}" for group, name in choices.items()), *plugins_dir])
    except UserError as error:
        raise UserError(f"{folder}/config.yaml: {error}") from error
    try:
        for key, value in saved.items():
            _assign(cfg, key, value, key)
    except OmegaConfBaseException as error:
        raise UserError(f"{folder}/config.yaml is not a config of this version: {hydra_errors.describe(error)}") from error
    return cfg


def risks_of_judges(folder: Path) -> dict[str, str]:
    """{key: value} of what a run that wasn't begun by this user asks for to score what it wrote: code or secrets."""
    saved, ours = _saved(folder)
    harmless = strangers.risks(_without_judges(saved))
    return {} if ours else {key: value for key, value in strangers.risks(saved).items() if key not in harmless}


def _check_hydra(parsed: Sequence[Override]) -> None:
    """Raises UserError for what only a sweep, or Hydra's own running of a program, would look at."""
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        if re.match(r"hydra\b", key) and key != "hydra.searchpath":
            remedy = "a run's folder is run_dir=FOLDER, and its logs are there"
            if re.match(r"hydra[/.](launcher|sweep)", key):
                remedy = "launchers and sweepers are for -m"
            raise UserError(f"{override.input_line} does nothing here: {remedy}")


def _saved(folder: Path, judges: bool = True) -> tuple[Items, bool]:
    """What config.yaml says, and whether it is the user's own."""
    path = folder / CONFIG
    if not path.is_file():
        inside = f". It is part of one: {folder.parent}" if (folder.parent / CONFIG).is_file() else ""
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml{inside}")
    try:
        text = path.read_bytes()
        saved: Any = OmegaConf.to_container(OmegaConf.create(text.decode()))
    except (OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}. Put it back from a copy") from None
    with searching():
        chosen = {*groups(), *NAMES_ONLY}  # another key would be an override of any kind
    if not isinstance(saved, dict) or not isinstance(saved.get("choices"), dict) or not saved["choices"].keys() <= chosen:
        raise UserError(f"{path} is not the config of a run")
    return saved if judges else _without_judges(saved), is_own(folder, text)


def _without_judges(saved: Items) -> Items:
    """And without local plugins where nothing else is one."""
    rest = {key: value for key, value in saved.items() if key not in ("reward", "gold", "metrics", "roles")}
    choices, registry = rest["choices"] | {"reward": "none", "gold": "none"}, Registry()
    if all(choices.get(group) in registry.names(group) for group in GROUPS):
        rest.pop("plugins_dir", None)
    return rest | {"choices": choices}


def _resumed(folder: Path, parsed: Sequence[Override]) -> DictConfig:
    place = value_of(parsed, "run_dir")
    if place is not None and Path(str(place)).resolve() != folder.resolve():
        raise UserError(f"resume={folder} goes on where the run is, not in run_dir={place}: leave run_dir out")
    trust = value_of(parsed, "trust") or False
    if not isinstance(trust, bool):
        raise UserError(f"trust={trust} is not true or false")
    cfg = load_run(folder, trust)
    settings = [o for o in parsed if o.get_key_element() not in ("resume", "run_dir", "accept", "trust")]
    wanted = [_difference(cfg, o) for o in settings if masked(_text(o)) != masked(_kept(cfg, o))]
    if wanted:
        raise UserError(f"resume={folder} goes on with the run's own config; these differ:\n  " + "\n  ".join(wanted[:3]))
    for o in settings:
        if HIDDEN in _kept(cfg, o):  # a password that config.yaml doesn't hold
            OmegaConf.update(cfg, o.get_key_element(), _text(o))
    accepted = value_of(parsed, "accept") or []
    cfg.run_dir = cfg.resume = str(folder)
    cfg.trust, cfg.accept = trust, accepted if isinstance(accepted, list) else [str(accepted)]
    return cfg


def _difference(cfg: DictConfig, override: Override) -> str:
    """In words that tell no secret."""
    key = override.get_key_element()
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if "${" in str(override.input_line) or (isinstance(node, DictConfig) and OmegaConf.is_interpolation(node, name)):
        return f"{key}: what the environment makes of it"
    return f"{key}: {_text(override)} here, {_kept(cfg, override)} in the run"


def _text(override: Override) -> str:
    return "deleted" if override.is_delete() else str(OmegaConf.create({"value": override.value()}).value)


def _kept(cfg: DictConfig, override: Override) -> str:
    key = override.get_key_element().lstrip("+~")
    value = cfg.choices[key] if key in cfg.choices else OmegaConf.select(cfg, key)
    return str(getattr(value, "value", value))


def _assign(cfg: DictConfig, key: str, value: object, path: str) -> None:
    """Set a node to a saved value: field by field where it is typed, as a whole where it is not. What earlier versions had, and
    never changed the weights, is passed over."""
    node = cfg._get_node(key) if key in cfg else None
    if isinstance(node, DictConfig) and OmegaConf.get_type(node) is not dict and isinstance(value, dict):
        for name, inner in value.items():
            _assign(node, name, inner, f"{path}.{name}")
    elif path not in REMOVED and f"{path}={value}" not in REMOVED:
        cfg[key] = value
