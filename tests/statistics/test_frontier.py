from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alignzoo.data.exact.optimum import exact_curves
from alignzoo.statistics.frontier import area, best_of_n_bound, best_of_n_estimate, envelope, reward_at

ORIGIN = (0.0, 0.0)


def test_envelope_keeps_what_no_mixture_beats():
    """(1.5, 0.9) lies below (1, 1), (0.5, 0.4) below the line from the origin to (1, 1), (3, 1.1) is worse than (2, 1.2)."""
    points = [(2.0, 1.2), (3.0, 1.1), (0.5, 0.4), ORIGIN, (1.0, 1.0), (1.5, 0.9)]
    assert envelope(points) == [ORIGIN, (1.0, 1.0), (2.0, 1.2)]


def test_envelope_of_ties_and_nothing():
    assert envelope([(1.0, 1.0), (1.0, 2.0), (1.0, 2.0)]) == [(1.0, 2.0)]
    assert envelope([]) == []


def test_reward_at_a_kl():
    points = [ORIGIN, (1.0, 1.0), (2.0, 1.2)]
    assert reward_at(points, 0.5) == 0.5
    assert reward_at(points, 1.5) == pytest.approx(1.1)
    assert reward_at(points, 9.0) == 1.2
    assert reward_at([(1.0, 1.0)], 0.5) is None
    assert reward_at([], 0.5) is None


def test_area_by_hand():
    """Triangle 0.5 up to KL 1, then 1 up to KL 2: 1.5 / 2. A shift of all rewards is no gain."""
    assert area([ORIGIN, (1.0, 1.0)], 2.0) == pytest.approx(0.75)
    assert area([(0.0, 5.0), (1.0, 6.0)], 2.0) == pytest.approx(0.75)
    assert area([ORIGIN, (2.0, 2.0)], 1.0) == pytest.approx(0.5)


def test_area_needs_the_reference():
    assert area([(0.5, 1.0)], 2.0) is None
    assert area([ORIGIN], 0.0) is None


def test_best_of_n_bound():
    assert best_of_n_bound(1) == 0.0
    assert best_of_n_bound(4) == pytest.approx(math.log(4) - 0.75)


def test_best_of_n_estimate_by_hand():
    """Largest of two of 1, 2, 4: (2 + 4 + 4) / 3; of all three: 4. n = 4 can't be had from three."""
    curve = best_of_n_estimate(np.array([[4.0, 1.0, 2.0]]), counts=[1, 2, 3, 4])
    assert [point["reward"] for point in curve] == pytest.approx([7 / 3, 10 / 3, 4.0])
    assert [point["kl"] for point in curve] == pytest.approx([best_of_n_bound(n) for n in (1, 2, 3)])


@pytest.fixture
def curves():
    reference = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    return exact_curves(
        reference, torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64), counts=(1, 2, 4), betas=(10.0, 1.0, 0.1)
    )


def test_exact_best_of_n_by_hand(curves):
    """Best of two: .25, .3125, .4375; reward .3125 + 2 * .4375."""
    best = {2: [0.25, 0.3125, 0.4375]}[2]
    kl = sum(p * math.log(p / q) for p, q in zip(best, [0.5, 0.25, 0.25], strict=True))
    assert curves["best_of_n"][0] == {"n": 1, "kl": pytest.approx(0, abs=1e-12), "reward": 0.75}
    assert curves["best_of_n"][1] == {"n": 2, "kl": pytest.approx(kl), "reward": pytest.approx(1.1875)}
    assert all(point["kl"] < best_of_n_bound(point["n"]) for point in curves["best_of_n"][1:])


def test_exact_optimum_by_hand(curves):
    """pi* at beta = 1 is in proportion to .5, .25 e, .25 e^2."""
    weights = [0.5, 0.25 * math.e, 0.25 * math.e**2]
    optimum = [w / sum(weights) for w in weights]
    found = curves["optimum"][1]
    assert found["reward"] == pytest.approx(optimum[1] + 2 * optimum[2])
    assert found["kl"] == pytest.approx(found["reward"] - math.log(sum(weights)))


def test_nothing_is_above_the_optimal_frontier(curves):
    optimum = [(p["kl"], p["reward"]) for p in curves["optimum"]]
    assert envelope([(0.0, curves["reference"]), *optimum]) == [(0.0, curves["reference"]), *optimum]
    dense = exact_curves(
        torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log(), torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    )
    line = [(0.0, dense["reference"]), *((p["kl"], p["reward"]) for p in dense["optimum"])]
    assert all(p["reward"] <= reward_at(line, p["kl"]) + 1e-3 for p in dense["best_of_n"])
