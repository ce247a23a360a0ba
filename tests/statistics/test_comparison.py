from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from alignzoo.statistics.comparison import (
    Reached,
    behind,
    compare,
    corrected_together,
    equivalence_p,
    holm,
    probability_of_improvement,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    to_threshold,
)


def test_five_differences_of_one_sign_give_two_of_32():
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == 0.0625
    assert sign_flip_p([-0.1] * 5) == 0.0625


def test_sign_flips_counted_by_hand():
    """1, 2, -3 + 4 = 4 of |1|, |2|, |3|, |4|: of the 16 sums, those at least 4 away from 0 are +-10, 8, 6, 4, 4: 10 of 16."""
    assert sign_flip_p([1.0, 2.0, -3.0, 4.0]) == 10 / 16


@pytest.mark.parametrize("count", [3, 6, 9, 12])
def test_sign_flips_agree_with_scipys_exact_test(count):
    d = np.random.default_rng(count).normal(0.5, 1, count)
    expected = permutation_test((d,), np.mean, permutation_type="samples", n_resamples=math.inf).pvalue
    assert sign_flip_p(d) == pytest.approx(expected, abs=1e-12)


def test_twenty_seeds_are_still_exact():
    assert sign_flip_p(np.linspace(0.1, 1, 20)) == 2 / 2**20


def test_more_than_forty_seeds_are_sampled():
    assert sign_flip_p(np.linspace(0.1, 1, 41)) == pytest.approx(2e-5, abs=1e-5)


@pytest.mark.parametrize("differences", [[], [0.0], [0.0] * 10])
def test_no_difference_is_no_evidence(differences):
    assert sign_flip_p(differences) == 1.0


def test_rounding_does_not_break_ties():
    """0.1 + 0.2 - 0.3 is not 0 in floating point; every flip of it must count as zero difference does."""
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


def test_smallest_p_and_the_seeds_it_needs():
    assert smallest_p(5) == 0.0625
    assert smallest_p(7, 6) == 0.09375
    assert smallest_p(8, 6) == 0.046875
    assert smallest_p(1, 6) == 1.0
    assert [seeds_needed(m) for m in (1, 3, 6, 10)] == [6, 7, 8, 9]


def test_holm_by_hand():
    """Sorted .005 * 4, .01 * 3, .03 * 2, .04 * 1, each no less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_probability_of_improvement():
    """1, 3 against 2, 3: 3 > 2 counts 1, 3 = 3 half, of four pairs."""
    assert probability_of_improvement([1.0, 3.0], [2.0, 3.0])[0] == 0.375


def test_improvement_interval_solves_newcombes_equation():
    """All of 10 better than all of 10: the lower end v solves
    1 - v = 1.96 sqrt(v (1 - v) (1 + 9 ((1 - v) / (2 - v) + v / (1 + v))) / 100).
    """
    share, (low, high) = probability_of_improvement(list(range(10, 20)), list(range(10)))
    spread = math.sqrt(low * (1 - low) * (1 + 9 * ((1 - low) / (2 - low) + low / (1 + low))) / 100)
    assert (share, high) == (1.0, 1.0)
    assert (1 - low) / spread == pytest.approx(1.959964, abs=1e-4)
    mirrored = probability_of_improvement(list(range(10)), list(range(10, 20)))
    assert mirrored == (0.0, (0.0, pytest.approx(1 - low)))


def test_one_seed_has_no_improvement_interval():
    assert probability_of_improvement([1.0], [0.0]) == (1.0, None)


def test_improvement_interval_holds():
    rng, true = np.random.default_rng(0), 0.7602499  # of N(1, 1) over N(0, 1): Phi(1 / sqrt 2)
    intervals = [probability_of_improvement(rng.normal(1, 1, 10), rng.normal(0, 1, 10))[1] for _ in range(500)]
    assert 0.92 <= np.mean([low <= true <= high for low, high in intervals]) <= 0.99


def seeds(values):
    return dict(enumerate(values))


def test_identical_algorithms_cannot_be_told_apart():
    scores = seeds([0.5, 0.6, 0.7, 0.8, 0.9, 0.55, 0.65, 0.75])
    (found,) = compare({"this": scores, "that": dict(scores)})
    assert (found.p, found.corrected, found.difference, found.interval) == (1.0, 1.0, 0.0, (0.0, 0.0))
    assert found.improvement == 0.5 and not found.separated


def test_equivalence_by_two_one_sided_tests():
    """Differences of 0 and 1 beside a margin of 2: 2 + d and 2 - d are positive for both seeds, so 1 of 4 sign flips has so
    large a sum. -3 and 1: of 2 + d, (-1, 3), the flips (1, 3) have a larger sum and (-1, 3) the same, 2 of 4."""
    assert equivalence_p([0.0, 1.0], 2.0) == 0.25
    assert equivalence_p([-3.0, 1.0], 2.0) == 0.5
    assert equivalence_p([3.0, 3.0], 2.0) == 1.0
    assert equivalence_p([], 2.0) == 1.0


def test_no_more_hypotheses_count_than_can_hold_at_once():
    """Holm's factors 4, 3, 2, 1, cut at 2."""
    assert holm([0.01, 0.02, 0.03, 0.5], 2) == [0.02, 0.04, 0.06, 0.5]
    assert holm([0.01, 0.02, 0.03, 0.5]) == [0.04, 0.06, 0.06, 0.5]


