"""The code that a run's settings name: that of its plugins, of what they are made of, and of a reward's function."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from alignzoo.common import fingerprint, imports
from alignzoo.config.registry import ALIASES, GROUPS, METRIC, Registry

CALLABLE = re.compile(r"([A-Za-z_][\w.]*)[:.][A-Za-z_]\w*")


def code(settings: Mapping[str, Any]) -> dict[str, str]:
    """{file: SHA-256} of the source of each plugin, part, metric and function that a run's settings name, with what they import
    of their own package; and of the code that a model brings. Files are named from their package, or folder, on."""
    registry = Registry(settings.get("plugins_dir"))
    files: dict[str, str] = {}
    for group in GROUPS:
        choice = settings["choices"].get(group)
        files |= {**_of_plugin(registry, group, choice), **_of_parts(registry, group, settings[group])} if choice else {}
    for name in settings.get("metrics") or ():
        files |= _of_plugin(registry, METRIC, name)
    model = settings["model"]
    if model.get("trust_remote_code") and model.get("path"):
        folder = Path(model["path"]).expanduser()
        files |= {f"model.path/{file.relative_to(folder)}": fingerprint.of_file(file) for file in folder.rglob("*.py")}
    return dict(sorted(files.items()))


def of_object(group: str, plugin: Any, settings: Any) -> dict[str, str]:
    """The same of one plugin of this group that is there already, with these settings."""
    module = type(plugin).__module__
    file = getattr(sys.modules[module], "__file__", None)  # none where it was typed in
    return (_named(module, Path(file)) if file else {}) | _of_parts(Registry(), group, settings)


def _of_parts(registry: Registry, group: str, settings: Any) -> dict[str, str]:
    """{file: SHA-256} of the parts that settings name by `kind`, and of the functions that they name."""
    files: dict[str, str] = {}
    for key, text in _texts(settings):
        if key == "kind" and text in registry.names(group):
            files |= _of_plugin(registry, group, text)
        elif ALIASES.get(group, group) == "reward" and key == "path" and (match := CALLABLE.fullmatch(text)):
            module = match[1]
            if (file := _file(module)) and not Path(text).exists():
                files |= _named(module, file)
    return files


def _of_plugin(registry: Registry, group: str, name: str) -> dict[str, str]:
    plugin = registry.get(group, name)
    return _named(plugin.module, plugin.source) if plugin.source else {}


def _named(module: str, file: Path) -> dict[str, str]:
    folder, package = imports.top(module, file), module.partition(".")[0]
    start = package if "." in module and not package.startswith("alignzoo_local_") else ""
    return {str(Path(start, path.relative_to(folder))): digest for path, digest in imports.sources(module, file).items()}


def _file(module: str) -> Path | None:
    """Of a module in the current folder or installed, not imported: looked for part by part."""
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    spec, whole = None, ""
    for part in module.split("."):
        whole = f"{whole}.{part}".lstrip(".")
        spec = PathFinder.find_spec(whole, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.origin else None


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every text in settings."""
    if isinstance(node, str):
        yield key, node
    items = node.items() if isinstance(node, Mapping) else ((key, value) for value in node) if isinstance(node, list) else ()
    for name, value in items:
        yield from _texts(value, str(name))
