"""Settings as they nest: mappings and lists down to their leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping


def texts(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text; of a list the numbers are keys."""
    if isinstance(node, str):
        yield key, node
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield from texts(value, f"{key}.{name}" if key else str(name))


def changed(node: object, change: Callable[[str], str]) -> object:
    """A copy in which every text is what `change` makes of it."""
    if isinstance(node, Mapping):
        return {key: changed(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [changed(value, change) for value in node]
    return change(node) if isinstance(node, str) else node
