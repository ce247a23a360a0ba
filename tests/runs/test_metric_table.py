"""The one table of metrics: which way is better, what values are possible, and what each place shows."""

from __future__ import annotations

from math import inf

import pytest

from alignzoo.common.metric_table import TABLE, ShownIn, bounds, lower_is_better, shown, title


def test_a_name_is_in_the_table_once() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("name", "lower"), [("kl", True), ("loss/policy", True), ("gold", False), ("metric/mine", False)])
def test_a_part_is_better_the_same_way_as_its_metric(name: str, lower: bool) -> None:
    assert lower_is_better(name) is lower


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gap_closed", (-inf, 1)), ("accuracy_by_margin/1", (0, 1)), ("distinct_2", (0, 1)), ("perplexity", (1, inf)),
     ("length_correlation", (-inf, inf)), ("metric/mine", (-inf, inf))],
)  # fmt: skip
def test_shares_have_the_bounds_of_shares_whatever_follows(name: str, expected: tuple[float, float]) -> None:
    assert bounds(name) == expected


def test_algorithms_are_compared_by_the_gap_closed_before_all_else() -> None:
    assert shown(ShownIn.COMPARED) == ("gap_closed", "gold", "reward", "accuracy", "preference_accuracy")


def test_a_metric_without_a_title_reads_as_it_is_called() -> None:
    assert (title("gold"), title("win_rate"), title("my_own")) == ("gold reward", "win rate", "my own")
