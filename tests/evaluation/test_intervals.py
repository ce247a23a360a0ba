from __future__ import annotations

import math

import numpy as np
import pytest

from alignzoo.evaluation.intervals import interquartile_mean, mean_interval, summarize


def test_without_skew_it_is_students_interval():
    """1, 2, 3: mean 2, s = 1, t(.975, 2) = 4.302653, so 2 -+ 4.302653 / sqrt(3)."""
    half = 4.302653 / math.sqrt(3)
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_hall_by_hand():
    """0, 0, 0, 0, 1: mean .2, s = sqrt(.2), error .2; skewness (.8^3 - 4 * .2^3) / 5 / .4^3 = 1.5, k = .670820; q = 2.776445.
    1 + k (q - k / 6) = 2.787495, cube root 1.407322, T = 1.821656; 1 + k (-q - k / 6) = -.937495, cube root -.978718,
    T = -8.849081: from .2 - .2 * 1.8217 to .2 + .2 * 8.8491.
    """
    assert mean_interval([0.0, 0.0, 0.0, 0.0, 1.0]) == pytest.approx((-0.164331, 1.969816), abs=1e-4)


def test_the_long_side_is_where_the_stray_seed_is():
    low, high = mean_interval([0.9, 0.91, 0.92, 0.91, 0.6])
    mean = (0.9 + 0.91 + 0.92 + 0.91 + 0.6) / 5
    assert mean - low > 2 * (high - mean) > 0


def test_it_moves_and_scales_with_the_scores():
    scores = np.array([0.2, 0.5, 0.1, 0.9, 0.4])
    low, high = mean_interval(scores)
    assert mean_interval(3 * scores + 1) == pytest.approx((3 * low + 1, 3 * high + 1))
    assert mean_interval(-scores) == pytest.approx((-high, -low))


@pytest.mark.parametrize("count", [2, 5, 10, 30])
def test_identical_scores_have_no_width(count):
    assert mean_interval([0.1] * count) == (pytest.approx(0.1), pytest.approx(0.1))
    low, high = mean_interval([0.1] * count)
    assert high == low


def test_one_seed_has_a_mean_and_a_reason():
    found = summarize([0.7])
    assert (found.mean, found.interval, found.count) == (0.7, None, 1)
    assert "one seed" in found.reason
    with pytest.raises(ValueError, match="one seed"):
        mean_interval([0.7])


def test_summary():
    found = summarize([1.0, 2.0, 3.0])
    assert (found.mean, found.count, found.reason) == (2.0, 3, "")
    assert found.interval == (found.low, found.high) == mean_interval([1.0, 2.0, 3.0])


def test_what_has_no_mean():
    with pytest.raises(ValueError, match="no scores"):
        summarize([])
    with pytest.raises(ValueError, match="not finite"):
        summarize([1.0, math.nan])


def test_interquartile_mean_drops_a_quarter_at_each_end():
    """Of eight, two at each end go: (3 + 4 + 5 + 6) / 4."""
    assert interquartile_mean([100.0, 2, 3, 4, 5, 6, 7, -50]) == 4.5


GAPS = {
    "normal": (lambda g, size: g.normal(0.9, 0.02, size), 0.9),
    "skewed": (lambda g, size: g.beta(8, 2, size), 0.8),
    "more skewed": (lambda g, size: 1 - 0.02 * g.gamma(4, 1, size), 0.92),
}


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_95_percent_intervals_hold_93_to_97_times_of_100(name, seeds):
    draw, mean = GAPS[name]
    samples = draw(np.random.default_rng(0), (4000, seeds))  # standard error of the share: 0.35 points
    held = np.mean([low <= mean <= high for low, high in map(mean_interval, samples)])
    assert 0.93 <= held <= 0.97
