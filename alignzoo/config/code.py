"""The code that a run's settings name: that of its plugins, of what they are made of, and of a reward's function."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from alignzoo.common import fingerprint, imports, trees
from alignzoo.config import handed
from alignzoo.config.registry import ALIASES, GROUPS, METRIC, SAMPLER, Registry
from alignzoo.settings import LOOPS

CALLABLE = re.compile(r"([A-Za-z_][\w.]*)[:.][A-Za-z_]\w*")


def code(settings: fingerprint.Items) -> dict[str, str]:
    """{file: SHA-256} of the source of each plugin, part, metric and function that a run's settings name, with what they import
    of their own package; and of the code that a model brings. Files are named from their package, or folder, on."""
    registry = Registry(settings.get("plugins_dir"))
    files: dict[str, str] = {}
    for group in GROUPS:
        if choice := settings["choices"].get(group):
            files |= _of_plugin(registry, group, choice) | _of_parts(registry, group, settings[group])
    for name in settings.get("metrics") or ():
        files |= _of_plugin(registry, METRIC, name)
    if (sampler := settings["generation"]["decoding"]) not in LOOPS:
        files |= _of_plugin(registry, SAMPLER, sampler)
    model = settings["model"]
    if model.get("trust_remote_code") and model.get("path"):
        folder = Path(model["path"]).expanduser()
        files |= {f"model.path/{file.relative_to(folder)}": fingerprint.of_file(file) for file in folder.rglob("*.py")}
    return dict(sorted(files.items()))


def of_object(group: str, plugin: object, settings: object) -> dict[str, str]:
    """The same of one plugin of this group that is there already, with these settings."""
    module = type(plugin).__module__
    file = getattr(sys.modules[module], "__file__", None)  # none where it was typed in
    return (_named(module, Path(file)) if file else {}) | _of_parts(Registry(), group, settings)


def _of_parts(registry: Registry, group: str, settings: object) -> dict[str, str]:
    """{file: SHA-256} of the parts that settings name by `kind`, and of the functions that they name."""
    files: dict[str, str] = {}
    for path, text in trees.texts(settings):
        key = path.rpartition(".")[2]
        if key == "kind" and text in registry.names(group):
            files |= _of_plugin(registry, group, text)
        elif ALIASES.get(group, group) == "reward" and key == "path" and not Path(text).exists():
            match = CALLABLE.fullmatch(text)
            file = imports.source_of(match[1], [str(Path.cwd()), *sys.path]) if match else None
            files |= _named(match[1], file) if match and file else {}
    return files


def _of_plugin(registry: Registry, group: str, name: str) -> dict[str, str]:
    plugin = registry.get(group, name)
    return _named(plugin.module, plugin.source) if plugin.source else handed.digest(name)


def _named(module: str, file: Path) -> dict[str, str]:
    folder, package = imports.top(module, file), module.partition(".")[0]
    start = package if "." in module and not package.startswith("alignzoo_local_") else ""
    return {str(Path(start, path.relative_to(folder))): digest for path, digest in imports.sources(module, file).items()}
