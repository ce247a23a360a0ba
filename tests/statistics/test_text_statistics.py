"""Measures of text: each value counted by hand."""

import pytest

from alignzoo.statistics import intervals, text_statistics


def test_distinct_counts_over_all_texts_together() -> None:
    both = ["the cat saw the cat", "The dog"]
    # words: the cat saw the cat the dog: 4 of 7 differ; pairs: the-cat cat-saw saw-the the-cat | the-dog: 4 of 5
    assert text_statistics.distinct(both, 1) == pytest.approx(4 / 7)
    assert text_statistics.distinct(both, 2) == pytest.approx(4 / 5)
    assert text_statistics.distinct(["one", "two"], 2) is None


def test_repetition_is_a_mean_over_texts() -> None:
    # a b c a b c a: abc bca cab abc bca, 3 of 5 differ; the next repeats nothing; the last has no three words
    assert text_statistics.repetition(["a b c a b c a", "one two three four", "too short"]) == pytest.approx((2 / 5 + 0) / 2)
    assert text_statistics.repetition(["a a a a"], n=2) == pytest.approx(2 / 3)
    assert text_statistics.repetition(["too short", ""]) is None


def test_wins_count_one_and_ties_a_half() -> None:
    share, (low, high) = text_statistics.win_rate([3, 1, 2, 5], [1, 2, 2, 4])
    assert share == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert low < share < high


def test_wilson_s_interval() -> None:
    # 8 of 10 with z = 1.959964: centre (0.8 + 0.192073) / 1.384146 = 0.716743, half width 0.226574 (Wilson 1927, eq. 6)
    assert intervals.share_interval(0.8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert intervals.share_interval(0.0, 10) == pytest.approx((0.0, 0.277533), abs=1e-5)
    low, high = intervals.share_interval(1.0, 10)
    assert (low, high) == pytest.approx((1 - 0.277533, 1.0), abs=1e-5)
    with pytest.raises(ValueError, match="no trials"):
        intervals.share_interval(0.5, 0)


def row(text: str, **more: float | None) -> dict[str, object]:
    return {"completion": text, **more}


def test_rows_are_compared_where_both_sides_have_a_score() -> None:
    rows = [
        row("a b", gold=2.0, reference_gold=1.0, reward=0.0),
        row("c d", gold=None, reference_gold=1.0, reward=9.0),
        row("e f", gold=1.0, reference_gold=None, reward=9.0),
        row("g h", gold=0.0, reference_gold=1.0, reward=9.0),
    ]
    found = text_statistics.measured(rows)
    assert (found["win_rate"], found["distinct_1"]) == (0.5, 1.0)
    assert (found["win_rate/low"], found["win_rate/high"]) == pytest.approx(intervals.share_interval(0.5, 2))
    assert "repetition" not in found


def test_what_can_t_be_had_is_absent() -> None:
    assert text_statistics.measured([]) == {}
    assert set(text_statistics.measured([row("a b c", reward=1.0)])) == {"distinct_1", "distinct_2", "repetition"}
    assert "win_rate" not in text_statistics.measured([row("a b c", reward=None, reference_reward=1.0)])
