"""Values that come from the environment, such as `${oc.env:TOKEN}`: known in memory, and written as they were given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

SHOWN = "label"  # by which runs are called wherever they are shown
Place = tuple[Any, str | int]  # a mapping or list, and the key in it


def resolve(cfg: DictConfig) -> None:
    """Every interpolation becomes its value, but for texts that the environment has a part in: files would have them."""
    kept = [(place, text) for _, place, text in interpolations(cfg) if place[1] != SHOWN and _is_secret(*place)]
    OmegaConf.resolve(cfg)
    for (node, key), text in kept:
        node[key] = text


def interpolations(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, Place, str]]:
    """(dotted key, place, text) of every value that is written as `${...}`."""
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        inner = node._get_node(key)
        if OmegaConf.is_interpolation(node, key):
            yield f"{prefix}{key}", (node, key), str(inner._value())  # type: ignore[union-attr]
        elif isinstance(inner, DictConfig | ListConfig):
            yield from interpolations(inner, f"{prefix}{key}.")


def _is_secret(node: Any, key: str | int) -> bool:
    """Whether the environment is read for the value, which is a text, or holds some."""
    names: list[str] = []

    def env(name: str, *default: str | None) -> str | None:
        names.append(name)
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        value = node[key]
        if isinstance(value, Container):
            OmegaConf.to_container(value, resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    return bool(names) and isinstance(value, str | Container)
