"""Agreement of raters, against the examples that are printed for each measure."""

import math

import numpy as np
import pytest

from alignzoo.statistics.agreement import Level, agreement, cohen, fleiss, krippendorff, raw

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, twelve units, values missing.
OBSERVED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
# Fleiss 1971, as in Wikipedia's worked example: how many of 14 raters put each of ten subjects into each of five categories.
COUNTS = """
0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7
"""


def units():
    table = [line.split() for line in OBSERVED.strip().splitlines()]
    return [[float(value) for value in column if value != "."] for column in zip(*table, strict=True)]


def test_alpha_of_the_published_example():
    """alpha is 0.743 for nominal data and 0.849 for interval data, as printed in sections C and E of the paper."""
    assert krippendorff(units(), Level.nominal) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(units(), Level.interval) == pytest.approx(0.849, abs=5e-4)


def test_fleiss_kappa_of_the_published_example():
    """P = 0.378, P_e = 0.213, kappa = 0.210."""
    said = [[place for place, n in enumerate(line.split()) for _ in range(int(n))] for line in COUNTS.strip().splitlines()]
    assert fleiss(said) == pytest.approx(0.210, abs=5e-4)


def test_cohens_kappa_by_hand():
    """Of 50, both say yes to 20 and no to 15, the first alone to 5, the second alone to 10: p_o = 35/50 = 0.7,
    p_e = 25/50 * 30/50 + 25/50 * 20/50 = 0.5, kappa = 0.2 / 0.5."""
    said = [(1, 1)] * 20 + [(0, 0)] * 15 + [(1, 0)] * 5 + [(0, 1)] * 10
    assert cohen(said) == pytest.approx(0.4)
    assert raw([{"a": a, "b": b} for a, b in said]) == pytest.approx(0.7)


def test_raw_agreement_is_averaged_over_things_not_pairs():
    """The first has one pair, which agrees; the second three, of which one does: (1 + 1/3) / 2."""
    assert raw([{"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 0}]) == pytest.approx(2 / 3)


def test_by_chance_all_are_about_0_and_whoever_agrees_has_1():
    rng = np.random.default_rng(0)
    said = rng.integers(0, 3, (3000, 3)).tolist()
    names = [dict(zip("abc", map(float, unit), strict=True)) for unit in said]
    by_chance = agreement(names, Level.nominal)
    assert by_chance["raw_agreement"] == pytest.approx(1 / 3, abs=0.02)
    assert abs(by_chance["fleiss_kappa"]) < 0.03 and abs(by_chance["krippendorffs_alpha"]) < 0.03
    agreed = agreement([{"a": x, "b": x} for x in (0.0, 1.0, 1.0)], Level.interval)
    assert agreed == {"raw_agreement": 1.0, "cohens_kappa": 1.0, "krippendorffs_alpha": 1.0}


def test_the_measures_that_a_table_allows():
    two, three = {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0, "c": 1.0}
    assert set(agreement([two, {"a": 1.0}], Level.nominal)) == {"raw_agreement", "cohens_kappa", "krippendorffs_alpha"}
    assert set(agreement([three, three], Level.nominal)) == {"raw_agreement", "fleiss_kappa", "krippendorffs_alpha"}
    assert set(agreement([two, three], Level.nominal)) == {"raw_agreement", "krippendorffs_alpha"}
    assert agreement([{"a": 1.0}], Level.nominal) == {}
    same = agreement([{"a": 1.0, "b": 1.0}] * 3, Level.nominal)
    assert same == {"raw_agreement": 1.0}  # chance would agree as well
    assert all(math.isfinite(value) for value in same.values())


def test_alpha_of_numbers_knows_how_far_they_are_apart():
    near, far = [[1.0, 2.0], [4.0, 5.0]], [[1.0, 5.0], [4.0, 2.0]]
    assert krippendorff(near, Level.interval) > krippendorff(far, Level.interval)
    assert krippendorff(near, Level.nominal) == krippendorff(far, Level.nominal)
