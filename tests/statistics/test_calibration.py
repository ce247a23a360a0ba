"""Measures of a reward model, worked by hand."""

from math import exp, log, nan

import numpy as np
import pytest

from alignzoo.statistics.calibration import (
    Bin,
    accuracy,
    accuracy_by_size,
    correlation,
    expected_calibration_error,
    log_loss,
    reliability,
)


def logit(p):
    return log(p / (1 - p))


def test_accuracy_counts_equal_scores_half():
    assert accuracy(np.array([1.0, -2.0, 0.0, 3.0])) == 0.625  # (1 + 0 + 1/2 + 1) / 4


def test_nothing_to_compare_is_not_a_number():
    assert accuracy(np.array([])) == pytest.approx(nan, nan_ok=True)
    assert log_loss(np.array([])) == pytest.approx(nan, nan_ok=True)


def test_log_loss():
    # -log 0.8 = 0.223144, -log 0.25 = 1.386294, -log 0.5 = 0.693147: mean 0.767528
    assert log_loss(np.array([logit(0.8), logit(0.25), 0.0])) == pytest.approx(0.767528, abs=1e-6)


def test_log_loss_of_a_model_that_is_wrong_and_certain_does_not_overflow():
    assert log_loss(np.array([-1000.0])) == 1000.0


def test_reliability():
    # confidences 0.6 right, 0.6 wrong, 0.7 right, 0.95 right, 1 right; five bins of a tenth, those of 0.8-0.9 empty
    margins = np.array([logit(0.62), -logit(0.64), logit(0.72), logit(0.95), 50.0])
    found = reliability(margins, bins=5)
    assert np.allclose(
        [(b.low, b.high, b.count, b.confidence, b.accuracy) for b in found],
        [(0.6, 0.7, 2, 0.63, 0.5), (0.7, 0.8, 1, 0.72, 1.0), (0.9, 1.0, 2, 0.975, 1.0)],
    )


def test_the_end_of_a_bin_belongs_to_the_next_and_equal_scores_to_the_first():
    assert reliability(np.array([0.0, 0.0]), bins=2) == [Bin(0.5, 0.75, 2, 0.5, 0.5)]
    (only,) = reliability(np.array([logit(0.75) + 1e-12]), bins=2)
    assert (only.low, only.high) == (0.75, 1.0)


def test_expected_calibration_error():
    # |0.5 - 0.63| * 2/5 + |1 - 0.72| * 1/5 + |1 - 0.975| * 2/5 = 0.052 + 0.056 + 0.01
    margins = np.array([logit(0.62), -logit(0.64), logit(0.72), logit(0.95), 50.0])
    assert expected_calibration_error(margins, bins=5) == pytest.approx(0.118, abs=1e-6)


def test_a_calibrated_model_has_no_calibration_error():
    # sure to 0.75, and right three times of four; another is sure to 0.9 and right as often: off by 0.15
    assert expected_calibration_error(np.array([1, 1, 1, -1]) * logit(0.75)) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(np.array([1, 1, 1, -1]) * logit(0.9)) == pytest.approx(0.15, abs=1e-9)


def test_accuracy_by_size_groups_from_the_smallest():
    margins, sizes = np.array([1.0, -1.0, 1.0, 0.0, 1.0, -1.0]), np.array([5.0, 1.0, 3.0, 1.0, 4.0, 2.0])
    assert accuracy_by_size(margins, sizes, parts=3) == [0.25, 0.5, 1.0]


def test_groups_of_an_uneven_number_differ_by_one():
    assert accuracy_by_size(np.array([1.0, -1.0, -1.0]), np.arange(3.0), parts=2) == [0.5, 0.0]


def test_correlation():
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 5.0])) == pytest.approx(0.5)
    assert correlation(np.array([1.0, 2.0]), np.array([exp(2), exp(1)])) == pytest.approx(-1)
    assert correlation(np.array([1.0, 2.0]), np.array([3.0, 3.0])) == 0.0
    assert correlation(np.arange(10.0), np.full(10, 1.1)) == 0.0  # whose mean is 1.1000000000000003
    assert correlation(np.array([1.0, 2.0]), np.array([0.1 + 0.2, 0.3])) == 0.0
