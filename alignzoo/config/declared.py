"""What a plugin's files say of it, read without importing it: its contract, its version of it, its fields, its card."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import yaml

# A local file belongs to the groups whose contracts its classes name as bases.
BASES = {
    "Algorithm": "algorithm", "OnlineAlgorithm": "algorithm", "TrainerPlugin": "algorithm", "Reward": "reward",
    "Reference": "reference", "Sampler": "sampler", "Source": "data", "RowSource": "data",
}  # fmt: skip


@dataclass(frozen=True)
class Card:
    """What a plugin says of itself: the front matter of its card, else the first line of its class's docstring."""

    summary: str = ""
    family: str = ""
    needs: list[str] = field(default_factory=list)
    data: str = ""
    paper: str = ""
    text: str = ""


def groups(path: Path) -> list[str]:
    """The groups that a local file has plugins for; a file that can't be told is taken for an algorithm, so that loading it
    says what is wrong."""
    tree = _parsed(path)
    group_of = dict(BASES)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = (ast.unparse(base).rpartition(".")[2] for base in node.bases)
            if group := next((group_of[base] for base in bases if base in group_of), None):
                group_of[node.name] = group
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name in group_of]
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return list(dict.fromkeys(group_of[name] for name in names)) or ["metric" if path.stem in functions else "algorithm"]


def api_version(path: Path | None, attribute: str | None) -> str | None:
    """The contract's version that a plugin states as `api_version = "..."`, in its class or its file; None: any."""
    bodies = [_parsed(path).body, *(node.body for node in classes(path, attribute))]
    for node in (node for body in bodies for node in body if isinstance(node, ast.Assign | ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if "api_version" in map(ast.unparse, targets) and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return None


def field_names(path: Path | None, attribute: str | None) -> list[str]:
    """The settings that the plugin's own class declares."""
    annotated = [node for cls in classes(path, attribute) for node in cls.body if isinstance(node, ast.AnnAssign)]
    return [ast.unparse(node.target) for node in annotated if "ClassVar" not in ast.unparse(node.annotation)]


def docstring(path: Path | None, attribute: str | None) -> str:
    """The first line of the docstring of the class or function."""
    wanted = attribute or (path.stem if path else "")
    functions = [node for node in _parsed(path).body if isinstance(node, ast.FunctionDef) and node.name == wanted]
    texts = [*map(ast.get_docstring, classes(path, attribute)), *map(ast.get_docstring, functions)]
    return next((text.splitlines()[0] for text in texts if text), "")


def classes(path: Path | None, attribute: str | None) -> list[ast.ClassDef]:
    """The plugin's class in its file; every class of the file where `attribute` does not say which it is."""
    return [node for node in _parsed(path).body if isinstance(node, ast.ClassDef) and attribute in (None, node.name)]


def read_card(path: Path) -> Card | None:
    """The card in this file, or None where it is none: a file without front matter, or with front matter that can't be read."""
    try:
        text = path.read_text("utf-8")
        _, front, body = text.split("---\n", 2) if text.startswith("---\n") else ("", "", "")
        values = yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(values, dict):
        return None
    needs = values.get("needs") or []
    texts = {key: str(values.get(key, "")) for key in ("summary", "family", "data", "paper")}
    return Card(needs=[str(n) for n in needs] if isinstance(needs, list) else [str(needs)], text=body.strip(), **texts)


def _parsed(path: Path | None) -> ast.Module:
    """Empty where the file can't be read: that is told when the plugin is loaded."""
    try:
        return ast.parse(path.read_text("utf-8") if path else "")
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])
