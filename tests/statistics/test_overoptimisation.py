"""The laws of over-optimisation, and when a run has ended below what it had."""

from __future__ import annotations

from math import e, inf, log

import numpy as np
import pytest

from alignzoo.statistics.frontier import best_of_n_estimate
from alignzoo.statistics.overoptimisation import Fit, Law, fall, fit


def test_the_laws_are_those_of_the_paper() -> None:
    """R(d) = d (alpha - beta log d), which is alpha at d = 1, and d (alpha - beta d); both 0 at the reference."""
    rl, best = Fit(Law.rl, 2.0, 0.5), Fit(Law.best_of_n, 2.0, 0.5)
    assert rl(np.array([0.0, 1.0, e])).tolist() == pytest.approx([0.0, 2.0, e * 1.5])
    assert best(np.array([0.0, 1.0, 3.0])).tolist() == pytest.approx([0.0, 1.5, 1.5])


@pytest.mark.parametrize("law", Law)
def test_the_parameters_are_found_again(law: Law) -> None:
    truth = Fit(law, 1.7, 0.6)
    d = np.array([0.0, 0.3, 0.9, 1.8, 3.0])
    found = fit(law, list(zip(d, truth(d), strict=True)))
    assert found is not None and (found.alpha, found.beta) == (pytest.approx(1.7), pytest.approx(0.6))


def test_least_squares_by_hand() -> None:
    """(1, 1), (2, 2), (3, 0) by d alpha - d^2 beta: 14 alpha - 36 beta = 5 and 36 alpha - 98 beta = 9, so alpha = 83 / 38 and
    beta = 27 / 38. At d = 0 the law is 0 whatever they are.
    """
    found = fit(Law.best_of_n, [(1.0, 1.0), (2.0, 2.0), (3.0, 0.0), (0.0, 9.0)])
    assert found is not None and (found.alpha, found.beta) == (pytest.approx(83 / 38), pytest.approx(27 / 38))
    assert fit(Law.best_of_n, [(1.0, 1.0), (1.0, 3.0), (2.0, 2.0)]) is None, "two places are met by any two parameters"


def test_the_peak_is_where_the_derivative_is_zero() -> None:
    """alpha - beta - beta log d = 0, and alpha - 2 beta d = 0."""
    assert Fit(Law.rl, 2.0, 1.0).peak == pytest.approx(e)
    assert log(Fit(Law.rl, 2.0, 0.5).peak) == pytest.approx(3.0)
    assert Fit(Law.best_of_n, 2.0, 0.5).peak == pytest.approx(2.0)
    assert Fit(Law.best_of_n, -1.0, 0.5).peak == 0.0, "it falls from the start"
    assert Fit(Law.rl, 2.0, 0.0).peak == inf and Fit(Law.best_of_n, 2.0, -0.1).peak == inf
    for law in Law:
        one = Fit(law, 1.3, 0.8)
        top, *beside = (float(one(np.array([one.peak + step]))[0]) for step in (0.0, -1e-3, 1e-3))
        assert all(top > other for other in beside)


def way(*means: float, spread: float = 0.1) -> np.ndarray:
    """Scores of 32 prompts at each evaluation: half above the mean, half below, otherwise at every evaluation."""
    noise = np.tile(np.repeat([spread, -spread], 16), (len(means), 1))
    noise = np.random.default_rng(0).permuted(noise, axis=1)
    return np.array(means)[:, None] + noise


def test_a_fall_is_from_the_highest_evaluation_to_the_last() -> None:
    found = fall(way(0.0, 1.0, 0.4), way(0.0, 1.0, 3.0))
    assert found is not None and found.best == 1 and found.shown
    assert (found.lost, found.gained) == (pytest.approx(0.6), pytest.approx(2.0))
    assert found.lost_interval[0] < 0.6 < found.lost_interval[1] < 0.7
    assert fall(way(0.0, 0.5, 1.0), way(0.0, 1.0, 3.0)) is None, "it ends at its highest"


def test_no_fall_is_shown_within_the_noise_or_where_the_proxy_fell_too() -> None:
    within = fall(way(0.0, 1.0, 0.95, spread=1.0), way(0.0, 1.0, 3.0))
    both = fall(way(0.0, 1.0, 0.4), way(0.0, 3.0, 1.0))
    assert within is not None and within.lost > 0 and not within.shown
    assert both is not None and both.lost_interval[0] > 0 and not both.shown


def test_the_choice_of_the_highest_is_paid_for() -> None:
    """The same two evaluations among ten: Student's t at 0.05 / 9 instead of 0.05, so a wider interval."""
    two = fall(way(1.0, 0.9)[[0, 1]], way(1.0, 2.0))
    many = np.concatenate([way(1.0)[[0]], np.tile(way(0.0)[[0]], (8, 1)), way(1.0, 0.9)[[1]]])
    ten = fall(many, np.concatenate([way(1.0)[[0]], np.tile(way(1.0)[[0]], (8, 1)), way(1.0, 2.0)[[1]]]))
    assert two is not None and ten is not None
    widths = [one.lost_interval[1] - one.lost_interval[0] for one in (two, ten)]
    assert widths[1] > 1.2 * widths[0]


def test_best_of_n_by_a_proxy_is_that_proxy_s_choice() -> None:
    """Of two samples, the proxy takes the worse one of the first prompt and the better one of the second."""
    gold, proxy = np.array([[0.0, 1.0], [2.0, 4.0]]), np.array([[5.0, 3.0], [1.0, 2.0]])
    chosen = best_of_n_estimate(gold, (1, 2), chosen_by=proxy)
    assert [point["reward"] for point in chosen] == [pytest.approx(1.75), pytest.approx(2.0)]
    assert [point["reward"] for point in best_of_n_estimate(gold, (1, 2))] == [pytest.approx(1.75), pytest.approx(2.5)]
