"""Values that come from the environment, such as `${oc.env:TOKEN}`: known in memory, and written as they were given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

SHOWN = "label"  # by which runs are called wherever they are shown


def resolve(cfg: DictConfig) -> None:
    """Every interpolation becomes its value, but for texts that the environment has a part in: files would have them."""
    kept = [(node, key, text) for node, key, text in _interpolations(cfg) if key != SHOWN and _secret(node, key)]
    OmegaConf.resolve(cfg)
    for node, key, text in kept:
        node[key] = text


def _interpolations(node: Any) -> Iterator[tuple[Any, Any, str]]:
    """(mapping or list, key in it, text)."""
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        inner = node._get_node(key)
        if OmegaConf.is_interpolation(node, key):
            yield node, key, inner._value()
        elif isinstance(inner, Container):
            yield from _interpolations(inner)


def _secret(node: Any, key: Any) -> bool:
    """Whether the environment was read for the value, which is a text, or holds some."""
    with _watched() as read:
        value = node[key]
        if isinstance(value, Container):
            OmegaConf.to_container(value, resolve=True)
    return bool(read) and isinstance(value, str | Container)


@contextmanager
def _watched() -> Iterator[list[str]]:
    """The names of the variables that are read."""
    read = list[str]()

    def env(name: str, *default: Any) -> Any:
        read.append(name)
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield read
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
