"""Means and costs, against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from alignzoo.common import account as costs
from alignzoo.common.account import Account, tokens_in
from alignzoo.engine.meters import Meter
from alignzoo.engine.objective import weighted_sum
from alignzoo.testing import toys


def test_means_are_weighted_over_all_that_was_added():
    """(1*1 + 2*3 + 10*2) / (1 + 3 + 2) = 27/6; entries of weight 0 are not read, a name without weight is absent."""
    meter = Meter()
    meter.add("x", torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([1.0, 3.0, 0.0]))
    meter.add("x", 10.0, 2.0)
    meter.add("nothing", torch.tensor([torch.nan]), torch.tensor([0.0]))
    meter.add("mask", torch.tensor([[4.0, 8.0], [1.0, 9.0]]), torch.tensor([[True, False], [True, False]]))
    assert meter.means() == {"x": pytest.approx(4.5), "mask": pytest.approx(2.5)}


def test_shares_of_a_sum_add_up():
    """Two steps of two micro-batches: 0.25 + 0.5 and 1 + 0.25, so the mean of the steps is 1."""
    meter = Meter()
    for share in (0.25, 0.5, 1.0, 0.25):
        meter.add_share("loss", torch.tensor(share), 0.5)
    assert meter.means() == {"loss": pytest.approx(1.0)}


def test_meters_merge_clear_and_come_back():
    one, other = Meter(), Meter()
    one.add("x", 1.0)
    other.add("x", 4.0, 2.0)
    other.add("y", 7.0)
    one.merge(other)
    again = Meter()
    again.load_state_dict(one.state_dict())
    again.add("x", 3.0)
    assert one.means() == {"x": pytest.approx(3.0), "y": 7.0}
    assert again.means() == {"x": pytest.approx(3.0), "y": 7.0}
    assert again.state_dict()["x"] == [12.0, 4.0]
    one.clear()
    assert one.means() == {}


def test_sums_are_in_float64():
    """A thousand times 0.1 after 1e8: float32 would lose them all."""
    meter = Meter()
    meter.add("x", torch.tensor(1e8))
    for _ in range(1000):
        meter.add("x", torch.tensor(0.1))
    assert meter.state_dict()["x"][0] == pytest.approx(1e8 + 100, abs=1e-3)


def test_seconds_go_to_the_innermost_phase(monkeypatch):
    """A clock that says 0, 1, 3, 7, 15 and 31: training has 2 + 8, the rollout in it 4, nobody 1 and 16."""
    clock = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    cost = Account()
    with cost.phase("training"), cost.phase("rollout"):
        pass
    seconds = cost.state_dict()["seconds"]
    assert {name: value for name, value in seconds.items() if value} == {"rollout": 4.0, "training": 10.0, "total": 31.0}


def test_counts_add_up_and_come_back():
    cost, again = Account(), Account()
    cost.count(samples=3, prompt_tokens=5)
    again.load_state_dict(cost.state_dict())
    again.count(samples=4)
    others = ("completion_tokens", "trained_tokens", "labels", "reward_updates")
    assert again.counts == {"samples": 7, "prompt_tokens": 5, **dict.fromkeys(others, 0)}
    assert cost.counts["samples"] == 3


def test_tokens_count_prompts_once_a_completion():
    """Two completions over one prompt: 2 x 4 prompt tokens and the attended ones of each."""
    c = toys.completions([3, 4])
    shared = c.take([0, 0])
    prompt, written = int(c.prompts.attended[0].sum()), int(c.attended[0].sum())
    assert tokens_in(shared) == 2 * (prompt + written)
    assert tokens_in(shared, prompts=False) == 2 * written


def test_a_weighted_sum_reads_nothing_of_weight_0():
    """(1*2 + 3*1) / 10; with nothing to weigh it is 0, not 0/0."""
    term = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    weight = torch.tensor([2.0, 0.0, 1.0])
    total = weighted_sum(term, weight, torch.tensor(10.0))
    total.backward()
    assert total.item() == pytest.approx(0.5)
    assert term.grad.tolist() == pytest.approx([0.2, 0.0, 0.1])
    assert weighted_sum(term, torch.zeros(3), torch.tensor(0.0)).item() == 0.0