def test_half_the_signal_is_found_worse_at_eight_seeds():
    """One planned comparison: what closes 0.9 of the gap against what closes half of it, with the noise of seeds in common."""
    rng = np.random.default_rng(3)
    common = rng.normal(0, 0.05, 8)
    full = seeds(0.9 + common + rng.normal(0, 0.03, 8))
    half = seeds(0.45 + common + rng.normal(0, 0.03, 8))
    (found,) = compare({"full": full, "half": half}, [("full", "half")])
    assert found.p == found.corrected == 2 / 2**8 < 0.05
    assert found.separated and found.difference == pytest.approx(0.45, abs=0.05)


def test_only_common_seeds_are_compared_and_holm_counts_all_pairs():
    found = compare({"a": {0: 1.0, 1: 2.0, 2: 9.0}, "b": {0: 0.5, 1: 1.0, 3: 0.0}, "c": {7: 1.0}})
    assert [(c.first, c.second, c.seeds, c.p) for c in found] == [("a", "b", 2, 0.5), ("a", "c", 0, 1.0), ("b", "c", 0, 1.0)]
    assert found[0].difference == 0.75 and found[0].corrected == 1.0
    assert (found[1].difference, found[1].interval) == (0.0, None)


def test_to_threshold_by_hand():
    """Reached at 20, at 30, and not up to 50: the median is 30."""
    cost = [10.0, 20.0, 30.0, 50.0]
    curves = [(cost, [0.1, 0.9, 0.95, 1.0]), (cost, [0.1, 0.2, 0.91, 0.5]), (cost, [0.1, 0.2, 0.3, 0.4])]
    assert to_threshold(curves, 0.9) == Reached(30.0, 30.0, None, 3, 1)
    assert to_threshold(curves[2:], 0.9) == Reached(math.inf, 50.0, None, 1, 1)
    assert to_threshold(curves[:2], 0.9) == Reached(25.0, 25.0, None, 2, 0)
    with pytest.raises(ValueError, match="no evaluations"):
        to_threshold([], 0.9)


def test_a_run_that_stopped_early_leaves_the_median_open():
    """Stopped at 15, reached at 20 and at 30: the median may be 20, or what the first needs, which is more than 15."""
    curves = [([15.0], [0.1]), ([20.0], [0.9]), ([30.0], [0.9])]
    assert to_threshold(curves, 0.9) == Reached(math.inf, 20.0, None, 3, 1)


def reaching(*costs):
    return [([cost, 100.0], [0.9, 0.9]) if cost < math.inf else ([1.0, 100.0], [0.1, 0.2]) for cost in costs]


