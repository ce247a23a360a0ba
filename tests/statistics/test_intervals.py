from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alignzoo.statistics.intervals import interquartile_interval, interquartile_mean, mean_interval, summarize


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
    assert (found.interquartile_mean, found.interquartile_interval) == (0.7, None)
    for interval in (mean_interval, interquartile_interval):
        with pytest.raises(ValueError, match="one seed"):
            interval([0.7])


def test_summary():
    found = summarize([1.0, 2.0, 3.0])
    assert (found.mean, found.count, found.reason) == (2.0, 3, "")
    assert found.interval == mean_interval([1.0, 2.0, 3.0])
    failed = [0.98, 0.97, 0.99, 0.98, 0.6]
    plain, clipped = summarize(failed), summarize(failed, bounds=(-math.inf, 1.0))
    assert plain.interval[1] > 1 and clipped.interval == (plain.interval[0], 1.0)
    tight = summarize(failed, bounds=(0.9, 0.98))
    assert tight.interval == (0.9, 0.98) and tight.interquartile_interval[1] == 0.98
    assert found.interquartile_mean == 2.0 and found.interquartile_interval == interquartile_interval([1.0, 2.0, 3.0])


def test_what_has_no_mean():
    with pytest.raises(ValueError, match="no scores"):
        summarize([])
    with pytest.raises(ValueError, match="not finite"):
        summarize([1.0, math.nan])


def test_interquartile_mean_drops_a_quarter_at_each_end():
    """Of eight, two at each end go: (3 + 4 + 5 + 6) / 4."""
    assert interquartile_mean([100.0, 2, 3, 4, 5, 6, 7, -50]) == 4.5


def test_interquartile_mean_weighs_scores_at_its_edge():
    """Of three the middle half is from 0.75 to 2.25: a quarter of the first, the second, a quarter of the third, so
    (0.25 + 2 + 1.5) / 1.5. Of five, from 1.25 to 3.75: (0.75 * 2 + 3 + 0.75 * 10) / 2.5.
    """
    assert interquartile_mean([1.0, 6.0, 2.0]) == pytest.approx(2.5)
    assert interquartile_mean([10.0, 1.0, 3.0, 99.0, 2.0]) == pytest.approx(4.8)


def test_interquartile_interval_by_hand():
    """Of 1, 2, 4, 7 it is 3. Leaving one out: (0.25 * 2 + 4 + 0.25 * 7) / 1.5 = 25/6 of (2, 4, 7); 4 of (1, 4, 7); 8/3 of
    (1, 2, 7); 13/6 of (1, 2, 4). Squares of the distances to their mean 3.25 add up to 2.916667: the error is
    sqrt(3/4 * 2.916667) = 1.479020, and t(.975, 1) = 12.7062.
    """
    assert interquartile_interval([7.0, 1.0, 4.0, 2.0]) == pytest.approx(
        (3 - 12.7062 * 1.479020, 3 + 12.7062 * 1.479020), abs=1e-3
    )


def test_two_scores_have_one_interval():
    """The interquartile mean of two is their mean."""
    assert interquartile_interval([0.2, 0.4]) == pytest.approx(mean_interval([0.2, 0.4]))


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_identical_scores_have_one_interquartile_mean(count):
    assert interquartile_mean([0.1] * count) == 0.1
    assert interquartile_interval([0.1] * count) == (0.1, 0.1)


MIDDLE = [0.25 + 0.5 * (i + 0.5) / 1000 for i in range(1000)]
GAPS = {
    "normal": (stats.norm(0.9, 0.02), False),
    "skewed": (stats.beta(8, 2), False),
    "more skewed": (stats.gamma(4, scale=0.02), True),  # of what is missing to the optimum
}


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_95_percent_intervals_hold_93_to_97_times_of_100(name, seeds):
    found, shortfall = GAPS[name]
    samples = found.rvs(size=(4000, seeds), random_state=np.random.default_rng(0))  # standard error of a share: 0.35 points
    for interval, true in ((mean_interval, found.mean()), (interquartile_interval, found.ppf(MIDDLE).mean())):
        turned, true = (1 - samples, 1 - true) if shortfall else (samples, true)
        held = np.mean([low <= true <= high for low, high in map(interval, turned)])
        assert 0.93 <= held <= 0.97, interval
