"""Names say what a thing is: locals are no pronouns, a class has a name of its own, and types are more than `Any`."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

CORE = Path(__file__).parents[2] / "alignzoo"
TREES = {path.relative_to(CORE).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(CORE.rglob("*.py"))}
PRONOUNS = {"found", "made", "said", "own", "given", "known", "asked", "told", "one", "other", "others", "theirs", "mine"}
MOST_PRONOUNS = 0.02  # of functions
MOST_ANY = 12  # a thousand lines


def bound(function: ast.AST) -> set[str]:
    """The names that are assigned inside, loop variables and those of comprehensions included."""
    return {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def test_a_local_says_what_it_is() -> None:
    functions = [
        (f"{file}:{node.lineno} {node.name}", node)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    vague = [f"{place}: {', '.join(names)}" for place, node in functions if (names := sorted(bound(node) & PRONOUNS))]
    assert len(vague) <= MOST_PRONOUNS * len(functions), "\n".join(vague)


def test_a_class_has_a_name_of_its_own() -> None:
    names = Counter(node.name for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_types_say_what_is_taken_and_given() -> None:
    texts = {file: (CORE / file).read_text("utf-8") for file in TREES}
    uses = {file: len(re.findall(r"\bAny\b", text)) for file, text in texts.items()}
    lines = sum(text.count("\n") for text in texts.values())
    worst = sorted(uses.items(), key=lambda item: -item[1])[:10]
    assert sum(uses.values()) <= MOST_ANY * lines / 1000, worst
