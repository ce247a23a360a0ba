"""The suites that come with alignzoo, and those of benchmarks/claims: each can be run, and can carry what it is to claim."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from packaging.version import Version

from alignzoo.bench.grid import BenchRun, bench_run, conditions, plan
from alignzoo.bench.request import parse
from alignzoo.bench.suite import Request
from alignzoo.config import compose, instantiate
from alignzoo.engine import budget
from alignzoo.statistics.comparison import seeds_needed

ROOT = Path(__file__).parents[2]
SHIPPED = ("exact", "exact-noisy", "exact-hard", "frontier", "budget", "trl")
PAIRED = ("dpo", "trl_dpo")  # a row is two completions
CLAIMS = ("identical", "halved", "discriminator", "variants", "semi_online", "refill")
SURVEY = ("zoo",)  # too many for claims: intervals, and the report says so
TEXT = ("chat", "overoptimisation", "sentiment")  # on models of text: fewer seeds than a claim needs, and the report says so


def asked(name: str) -> Request:
    own = ROOT / "benchmarks" / "claims" / f"{name}.yaml"
    return parse([f"suite={own if name in CLAIMS else name}", "folder=here"])


def test_every_suite_is_listed_here() -> None:
    """A new one is held to the same."""
    assert {path.stem for path in (ROOT / "conf" / "suite").glob("*.yaml")} == {*SHIPPED, *SURVEY, *TEXT}
    assert {path.stem for path in (ROOT / "benchmarks" / "claims").glob("*.yaml")} == set(CLAIMS)


@pytest.mark.parametrize("name", [*SHIPPED, *CLAIMS])
def test_enough_seeds_for_a_claim_under_every_condition(name: str) -> None:
    """All comparisons of a report are one family of tests."""
    request = asked(name)
    count = len(request.algorithms)
    pairs = len(request.suite.planned) or count * (count - 1) // 2
    assert len(request.seeds) >= seeds_needed(pairs * len(conditions(request)))


@pytest.mark.parametrize("name", [*SHIPPED, *SURVEY])
def test_every_run_can_meet_its_budget_exactly_like_the_others(name: str) -> None:
    """All in samples; no rollout or step larger than a twentieth of the budget, or its learning rate has no schedule to speak
    of, but where the budget itself is what varies."""
    if name == "trl" and Version(version("transformers")) < Version("5.19"):
        pytest.skip("TRL's trainers need transformers 5.19")
    for run in _of_one_seed(asked(name)):
        setup = instantiate(run.config)
        budget.check(setup)
        assert setup.budget.unit.value == "samples"
        step = 2 * setup.trainer.batch if run.algorithm in PAIRED else setup.rollout.prompts * setup.rollout.samples
        assert step <= setup.budget.amount / 20 or "budget.amount" in run.point
        if run.algorithm in PAIRED:
            assert 2 * setup.data.rows >= setup.budget.amount


def _of_one_seed(request: Request) -> list[BenchRun]:
    return [run for run in plan(request) if run.seed == request.seeds[0]]


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_are_planned_without_a_complaint(name: str) -> None:
    """So do the shipped suites, above; what the report would refuse to compare is a complaint."""
    assert len(_of_one_seed(asked(name))) == len(asked(name).algorithms)


def test_the_noisy_suite_turns_one_screw_at_a_time() -> None:
    found = [(c["data.label_flips"], c["data.reward_noise"]) for c in conditions(asked("exact-noisy"))]
    assert sorted(found) == [(0.0, 0.0), (0.0, 4.0), (0.2, 0.0), (0.4, 0.0)]


@pytest.mark.parametrize("name", TEXT)
def test_runs_on_text_are_compared_by_the_same_judge_on_the_same_prompts(name: str) -> None:
    """Those of one seed; runs of one proxy share its stage, and the ensemble's reward models differ by their seeds alone."""
    request = asked(name)
    runs = {label: bench_run(request, {}, label, 1, {}) for label in request.algorithms}
    found = [run.config for run in runs.values()]
    for key in ("gold", "data", "generation", "model", "choices.gold", "trainer.eval_prompts"):
        assert len({str(OmegaConf.select(cfg, key)) for cfg in found}) == 1, key
    assert found[0].choices.gold != "none"
    assert found[0].model.path == f"alignzoo://{'smollm2' if name == 'chat' else 'stories'}"
    assert all(cfg.trainer.eval_steps > 0 for cfg in found), "the way is shown, not the end alone"
    for run in runs.values():
        instantiate(run.config)
    if name == "overoptimisation":
        _check_proxies(request, runs)


def _check_proxies(request: Request, runs: dict[str, BenchRun]) -> None:
    proxies = {label: [stage.folder for stage in run.stages] for label, run in runs.items()}
    alike = set(proxies) - {"few", "ensemble"}
    assert len({proxies[label][0] for label in alike}) == 1 and len(alike) > 2
    assert proxies["ensemble"][0] == proxies["climb"][0] and len(set(proxies["ensemble"])) == 3
    assert not set(proxies["few"]) & set(proxies["ensemble"])
    models = [compose(stage.overrides) for stage in runs["ensemble"].stages]
    assert [cfg.seed for cfg in models] == [1, 11, 21]
    for key in ("making", "trainer", "gold", "data"):
        assert len({str(cfg[key]) for cfg in models}) == 1
    few = compose(runs["few"].stages[0].overrides).making
    assert few.prompts < models[0].making.prompts and few.seed == models[0].making.seed == 1
    other = bench_run(request, {}, "climb", 2, {})
    assert other.stages[0].folder != proxies["climb"][0]
