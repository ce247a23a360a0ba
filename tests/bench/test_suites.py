"""The suites that come with alignzoo, and those of benchmarks/claims: each can be run, and can carry what it is to claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.bench.plan import Run, conditions, plan
from alignzoo.bench.request import Request, parse
from alignzoo.config import instantiate
from alignzoo.engine import budget
from alignzoo.evaluation.comparison import seeds_needed

ROOT = Path(__file__).parents[2]
SHIPPED = ("exact", "exact-noisy", "exact-hard", "frontier", "budget", "trl")
PAIRED = ("dpo", "trl_dpo")  # a row is two completions
CLAIMS = ("identical", "halved")


def asked(name: str) -> Request:
    own = ROOT / "benchmarks" / "claims" / f"{name}.yaml"
    return parse([f"suite={own if name in CLAIMS else name}", "folder=here"])


def test_every_suite_is_listed_here() -> None:
    """A new one is held to the same."""
    assert {path.stem for path in (ROOT / "conf" / "suite").glob("*.yaml")} == set(SHIPPED)
    assert {path.stem for path in (ROOT / "benchmarks" / "claims").glob("*.yaml")} == set(CLAIMS)


@pytest.mark.parametrize("name", [*SHIPPED, *CLAIMS])
def test_enough_seeds_for_a_claim_under_every_condition(name: str) -> None:
    """All comparisons of a report are one family of tests."""
    request = asked(name)
    count = len(request.algorithms)
    pairs = len(request.suite.planned) or count * (count - 1) // 2
    assert len(request.seeds) >= seeds_needed(pairs * len(conditions(request)))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_run_can_meet_its_budget_exactly_like_the_others(name: str) -> None:
    """All in samples; no rollout or step larger than a twentieth of the budget, or its learning rate has no schedule to speak
    of, but where the budget itself is what varies."""
    for run in _of_one_seed(asked(name)):
        setup = instantiate(run.config)
        budget.check(setup)
        assert setup.budget.unit.value == "samples"
        step = 2 * setup.trainer.batch if run.algorithm in PAIRED else setup.rollout.prompts * setup.rollout.samples
        assert step <= setup.budget.amount / 20 or "budget.amount" in run.point
        if run.algorithm in PAIRED:
            assert 2 * setup.data.rows >= setup.budget.amount


def _of_one_seed(request: Request) -> list[Run]:
    return [run for run in plan(request) if run.seed == request.seeds[0]]


def test_the_noisy_suite_turns_one_screw_at_a_time() -> None:
    found = [(c["data.label_flips"], c["data.reward_noise"]) for c in conditions(asked("exact-noisy"))]
    assert sorted(found) == [(0.0, 0.0), (0.0, 4.0), (0.2, 0.0), (0.4, 0.0)]
