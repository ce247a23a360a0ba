"""What a config.yaml may do only where it is the user's own, or trusted: run code that it names, and read secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from alignzoo.common.fingerprint import Items
from alignzoo.config.registry import GROUPS, Registry

TRUST = "trust"  # in a field's metadata: what a plugin reads there names code or a secret
SHOWN = 80  # letters of a value


def risks(settings: Items) -> dict[str, str]:
    """{dotted key: value} of a run's settings that run code or read secrets: fields of any plugin whose metadata has `trust`,
    local plugins, code of models, attention kernels of a hub, and what is taken from the environment."""
    registry, values = Registry(), dict[str, object]()
    for key, value in settings.items():
        if key in GROUPS and isinstance(value, Mapping):
            values |= _risks(registry, value, f"{key}.", key, settings["choices"].get(key))
        else:
            values |= _risks(registry, {key: value}, "", "", None)
    return {key: str(value)[:SHOWN] for key, value in values.items()}


def _risks(
    registry: Registry, node: Mapping[str, object] | Sequence[object], prefix: str, group: str, kind: object
) -> Iterator[tuple[str, object]]:
    """Of the settings of the plugin `kind` of a group, and of those inside them."""
    marked = set[str]()
    if group and kind in registry.names(group):
        marked = {f.name for f in fields(registry.load(group, str(kind))) if TRUST in f.metadata}
    for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if (name in marked and value) or _in_any_case(str(name), value):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping | list):
            inner = value.get("kind") if isinstance(value, Mapping) else None
            yield from _risks(registry, value, f"{prefix}{name}.", group, inner)


def _in_any_case(name: str, value: object) -> bool:
    """Whatever plugin reads it."""
    if name in ("plugins_dir", "trust_remote_code"):
        return bool(value)
    if name == "attention" or name.endswith("_implementation"):
        return "/" in str(value)
    return isinstance(value, str) and "${" in value  # a resolver's name may itself be put together
