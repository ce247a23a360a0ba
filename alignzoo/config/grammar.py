"""Overrides as Hydra reads them, and the options they may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from alignzoo.config.foreign_names import flag
from alignzoo.config.overrides import readable
from alignzoo.config.registry import Registry, unknown
from alignzoo.config.source import plugins_dir
from alignzoo.errors import UserError


def parse(overrides: Sequence[str]) -> list[Override]:
    try:
        parsed = OverridesParser.create().parse_overrides(list(map(readable, overrides)))
        if not all(o.key_or_group for o in parsed):
            raise HydraException("a key is empty")
        return parsed
    except HydraException as error:
        wrong = next((text for text in overrides if not _readable(text)), "")
        if wrong.startswith("--"):
            raise UserError(flag(wrong)) from error
        remedy = "write key=value, and quote a value with spaces: 'key=\"a b\"'"
        raise UserError(f"can't read the override {wrong!r}: {remedy}") from error


def _readable(override: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(readable(override)).key_or_group)
    except HydraException:
        return False


def value_of(parsed: Sequence[Override], key: str) -> Any:
    """What `key=value` says among the overrides, the last one if several, or None."""
    values = [o.value() for o in parsed if o.get_key_element().lstrip("+") == key and not o.is_delete()]
    value = values[-1] if values else None
    return value.text if isinstance(value, QuotedString) else value


def options(group: str, parsed: Sequence[Override] = ()) -> list[str]:
    """The options of a config group, within `searching`; `hydra.searchpath` among `parsed` may add some."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    paths = [str(o.input_line) for o in parsed if o.get_key_element() == "hydra.searchpath"]
    return hydra.config_loader.get_group_options(group, config_name="train", overrides=paths)


def groups() -> list[str]:
    """The config groups there are, within `searching`."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return [name for name in hydra.config_loader.get_group_options("", ObjectType.GROUP) if name != "hydra"]


def searching(parsed: Sequence[Override] = ()) -> Any:
    """A context in which Hydra finds our configs, those of `plugins_dir=` among `parsed` included."""
    folder = value_of(parsed, "plugins_dir")
    plugins_dir.set(str(Path(str(folder)).expanduser().absolute()) if folder else "")
    Registry(folder)
    return initialize_config_module("alignzoo_conf", version_base="1.3", job_name="alignzoo")


def check_options(parsed: Sequence[Override]) -> None:
    """Raise UserError for an option that a group doesn't have, before anything is imported."""
    every = groups()
    for override in parsed:
        group = override.get_key_element().lstrip("+~").split("@")[0]
        if group not in every:
            continue
        known = options(group, parsed)
        if override.is_delete():
            raise UserError(f"~{group}: a run needs one. Available: {', '.join(known)}")
        taken = override.sweep_iterator() if override.is_sweep_override() else iter([override.value()])
        for name in taken:
            if name is None:
                raise UserError(f"{group}=null chooses nothing: leave it out, or take one of {', '.join(known)}")
            if str(name) not in known:
                raise UserError(unknown(group, str(name), known))
