"""What a config.yaml may do only where it is the user's own, or trusted: run code that it names, and read secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from alignzoo.config.registry import GROUPS, Registry

TRUST = "trust"  # in a field's metadata: what a plugin reads there names code or a secret
SHOWN = 80  # letters of a value


def asked(settings: Mapping[str, Any]) -> dict[str, str]:
    """{dotted key: value} of a run's settings that run code or read secrets: fields of any plugin whose metadata has `trust`,
    local plugins, code of models, attention kernels of a hub, and what is taken from the environment."""
    registry, found = Registry(), dict[str, Any]()
    for key, value in settings.items():
        if key in GROUPS and isinstance(value, Mapping):
            found |= _asked(registry, value, f"{key}.", key, settings["choices"].get(key))
        else:
            found |= _asked(registry, {key: value}, "", "", None)
    return {key: str(value)[:SHOWN] for key, value in found.items()}


def _asked(registry: Registry, node: Any, prefix: str, group: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """Of the settings of the plugin `kind` of a group, and of those inside them."""
    marked = _marked(registry, group, kind)
    for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if (name in marked and value) or _in_any_case(str(name), value):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping | list):
            inner = value.get("kind") if isinstance(value, Mapping) else None
            yield from _asked(registry, value, f"{prefix}{name}.", group, inner)


def _marked(registry: Registry, group: str, kind: Any) -> set[str]:
    if not group or kind not in registry.names(group):
        return set()
    return {f.name for f in fields(registry.load(group, kind)) if TRUST in f.metadata}


def _in_any_case(name: str, value: Any) -> bool:
    """Whatever plugin reads it."""
    if name in ("plugins_dir", "trust_remote_code"):
        return bool(value)
    if name == "attention" or name.endswith("_implementation"):
        return "/" in str(value)
    return isinstance(value, str) and "${" in value  # a resolver's name may itself be put together