def test_the_interval_of_the_median_by_counting_coins():
    """Six miss it in 2 of 64 ways; ten with their second ones in 2 (1 + 10) of 1024, with their third in 2 (1 + 10 + 45)."""
    assert to_threshold(reaching(1, 2, 3, 4, 5, 6), 0.9).interval == (1, 6)
    assert to_threshold(reaching(*range(1, 11)), 0.9).interval == (2, 9)
    assert to_threshold(reaching(1, 2, 3, 4, 5), 0.9).interval is None
    found = to_threshold(reaching(1, 2, 3, 4, 5, 6, 7, 8, math.inf, math.inf), 0.9)
    assert (found.median, found.interval, found.censored) == (5.5, (2, math.inf), 2)


def test_the_interval_of_the_median_holds():
    rng = np.random.default_rng(0)
    intervals = [to_threshold(reaching(*rng.exponential(1, 10)), 0.9).interval for _ in range(2000)]
    assert 0.95 <= np.mean([low <= math.log(2) <= high for low, high in intervals]) <= 0.99


def test_comparisons_behind_others_count_where_all_of_those_are_claims():
    """Six seeds, all ahead: p = 2 / 64. Behind one that is ahead in five of six, p = 14 / 64, it is no claim."""
    sure, unsure = {"a": seeds([1.0] * 6), "b": seeds([0.0] * 6)}, {"a": seeds([1.0] * 5 + [-1.0]), "b": seeds([0.0] * 6)}
    assert [c.corrected for c in behind(compare(sure), compare(sure))] == [2 / 64]
    gated = behind(compare(unsure), compare(sure))
    assert [(c.p, c.corrected) for c in gated] == [(2 / 64, 14 / 64)] and not gated[0].separated
    assert [c.corrected for c in behind(compare(sure), compare(unsure))] == [14 / 64]
    assert [c.corrected for c in behind([], compare(sure))] == [2 / 64]


def test_two_families_make_a_false_claim_as_rarely_as_one():
    """Three algorithms that are alike, under four conditions: with each family by itself 9 pages of 100 claimed otherwise."""
    rng, wrong, pages = np.random.default_rng(1), 0, 300
    for _ in range(pages):
        scores = rng.normal(size=(4, 3, 16))
        tables = [{name: seeds(row) for name, row in zip("abc", table, strict=True)} for table in (*scores, scores.mean(0))]
        *conditions, means = [compare(table) for table in tables]
        claims = [*means, *(c for group in corrected_together(conditions) for c in behind(means, group))]
        wrong += any(c.separated for c in claims)
    assert wrong / pages <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / pages)


def test_an_interval_of_a_difference_ends_where_scores_can_be_no_further_apart():
    """Accuracies 1, 1, 0 against 0, 0, 0: t's interval of the mean 2/3 goes beyond 1, and below -1."""
    scores = {"a": seeds([1.0, 1.0, 0.0]), "b": seeds([0.0] * 3)}
    (anything,), (shares,) = compare(scores), compare(scores, most=1.0)
    assert anything.interval[0] < -1 and anything.interval[1] > 1
    assert shares.interval == (-1.0, 1.0)


def test_rounding_is_no_difference():
    """(0.8 + 0.5) / 2 and (0.7 + 0.6) / 2 are the same, and differ by 2^-53 in the same direction every time."""
    (c,) = compare({"a": seeds([(0.8 + 0.5) / 2] * 8), "b": seeds([(0.7 + 0.6) / 2 - 1e-16] * 8)})
    assert (c.difference, c.p) == (0.0, 1.0)


def test_one_family_of_tests_over_groups():
    scores = {"a": seeds([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "b": seeds([0.0] * 6)}
    groups = corrected_together([compare(scores), compare(scores)])
    assert [[c.p for c in group] for group in groups] == [[2 / 64], [2 / 64]]
    assert [[c.corrected for c in group] for group in groups] == [[4 / 64], [4 / 64]]
