"""The config that a command line asks for: of one run, of a pipeline's last, or of a run that is resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alignzoo.common.fingerprint import NAMES_ONLY
from alignzoo.common.folder import CONFIG, ORIGIN, is_own
from alignzoo.config import messages, stages, strangers
from alignzoo.config.grammar import groups, parse, searching, value_of
from alignzoo.config.registry import GROUPS, Registry
from alignzoo.config.run import single
from alignzoo.errors import HIDDEN, UserError, masked


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run, typed, resolved and checked for keys; of a pipeline's last, with the overrides of all in `pipeline`.
    Raises UserError for whatever is wrong with `overrides`."""
    parsed = parse(overrides)
    _check_hydra(parsed)
    resumed = value_of(parsed, "resume")
    if resumed is not None:
        return _resumed(Path(str(resumed)), parsed)
    found = stages.find(overrides)
    return single(overrides) if found is None else stages.last(found)


def tied(overrides: Sequence[str] = ()) -> dict[str, str]:
    """{key: expression} of the settings of a run that take their value from others, as in `beta: ${data.beta}`."""
    found = stages.find(overrides)
    own = list(overrides) if found is None else list(found.last.overrides)
    with searching(parse(own)):
        try:
            return dict(_interpolations(hydra_compose("train", own)))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(messages.explain(error)) from error


def load_run(folder: str | Path, trust: bool = False, judges: bool = True, option: str = "trust=true") -> DictConfig:
    """The config that a run was started with, typed; without `judges`, as if it had no reward, gold and metrics.

    Raises UserError where the folder holds none, and, without `trust`, where it wasn't begun by this user and names code or
    secrets; `option` is how to trust it.
    """
    saved, own = _saved(Path(folder), judges)
    if not (own or trust) and (asked := strangers.asked(saved)):
        raise UserError(_refusal(folder, asked, option))
    choices = {group: name for group, name in saved["choices"].items() if group not in NAMES_ONLY}
    for group, name in choices.items():
        if not re.fullmatch(r"[\w-]+", str(name)):  # Hydra would read quotes and spaces as it does on a command line
            raise UserError(f"{folder}/config.yaml: choices.{group}={name!r} is no option's name")
    given = [f"{group}={name}" for group, name in choices.items()]
    cfg = compose(given + ([f"plugins_dir={saved['plugins_dir']}"] if saved.get("plugins_dir") else []))
    try:
        for key, value in saved.items():
            _assign(cfg, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{folder}/config.yaml is not a config of this version: {messages.describe(error)}") from error
    return cfg


def asked_by_judges(folder: Path) -> dict[str, str]:
    """{key: value} of what a run that wasn't begun by this user asks for to score what it wrote: code or secrets."""
    (saved, own), (rest, _) = _saved(folder), _saved(folder, judges=False)
    return {} if own else {key: value for key, value in strangers.asked(saved).items() if key not in strangers.asked(rest)}


def _refusal(folder: str | Path, asked: Mapping[str, str], option: str) -> str:
    named = ", ".join(f"{key}={value}" for key, value in asked.items())
    return (
        f"{folder} was not begun by you here, or its config.yaml was edited ({ORIGIN} would tell), and asks for {named}\n"
        f"that runs code or reads secrets: if you have looked at it and trust it, add {option}"
    )


def _check_hydra(parsed: Sequence[Override]) -> None:
    """Raises UserError for what only a sweep, or Hydra's own running of a program, would look at."""
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        if re.match(r"hydra\b", key) and key != "hydra.searchpath":
            swept = re.match(r"hydra[/.](launcher|sweep)", key)
            remedy = (
                "launchers and sweepers are for -m" if swept else "a run's folder is run_dir=FOLDER, and its logs are there"
            )
            raise UserError(f"{override.input_line} does nothing here: {remedy}")


def _interpolations(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key in map(str, node):
        inner: Any = node._get_node(key)
        if OmegaConf.is_interpolation(node, key):
            yield f"{prefix}{key}", str(inner._value())
        elif isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
            yield from _interpolations(inner, f"{prefix}{key}.")


def _saved(folder: Path, judges: bool = True) -> tuple[dict[str, Any], bool]:
    """What config.yaml says, and whether it is the user's own."""
    path = folder / CONFIG
    if not path.is_file():
        inside = f". It is part of one: {folder.parent}" if (folder.parent / CONFIG).is_file() else ""
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml{inside}")
    try:
        text = path.read_bytes()
        saved = OmegaConf.to_container(OmegaConf.create(text.decode()))
    except (OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {str(error).split(chr(10))[0]}. Put it back from a copy") from None
    with searching():
        chosen = {*groups(), *NAMES_ONLY}  # another key would be an override of any kind
    if not isinstance(saved, dict) or not isinstance(saved.get("choices"), dict) or not saved["choices"].keys() <= chosen:
        raise UserError(f"{path} is not the config of a run")
    whole = cast(dict[str, Any], saved)
    return whole if judges else _without_judges(whole), is_own(folder, text)


def _without_judges(saved: dict[str, Any]) -> dict[str, Any]:
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
    if trust not in (True, False):
        raise UserError(f"trust={trust} is not true or false")
    cfg = load_run(folder, trust)
    given = [o for o in parsed if o.get_key_element() not in ("resume", "run_dir", "accept", "trust")]
    wanted = [_difference(cfg, o) for o in given if masked(_text(o)) != masked(_kept(cfg, o))]
    if wanted:
        raise UserError(f"resume={folder} goes on with the run's own config; these differ:\n  " + "\n  ".join(wanted[:3]))
    for o in given:
        if HIDDEN in _kept(cfg, o):  # a password that config.yaml doesn't hold
            OmegaConf.update(cfg, o.get_key_element(), _text(o))
    cfg.run_dir = cfg.resume = str(folder)
    cfg.trust = trust
    accepted = value_of(parsed, "accept") or []
    cfg.accept = accepted if isinstance(accepted, list) else [str(accepted)]
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


def _assign(cfg: DictConfig, key: str, value: Any) -> None:
    """Set a node to a saved value: field by field where it is typed, as a whole where it is not."""
    node = cfg._get_node(key)
    if isinstance(node, DictConfig) and OmegaConf.get_type(node) is not dict and isinstance(value, dict):
        for name, inner in value.items():
            _assign(node, name, inner)
    else:
        cfg[key] = value
