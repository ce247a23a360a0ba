"""How a scorer is judged on held-out records, worked by hand."""

import json
from dataclasses import replace
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignzoo.batch import Pairs, Rankings, Rated
from alignzoo.engine.scorer_metrics import MOST, Judged, comparisons, judged, measured, write
from alignzoo.testing import toys


def scorer(scores):
    return SimpleNamespace(scores=lambda c: torch.tensor(scores[: len(c)]))


def test_pairs_are_compared_within_each_pair():
    pairs = toys.ToyTable(Pairs, 4).batch([0, 1, 2])
    found = judged(scorer([3.0, 1.0, 2.0, 1.0, 1.0, 5.0]), pairs)
    assert [a.score - b.score for a, b in comparisons(found)] == [2.0, 0.0, -3.0]
    assert [a.margin for a, _ in comparisons(found)] == [0.0, 0.5, 1.0]
    assert [one.length for one in found] == pairs.both.length.tolist()


def test_a_side_with_nothing_scored_is_not_compared():
    pairs = toys.ToyTable(Pairs, 4).batch([0, 1])
    blank = replace(pairs, rejected=pairs.rejected.blank())
    assert comparisons(judged(scorer([1.0, 2.0, 3.0, 4.0]), blank)) == []


def test_rankings_are_compared_within_each_ranking_better_first():
    ranked = toys.ToyTable(Rankings, 4).batch([0, 1])  # ranks 0, 1, 2 and 1, 2, 0
    assert ranked.rank.tolist() == [0, 1, 2, 1, 2, 0]
    found = comparisons(judged(scorer([5.0, 4.0, 2.0, 0.0, 1.0, 7.0]), ranked))
    assert [(a.score, b.score) for a, b in found] == [(5, 4), (5, 2), (4, 2), (0, 1), (7, 0), (7, 1)]


def test_ratings_are_compared_among_completions_of_the_same_prompt():
    one = toys.ToyTable(Rated, 4).batch([1])
    rated = Rated.cat([replace(one, rating=torch.tensor([rating])) for rating in (0.5, 1.0, 1.0)])
    other = toys.ToyTable(Rated, 4).batch([2])
    found = comparisons(judged(scorer([1.0, 2.0, 3.0]), rated) + judged(scorer([9.0]), other))
    assert [(a.score, b.score) for a, b in found] == [(2, 1), (3, 1)]


def test_records_of_another_kind_are_not_compared():
    assert judged(scorer([1.0]), toys.completions([0])) == []
    assert measured([]) == ({}, {})


def test_a_large_group_is_compared_only_in_part():
    found = [Judged("a", float(i), 0.0, 1) for i in range(MOST + 10)]
    assert len(comparisons(found)) == MOST * (MOST - 1) // 2


def test_metrics_of_four_pairs():
    rows = [  # (score, length) of the better and of the worse
        ((log(9), 2), (0.0, 1)),  # sure to 0.9, right, the longer is better
        ((log(3), 1), (0.0, 4)),  # 0.75, right, the shorter
        ((0.0, 3), (log(3), 4)),  # 0.75, wrong, the shorter
        ((1.0, 5), (1.0, 5)),  # 0.5, a tie of one length
    ]
    found = [Judged(i, 1.0 - k, *side) for i, pair in enumerate(rows) for k, side in enumerate(pair)]
    metrics, data = measured(found)
    assert metrics["accuracy"] == 0.625
    assert metrics["log_loss"] == pytest.approx((-log(0.9) - log(0.75) - log(0.25) - log(0.5)) / 4)
    assert metrics["calibration_error"] == pytest.approx((0.1 + 2 * 0.25 + 0) / 4, abs=1e-4)
    assert metrics["accuracy_when_better_is_shorter"] == 0.5
    assert metrics["accuracy_when_better_is_longer"] == 1.0
    assert [metrics[f"accuracy_by_margin/{i}"] for i in (1, 4)] == [0.5, 1.0]
    scores, lengths = zip(*(side for pair in rows for side in pair), strict=True)
    assert metrics["length_correlation"] == pytest.approx(np.corrcoef(scores, lengths)[0, 1])
    assert data["comparisons"] == 4 and [b["count"] for b in data["bins"]] == [1, 2, 1]
    assert not any(name.startswith("accuracy_by_given_margin") for name in metrics)


def test_accuracy_by_the_margin_that_the_data_gives():
    found = [
        Judged(i, merit, score, 1, margin)
        for i, (score, margin) in enumerate([(1.0, 3.0), (-1.0, 0.0), (1.0, 2.0), (-1.0, 1.0)])
        for merit, score in ((1.0, score), (0.0, 0.0))
    ]
    metrics, _ = measured(found)
    assert [metrics[f"accuracy_by_given_margin/{i}"] for i in (1, 2, 3, 4)] == [0.0, 0.0, 1.0, 1.0]
    assert "accuracy_when_better_is_shorter" not in metrics


def test_the_reliability_diagram_is_written(tmp_path):
    write(tmp_path, 7, {"accuracy": 0.5}, {"comparisons": 2, "bins": []})
    assert json.loads((tmp_path / "reliability.json").read_text()) == {
        "step": 7, "comparisons": 2, "bins": [], "metrics": {"accuracy": 0.5},
    }  # fmt: skip
