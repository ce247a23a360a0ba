"""What other frameworks compute is what the page says; TRL's own trainers are in tests/functional/test_trl.py."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.agreement import __main__ as command
from benchmarks.agreement.cells import ON_POLICY, PAIRS, TRL, Cell
from tests.functional import test_trl

STORED = [command.Row(**row) for row in json.loads((command.RESULTS / "results.json").read_text("utf-8"))]


def test_the_page_is_of_the_results() -> None:
    assert (command.RESULTS / "README.md").read_text("utf-8") == command.page(STORED)


@pytest.mark.parametrize("cell", PAIRS + ON_POLICY, ids=lambda cell: f"{cell.algorithm}-{cell.framework}")
def test_a_formula_is_as_far_from_ours_as_the_page_says(cell: Cell) -> None:
    row = command.measured(cell)
    (stored,) = [other for other in STORED if (other.algorithm, other.framework) == (cell.algorithm, cell.framework)]
    assert row.text == stored.text


def test_every_row_is_measured() -> None:
    cells = {(cell.algorithm, cell.framework) for cell in PAIRS + ON_POLICY} | {(name, "TRL") for name in TRL}
    assert {(row.algorithm, row.framework) for row in STORED} == cells and len(STORED) == len(cells)


def test_trls_column_names_tests_that_are_there() -> None:
    tables = {
        "test_losses_on_pairs": test_trl.PAIRED, "test_grpo": test_trl.GROUPED | test_trl.SURROGATES,
        "test_losses_on_pairs_without_a_reference": ("cpo", "simpo"), "test_kto": ("kto", "apo_zero_unpaired", "kto_trl"),
        "test_dpo": ("0.1",), "test_sft": ("nll", "dft"), "test_generalised_jsd": ("0.5",), "test_self_distillation": ("0.3",),
    }  # fmt: skip
    defined = {
        node.name for node in ast.walk(ast.parse(Path(test_trl.__file__).read_text())) if isinstance(node, ast.FunctionDef)
    }
    for test in TRL.values():
        name, _, case = test.removesuffix("]").partition("[")
        assert name in defined and (not case or case in tables[name]), test


def test_a_cell_that_says_what_is_not_so_is_refused() -> None:
    same, other = PAIRS[0], next(cell for cell in PAIRS if cell.undone)
    with pytest.raises(ValueError, match="said to differ by the weather"):
        command.measured(replace(same, differs="the weather"))
    with pytest.raises(ValueError, match="said to differ by nothing"):
        command.measured(replace(other, differs=""))
    with pytest.raises(ValueError, match="apart without"):
        command.measured(replace(other, undone=other.theirs))
