"""The config that a command line asks for: of one run, of a pipeline's last, or of a run that is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alignzoo.common.fingerprint import NAMES_ONLY
from alignzoo.common.folder import CONFIG
from alignzoo.config import messages, stages
from alignzoo.config.grammar import parse, searching, value_of
from alignzoo.config.run import single
from alignzoo.errors import UserError


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run, typed, resolved and checked for keys; of a pipeline's last, with the overrides of all in `pipeline`.
    Raises UserError for whatever is wrong with `overrides`."""
    parsed = parse(overrides)
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


def load_run(folder: str | Path) -> DictConfig:
    """The config that a run was started with, typed. Raises UserError where the folder holds none."""
    saved = _saved(Path(folder))
    choices = {group: name for group, name in saved["choices"].items() if group not in NAMES_ONLY}
    given = [f"{group}={name}" for group, name in choices.items()]
    cfg = compose(given + ([f"plugins_dir={saved['plugins_dir']}"] if saved.get("plugins_dir") else []))
    try:
        for key, value in saved.items():
            _assign(cfg, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{folder}/config.yaml is not a config of this version: {messages.describe(error)}") from error
    return cfg


def _interpolations(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key in map(str, node):
        inner: Any = node._get_node(key)
        if OmegaConf.is_interpolation(node, key):
            yield f"{prefix}{key}", str(inner._value())
        elif isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
            yield from _interpolations(inner, f"{prefix}{key}.")


def _saved(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml")
    try:
        saved = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: {str(error).split(chr(10))[0]}. Put it back from a copy") from None
    if not isinstance(saved, dict) or "choices" not in saved:
        raise UserError(f"{path} is not the config of a run")
    return cast(dict[str, Any], saved)


def _resumed(folder: Path, parsed: Sequence[Override]) -> DictConfig:
    cfg = load_run(folder)
    given = [o for o in parsed if o.get_key_element() not in ("resume", "run_dir", "accept")]
    wanted = [f"{o.get_key_element()}: {_text(o)} here, {_kept(cfg, o)} in the run" for o in given if _text(o) != _kept(cfg, o)]
    if wanted:
        raise UserError(f"resume={folder} goes on with the run's own config; these differ:\n  " + "\n  ".join(wanted[:3]))
    cfg.run_dir = cfg.resume = str(folder)
    accepted = value_of(parsed, "accept") or []
    cfg.accept = accepted if isinstance(accepted, list) else [str(accepted)]
    return cfg


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
