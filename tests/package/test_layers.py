"""Imports go downwards only, one floor a folder; plugins see the public core; what must be light imports nothing heavy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from docs.floors import FLOORS, MARKS, PUBLIC, drawn, svg

ROOT = Path(__file__).parents[2]
FLOOR_OF = {room: number for number, rooms in enumerate(reversed(FLOORS), 1) for room in rooms}
# they answer at once, from names alone
LIGHT = {"__main__", "cli/main", "cli/completion", "pipeline/sweep", "setup", "settings", "errors", "common/fingerprint"}
HEAVY = {"torch", "transformers", "trl", "evaluate", "datasets", "peft", "accelerate"}
LAZY = HEAVY - {"torch", "transformers", "accelerate"}
HOSTED = {"trl": {"trl", "datasets"}}  # what a plugin that hosts another package needs besides


def files(package: Path) -> dict[str, Path]:
    """{path below the package, without .py: file}; a folder's __init__.py stands for the folder. Templates are others' code."""
    paths = {path.relative_to(package): path for path in sorted(package.glob("**/*.py")) if "templates" not in path.parts}
    return {name.with_suffix("").as_posix().removesuffix("__init__").rstrip("/"): path for name, path in paths.items()}


CORE = files(ROOT / "alignzoo")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(tree: ast.AST, package: str, whole: bool = True) -> Iterator[str]:
    """Every name a file in `package` imports, dotted; with `whole` False, only those imported when the file is."""
    for node in ast.walk(tree) if whole else _outside_functions(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            start = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        unseen = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not unseen and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


def graph(modules: dict[str, Path], package: str) -> dict[str, set[str]]:
    """{file: the files of the package that it imports, wherever in it}."""
    edges: dict[str, set[str]] = {}
    for name, path in modules.items():
        home = ".".join([package, *path.parent.parts[len(path.parent.parts) - _depth(name, path) :]])
        inside = [n.split(".")[1:] for n in imports(parsed(path), home) if n.split(".")[0] == package]
        targets = ("/".join(parts) if "/".join(parts) in modules else "/".join(parts[:-1]) for parts in inside)
        edges[name] = {target for target in targets if target not in (name, "")}
    return edges


def _depth(name: str, path: Path) -> int:
    """How many folders below the package a file lies."""
    return len(name.split("/")) - (path.name != "__init__.py") if name else 0


def room(name: str, modules: dict[str, Path]) -> str:
    """A folder, or a file beside the folders."""
    return name if modules[name].name == "__init__.py" or "/" not in name else name.rpartition("/")[0]


def upward(modules: dict[str, Path], floors: dict[str, int], package: str = "alignzoo") -> set[tuple[str, str]]:
    """(file, file it imports) wherever that isn't on a lower floor, nor in the same folder."""
    edges = ((name, target) for name, targets in graph(modules, package).items() for target in targets)
    return {
        (name, target) for name, target in edges
        if room(name, modules) != room(target, modules) and floors[room(name, modules)] <= floors[room(target, modules)]
    }  # fmt: skip


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The first circle there is, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_stands_on_one_floor() -> None:
    rooms = {room(name, CORE) for name in CORE} - {""}
    assert sorted(room for rooms in FLOORS for room in rooms) == sorted(rooms)


def test_a_room_imports_from_lower_floors_only() -> None:
    assert upward(CORE, FLOOR_OF) == set()


def test_no_files_import_each_other() -> None:
    assert circle(graph(CORE, "alignzoo")) == []


def test_no_rooms_import_each_other() -> None:
    edges: dict[str, set[str]] = {}
    for name, targets in graph(CORE, "alignzoo").items():
        edges.setdefault(room(name, CORE), set()).update(room(t, CORE) for t in targets if room(t, CORE) != room(name, CORE))
    assert circle(edges) == []


def test_the_core_knows_no_plugin() -> None:
    named = {name for name, path in CORE.items() for used in imports(parsed(path), "") if used.startswith("alignzoo_plugins")}
    assert named == set()


PLUGINS = {folder.name: files(folder) for folder in sorted((ROOT / "plugins").iterdir()) if [*folder.glob("*.py")]}


@pytest.mark.parametrize("family", PLUGINS)
def test_plugins_import_the_public_core_torch_and_their_own_files(family: str) -> None:
    modules = PLUGINS[family]
    for path in modules.values():
        tree = parsed(path)
        core = {name for name in imports(tree, "itself") if name.split(".")[0] == "alignzoo"}
        assert {name for name in core if name.split(".")[1] not in PUBLIC} == set()
        assert not {name for name in imports(tree, "itself") if name.startswith("alignzoo_plugins")}
        allowed = {"torch", *HOSTED.get(family, ())}
        assert {name.split(".")[0] for name in imports(tree, "itself")} & (HEAVY - allowed) == set()
        assert {name.split(".")[0] for name in imports(tree, "itself", whole=False)} & LAZY == set()
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        assert set(levels) <= {1}, "a plugin imports nothing from another plugin's folder"
    assert circle(graph(modules, family)) == []


@pytest.mark.parametrize("name", sorted(LIGHT | {name for name in CORE if name.startswith("config/")}))
def test_what_only_knows_names_imports_nothing_heavy(name: str) -> None:
    used = {used.split(".")[0] for used in imports(parsed(CORE[name]), "", whole=False)}
    assert used & HEAVY == set()


@pytest.mark.parametrize("name", CORE)
def test_heavy_packages_are_imported_where_they_are_used(name: str) -> None:
    used = {used.split(".")[0] for used in imports(parsed(CORE[name]), "", whole=False)}
    assert used & LAZY == set()


def test_the_page_shows_the_floors_there_are() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert MARKS[0] in page and page == drawn(page), "python docs/floors.py draws them anew"
    assert (ROOT / "docs/architecture.svg").read_text("utf-8") == svg()


@pytest.fixture
def house(tmp_path: Path) -> dict[str, Path]:
    """attic/ above cellar/ and its neighbour shed.py, clean as it stands."""
    texts = {
        "attic/__init__.py": "", "attic/a.py": "from house.cellar import c\nfrom house.attic.b import x",
        "attic/b.py": "import house.shed", "cellar/__init__.py": "", "cellar/c.py": "", "shed.py": "",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text)
    return files(tmp_path / "house")


@pytest.mark.parametrize(
    ("name", "text", "seen", "ring"),
    [
        ("cellar/c", "", set(), []),
        ("cellar/c", "def f():\n    from house.attic import a", {("cellar/c", "attic/a")}, ["attic/a", "cellar/c", "attic/a"]),
        ("cellar/c", "def f():\n    from ..attic import a", {("cellar/c", "attic/a")}, ["attic/a", "cellar/c", "attic/a"]),
        ("cellar/c", "import house.shed", {("cellar/c", "shed")}, []),
        ("shed", "from house import cellar", {("shed", "cellar")}, []),
        ("attic/b", "class B:\n    from house.attic.a import y", set(), ["attic/a", "attic/b", "attic/a"]),
        ("attic/__init__", "from house.attic.a import main", set(), []),
    ],
)
def test_the_rule_sees(house: dict[str, Path], name: str, text: str, seen: set[tuple[str, str]], ring: list[str]) -> None:
    """Imports in functions and classes, relative ones, and neighbours on one floor."""
    (house["shed"].parent / f"{name}.py").write_text(text)
    assert upward(house, {"attic": 2, "cellar": 1, "shed": 1}, "house") == seen
    found = circle(graph(house, "house"))
    assert found in (ring, ring[::-1])
