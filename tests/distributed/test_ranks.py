"""Two ranks do what one process does, and four micro-batches what one does."""

from __future__ import annotations

import json
import runpy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.engine import checkpoint

SCRIPT = Path(__file__).with_name("ranks.py")
CASES = ["ppo", "dpo", "lopsided", "distill", "mixed", "ptx", "refill"]
VOLATILE = {"seconds", "cost/seconds", "cost/flops", "tokens_per_second", "peak_memory"}


@pytest.fixture(scope="module")
def two(torchrun: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """What rank 0 saw, by case; `folder` has the runs, `other` what rank 1 saw."""
    folder = tmp_path_factory.mktemp("ranks") / "two"
    folder.mkdir()
    torchrun(SCRIPT, folder)
    first, other = (torch.load(f"{folder}-rank-{rank}.pt") for rank in (0, 1))
    return first | {"folder": folder, "other": other}


@pytest.fixture(scope="module")
def one(tmp_path_factory: Any) -> dict[str, Any]:
    """One process, micro-batches of 16 and of 4, by (case, micro-batch)."""
    script, folder = runpy.run_path(str(SCRIPT)), tmp_path_factory.mktemp("one")
    runs = {}
    for case, micro in product(CASES, ("auto", "4")):
        (folder / f"{case}-{micro}").mkdir()
        runs[case, micro] = script["run"](case, folder / f"{case}-{micro}", micro)
    return runs | {"folder": folder}


def distance(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Relative L2 distance over all tensors."""
    assert found.keys() == expected.keys()
    flat = [torch.cat([x[name].flatten().double() for name in sorted(expected)]) for x in (found, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by", ["two ranks", "four micro-batches"])
def test_the_first_gradient_and_three_updates(case, by, one, two):
    expected, found = one[case, "auto"], two[case] if by == "two ranks" else one[case, "4"]
    assert distance(found["gradient"], expected["gradient"]) < 1e-5
    assert distance(found["weights"], expected["weights"]) < 1e-6
    start_to_end = distance(expected["final"], expected["weights"])
    assert start_to_end > 1e-4  # the updates are large enough for a difference to show


@pytest.mark.parametrize("case", ["ppo", "distill", "mixed", "ptx", "refill"])
def test_completions_are_those_of_one_process(case, one, two):
    expected, *others = (by_row(run["completions"]) for run in (one[case, "auto"], one[case, "4"], two[case]))
    assert len(expected) >= 2 and len({str(text) for rollout in expected for _, text in rollout}) > 10
    assert others == [expected, expected]


def by_row(rollouts: list[Any]) -> list[Any]:
    """Each rollout's completions in the order of their rows, those of one row as they were sampled."""
    return [sorted(rollout, key=lambda pair: pair[0]) for rollout in rollouts]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_those_of_one_process(case, one, two):
    expected, found = rows(one["folder"] / f"{case}-auto"), rows(two["folder"] / case)
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ours.keys() - VOLATILE:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name
    lines = [
        sorted((folder / "completions.jsonl").read_text().splitlines())
        for folder in (one["folder"] / f"{case}-auto", two["folder"] / case)
    ]
    texts = [[(row["row"], row["completion"]) for row in map(json.loads, side)] for side in lines]
    assert texts[0] == texts[1] and texts[0]
    assert two[case]["summary"].keys() == one[case, "auto"]["summary"].keys()


def test_ranks_share_a_cached_reference(one, two):
    assert (two["folder"] / "cache" / "reference.sqlite").exists()
    for name in ("gradient", "weights", "final"):
        assert distance(two["cached"][name], one["dpo", "auto"][name]) < 1e-5


def test_ranks_agree_and_the_first_alone_writes(two):
    for case in CASES:
        assert all(torch.equal(two["other"][case]["final"][name], weight) for name, weight in two[case]["final"].items())
    assert two["other"]["written"] == []


def test_resuming_is_bit_identical(two):
    straight, resumed = two["ppo"]["final"], two["resumed"]["final"]
    assert all(torch.equal(resumed[name], weight) for name, weight in straight.items())
    stable = [
        [{n: v for n, v in row.items() if n not in VOLATILE} for row in rows(two["folder"] / run)] for run in ("ppo", "resumed")
    ]
    assert stable[0] == stable[1]
    assert two["resumed"]["completions"] == two["ppo"]["completions"][1:]


def test_a_signal_to_one_rank_saves_and_stops_all(two):
    assert two["interrupted"] == {"step": 2, "struck": False}
    assert two["other"]["interrupted"] == {"step": 2, "struck": True}
    assert checkpoint.latest(two["folder"] / "interrupted" / "checkpoints").name == "checkpoint-2"
