"""The files that code is made of, found without importing it, and code imported anew once one of them was edited."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
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


def top(module: str, file: Path) -> Path:
    """The folder of the package that a module is in, or else the module's own."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[max(depth - 1, 0)]


def _closure(module: str, file: Path) -> list[Path]:
    name, root = module.partition(".")[0], top(module, file)
    if name == "alignzoo":
        return [file]
    alone = root == file.parent and module == file.stem
    waiting, seen = [file], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += [p for p in _imports(path, root, "" if alone else name) if p.is_file() and p.is_relative_to(root)]
    return sorted(seen)


def _imports(file: Path, root: Path, name: str) -> Iterator[Path]:
    """Where the files that `file` imports would be; `name` is what its package, `root`, is imported as."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # told when it is imported
        return
    if name:
        yield from (folder / "__init__.py" for folder in file.parents if folder.is_relative_to(root))
    installed = {"site-packages", "dist-packages"} & {*root.parts}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".") if node.module else []
            paths = [parts, *([*parts, alias.name] for alias in node.names)]
            base = file.parents[node.level - 1] if node.level else None
        elif isinstance(node, ast.Import):
            paths, base = [alias.name.split(".") for alias in node.names], None
        else:
            continue
        for parts in paths:
            if base is None and name and parts[:1] == [name]:
                yield from _places(root, parts[1:])
            elif base is not None or not (name or installed or parts[0] == "alignzoo"):
                yield from _places(base or root, parts)


def _places(folder: Path, parts: list[str]) -> Iterator[Path]:
    for count in range(1, len(parts) + 1):
        path = folder.joinpath(*parts[:count])
        yield path / "__init__.py"
    if parts:
        yield folder.joinpath(*parts).with_suffix(".py")
