"""Overrides as Hydra reads them, and the options they may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from alignzoo.config.foreign_names import flag
from alignzoo.config.quoting import readable
from alignzoo.config.registry import Registry, unknown
from alignzoo.config.zoo_source import plugins_dir
from alignzoo.errors import UserError


def parse(overrides: Sequence[str]) -> list[Override]:
    """Raises UserError for what Hydra can't read."""
    return list(map(_parsed, overrides))


def _parsed(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(readable(text))
        if override.key_or_group:
            return override
        cause = None
    except HydraException as error:
        cause = error
    if text.startswith("--"):
        raise UserError(flag(text)) from cause
    remedy = "write key=value, and quote a value with spaces: 'key=\"a b\"'"
    raise UserError(f"can't read the override {text!r}: {remedy}") from cause


def value_of(parsed: Sequence[Override], key: str) -> Any:
    """What `key=value` says among the overrides, the last one if several, or None."""
    values = [o.value() for o in parsed if o.get_key_element().lstrip("+") == key and not o.is_delete()]
    return values[-1] if values else None


def options(group: str, parsed: Sequence[Override] = ()) -> list[str]:
    """The options of a config group, within `searching`; `hydra.searchpath` among `parsed` may add some."""
    paths = [str(o.input_line) for o in parsed if o.get_key_element() == "hydra.searchpath"]
    return GlobalHydra.instance().config_loader().get_group_options(group, config_name="train", overrides=paths)


def groups() -> list[str]:
    """The config groups there are, within `searching`."""
    names = GlobalHydra.instance().config_loader().get_group_options("", ObjectType.GROUP)
    return [name for name in names if name != "hydra"]


def searching(parsed: Sequence[Override] = ()) -> AbstractContextManager[object]:
    """A context in which Hydra finds our configs, those of `plugins_dir=` among `parsed` included."""
    folder = value_of(parsed, "plugins_dir")
    plugins_dir.set(str(Path(str(folder)).expanduser().absolute()) if folder else "")
    Registry(str(folder) if folder else None)
    return initialize_config_module("alignzoo_conf", version_base="1.3", job_name="alignzoo")


def check_options(parsed: Sequence[Override]) -> None:
    """Raise UserError for an option that a group doesn't have, before anything is imported."""
    every = groups()
    for override in parsed:
        group = override.get_key_element().lstrip("+~").split("@")[0]
        if group not in every:
            continue
        names = options(group, parsed)
        if override.is_delete():
            raise UserError(f"~{group}: a run needs one. Available: {', '.join(names)}")
        for name in override.sweep_iterator() if override.is_sweep_override() else [override.value()]:
            if name is None:
                raise UserError(f"{group}=null chooses nothing: leave it out, or take one of {', '.join(names)}")
            if str(name) not in names:
                raise UserError(unknown(group, str(name), names))
