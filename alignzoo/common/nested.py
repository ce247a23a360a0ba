"""Plugins inside a plugin's settings: {kind: NAME, and that plugin's own fields}, checked as those of a config group are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import entry_points
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.errors import UserError, first_line, nearest


def plugin_of(group: str, key: str, part: Mapping[str, Any], ours: Collection[str]) -> Any:
    """The plugin that `part` describes; `ours` are keys that are not its fields. Raises UserError, naming `key`."""
    points = {point.name: point for point in entry_points(group=f"alignzoo.{group}")}
    kind = str(part["kind"])
    if kind not in points:
        named = {"data": "data source"}.get(group, group)
        raise UserError(f"{key}.kind={kind}: no such {named}.{nearest(kind, points)} Available: {', '.join(sorted(points))}")
    settings = {name: value for name, value in part.items() if name not in ours}
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(points[kind].load()), settings))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {first_line(error)}") from error
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
