"""A run's trainer is made from finished parts: nobody sets an attribute of it afterwards."""

from __future__ import annotations

import ast
from pathlib import Path

from alignzoo.testing import toys
from alignzoo_plugins.reinforce.reinforce import Reinforce

CORE = Path(__file__).parents[2] / "alignzoo"


def _is_trainer(node: ast.expr) -> bool:
    return getattr(node, "id", getattr(node, "attr", "")) in ("trainer", "flow", "loader")


def _set_from_outside(tree: ast.AST) -> list[int]:
    return [
        node.lineno for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_trainer(node.value)
    ]  # fmt: skip


def test_no_code_sets_an_attribute_of_a_trainer_from_outside() -> None:
    files = [path for path in CORE.glob("**/*.py") if path.parent.name != "config"]  # where `trainer` is a group of settings
    places = {path: _set_from_outside(ast.parse(path.read_text("utf-8"))) for path in files}
    assert {path: lines for path, lines in places.items() if lines} == {}
    assert sorted(_set_from_outside(ast.parse("flow.trainer.keep, x = 1, 2\ntrainer.loader = y"))) == [1, 2]


def test_building_a_run_adds_nothing_to_a_trainer_that_is_made(tmp_path: Path, monkeypatch) -> None:
    from alignzoo.engine import build

    attributes: list[dict[str, object]] = []

    class Watched(build.AlignTrainer):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            attributes.append(dict(vars(self)))

    monkeypatch.setattr(build, "AlignTrainer", Watched)
    trainer = toys.trainer(toys.setup(Reinforce()), tmp_path)
    assert attributes == [vars(trainer)]
