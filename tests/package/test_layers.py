"""Imports go downwards only, plugins see the public core alone, and what must be light imports nothing heavy."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the top down. A module imports from lower rows, and from its own.
ROWS: list[set[str]] = [
    {"cli", "__main__"},
    {"plugins_command", "doctor"},
    {"bench"},
    {"against"},
    {"sample", "multirun", "testing", "pytest_plugin", "scaffold"},
    {"run", "pipeline", "completion"},
    {"engine", "making", "config", "config_errors", "stages", "catalogue", "console", "report"},
    {"models", "data", "rewards", "evaluation", "registry", "label"},
    {"declared"},
    {"contracts"},
    {"batch"},
    {"functional", "settings", "errors", "common", "overrides", "__init__"},
]
ROW_OF = {name: number for number, names in enumerate(ROWS) for name in names}
PUBLIC = {"alignzoo", "alignzoo.contracts", "alignzoo.batch", "alignzoo.functional", "alignzoo.settings"}
NAMES_ONLY = {
    "config",
    "config_errors",
    "registry",
    "declared",
    "catalogue",
    "completion",
    "cli",
    "multirun",
    "stages",
    "overrides",
}
HEAVY = {"torch", "transformers", "trl", "evaluate", "datasets", "peft", "accelerate"}
LAZY = HEAVY - {"torch", "transformers", "accelerate"}
HOSTED = {"trl": {"trl", "datasets"}}  # what a plugin that hosts another package needs besides


def core() -> list[Path]:
    return sorted((ROOT / "alignzoo").glob("**/*.py"))


def layer(path: Path) -> str:
    return path.relative_to(ROOT / "alignzoo").parts[0].removesuffix(".py")


def imports(tree: ast.AST, whole: bool = True) -> Iterator[str]:
    """Every absolute name a file imports; with `whole` False, only those imported when the file is."""
    nodes = ast.walk(tree) if whole else _outside_functions(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("path", core(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_downwards_only(path: Path) -> None:
    own = layer(path)
    assert own in ROW_OF, f"{own} has no row: say where it belongs"
    names = [name.split(".") for name in imports(parsed(path)) if name.startswith("alignzoo.")]
    used = {parts[1] for parts in names if parts[1] in ROW_OF}
    assert {name for name in used if ROW_OF[name] < ROW_OF[own]} == set()


def test_the_core_knows_no_plugin() -> None:
    named = {str(path) for path in core() for name in imports(parsed(path)) if name.startswith("alignzoo_plugins")}
    assert named == set()


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*/*.py")), ids=lambda path: path.stem)
def test_plugins_import_the_public_core_torch_and_their_own_files(path: Path) -> None:
    tree = parsed(path)
    used = {name for name in imports(tree) if name.startswith("alignzoo")}
    assert {name for name in used if name.rpartition(".")[0] not in PUBLIC} == set()
    allowed = {"torch", *HOSTED.get(path.parent.name, ())}
    assert {name.split(".")[0] for name in imports(tree)} & (HEAVY - allowed) == set()
    assert {name.split(".")[0] for name in imports(tree, whole=False)} & LAZY == set()
    relative = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert set(relative) <= {1}, "a plugin imports nothing from another plugin's folder"


@pytest.mark.parametrize("name", sorted(NAMES_ONLY))
def test_what_only_knows_names_imports_nothing_heavy(name: str) -> None:
    files = [path for path in core() if layer(path) == name]
    used = {found.split(".")[0] for path in files for found in imports(parsed(path), whole=False)}
    assert files and used & HEAVY == set()


@pytest.mark.parametrize("path", core(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    used = {found.split(".")[0] for found in imports(parsed(path), whole=False)}
    assert used & LAZY == set()


def test_the_rule_sees_an_upward_import() -> None:
    tree = ast.parse("def f():\n    from alignzoo.engine import build\n")
    assert list(imports(tree)) == ["alignzoo.engine.build"]
    assert list(imports(tree, whole=False)) == []
    assert ROW_OF["engine"] < ROW_OF["contracts"]
