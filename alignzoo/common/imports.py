"""The files that code is made of, found without importing it, and code imported anew once one of them was edited."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from alignzoo.common.fingerprint import of_file

_imported: dict[str, dict[Path, str]] = {}  # {module: {file: SHA-256}} as they were imported


def sources(module: str, file: Path) -> dict[Path, str]:
    """{file: SHA-256} of a module and of what it imports, directly or not, of its own package, or of its own folder where it is
    in none; as they were imported, where they were. Of alignzoo's own modules the file alone: the rest is its version.
    """
    imported = _imported.get(module, {})  # perhaps of this name in another folder
    return imported if file in imported else {path: of_file(path) for path in _closure(module, file)}


def current(name: str) -> ModuleType:
    """The module as its files are: imported again where one of them was edited since, with all that was made of that file."""
    before = _imported.get(name, {})
    edited = {file for file, digest in before.items() if not file.is_file() or of_file(file) != digest}
    if edited:
        stale = [module for module, parts in _imported.items() if edited & parts.keys()]
        files = {file for module in stale for file in _imported.pop(module)}
        for key, loaded in [*sys.modules.items()]:
            if (origin := getattr(loaded, "__file__", None)) and Path(origin) in files and key != "__main__":
                del sys.modules[key]
                package, _, name_in_it = key.rpartition(".")
                vars(sys.modules.get(package, loaded)).pop(name_in_it, None)  # which `from . import` would find
                if cached := getattr(loaded.__spec__, "cached", None):  # which overlooks an edit within the same second
                    Path(cached).unlink(missing_ok=True)
        importlib.invalidate_caches()
    module = importlib.import_module(name)
    if name not in _imported and module.__file__:
        _imported[name] = sources(name, Path(module.__file__))
    return module


def source_of(module: str, places: list[str] | None = None) -> Path | None:
    """The file of a module, of `places` or else installed. Only its top-level package is looked up, because looking up a
    submodule imports its parents."""
    package, *rest = module.split(".")
    try:
        spec = PathFinder.find_spec(package, places) if places else importlib.util.find_spec(package)
    except (ImportError, ValueError):  # half imported, or not to be found: told when it is loaded
        return None
    if spec is None or not rest:
        return Path(spec.origin) if spec and spec.origin else None
    folders = [Path(place, *rest) for place in spec.submodule_search_locations or []]
    files = [file for folder in folders for file in (folder.with_suffix(".py"), folder / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def top(module: str, file: Path) -> Path:
    """The folder of the package that a module is in, or else the module's own."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[max(depth - 1, 0)]


def _closure(module: str, file: Path) -> list[Path]:
    package, root = module.partition(".")[0], top(module, file)
    if package == "alignzoo":
        return [file]
    if root == file.parent and module == file.stem:
        package = ""  # in none
    waiting, seen = [file], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += [p for p in _imports(path, root, package) if p.is_file() and p.is_relative_to(root)]
    return sorted(seen)


def _imports(file: Path, root: Path, package: str) -> Iterator[Path]:
    """Where the files that `file` imports would be within `root`, which is imported as `package`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # told when it is imported
        return
    here = file.relative_to(root).parent.parts
    if package:
        yield from (root / "__init__.py", *_places(root, here))
    installed = {"site-packages", "dist-packages"} & {*root.parts}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parent = tuple(node.module.split(".")) if node.module else ()
            names, level = [parent, *((*parent, alias.name) for alias in node.names)], node.level
        elif isinstance(node, ast.Import):
            names, level = [tuple(alias.name.split(".")) for alias in node.names], 0
        else:
            continue
        for parts in names:
            if level:
                yield from _places(root, (*here[: len(here) + 1 - level], *parts))
            elif package and parts[0] == package:
                yield from _places(root, parts[1:])
            elif not (package or installed or parts[0] == "alignzoo"):
                yield from _places(root, parts)


def _places(root: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Of a dotted name: the packages on the way, and the module."""
    for count in range(1, len(parts) + 1):
        yield root.joinpath(*parts[:count], "__init__.py")
    if parts:
        yield root.joinpath(*parts).with_suffix(".py")
