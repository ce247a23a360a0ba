"""What raters say, worked by hand where there is no noise, and by its probability where there is."""

from itertools import permutations
from math import exp

import numpy as np
import pytest

from alignzoo.making.draws import Draw, ScoredCompletion
from alignzoo.making.labels import labels, thresholds
from alignzoo.settings import Made, Making, Ties, UserError


def draw(*scores, number=0, texts=None):
    texts = texts or "abcdefgh"
    return Draw(number, 0, [ScoredCompletion(texts[i], [i], False, score) for i, score in enumerate(scores)])


def said(draws, kind, parts=(), **settings):
    """(the texts and marks of each label, the counts)."""
    made, counts = labels(draws, Making(kind=kind, **{"samples": 4, **settings}), "made", parts)
    return [("".join(s.text for s in one.samples), one.marks) for one in made], counts


def test_without_noise_the_higher_score_is_better():
    one = draw(1.0, 3.0, 2.0)
    assert said([one], Made.pairs)[0] == [("ba", []), ("ca", []), ("bc", [])]
    assert said([one], Made.rankings)[0] == [("abc", [2.0, 0.0, 1.0])]
    assert said([one], Made.demonstrations)[0] == [("b", [])]
    assert said([one], Made.ratings)[0] == [("a", [1.0]), ("b", [3.0]), ("c", [2.0])]


def test_a_pair_is_chosen_as_bradley_and_terry_say():
    draws = [draw(1.0, 0.0, number=i) for i in range(3000)]
    for temperature in (0.5, 2.0):
        chosen = [text for text, _ in said(draws, Made.pairs, temperature=temperature)[0]]
        assert np.mean([text == "ab" for text in chosen]) == pytest.approx(1 / (1 + exp(-1 / temperature)), abs=0.027)


def test_a_ranking_is_as_plackett_and_luce_say():
    scores = {"a": 1.0, "b": 0.0, "c": -0.5}
    draws = [draw(*scores.values(), number=i) for i in range(3000)]
    found = [tuple(np.array(list("abc"))[np.argsort(marks)]) for _, marks in said(draws, Made.rankings, temperature=1.0)[0]]
    for order in permutations("abc"):
        weights = [exp(scores[one]) for one in order]
        expected = np.prod([w / sum(weights[i:]) for i, w in enumerate(weights)])
        assert np.mean([one == order for one in found]) == pytest.approx(expected, abs=0.027)


def test_ratings_have_noise_of_mean_zero_and_the_gumbel_variance():
    found = np.array(
        [marks[0] for _, marks in said([draw(3.0, number=i) for i in range(3000)], Made.ratings, temperature=2.0)[0]]
    )
    assert found.mean() == pytest.approx(3.0, abs=0.15)
    assert found.std() == pytest.approx(2.0 * np.pi / 6**0.5, rel=0.05)


def test_labels_are_turned_round():
    one = draw(1.0, 3.0, 2.0)
    assert said([one], Made.pairs, flip=1.0) == ([("ab", []), ("ac", []), ("cb", [])], {"flipped": 3})
    assert said([one], Made.rankings, flip=1.0)[0] == [("abc", [0.0, 2.0, 1.0])]
    assert said([one], Made.demonstrations, flip=1.0)[0] == [("a", [])]
    assert said([one], Made.ratings, [1.5, 2.5], levels=3, flip=1.0)[0] == [("a", [2.0]), ("b", [0.0]), ("c", [1.0])]
    found, counts = said([draw(1.0, 0.0, number=i) for i in range(2000)], Made.pairs, flip=0.2)
    assert counts["flipped"] == sum(text == "ba" for text, _ in found) == pytest.approx(400, abs=55)


def test_ties_are_dropped_or_tossed():
    draws = [draw(1.0, 1.0, 0.0, number=i) for i in range(400)]
    dropped, counts = said(draws, Made.pairs)
    assert {text for text, _ in dropped} == {"ac", "bc"} and counts == {"ties": 400}
    kept = [text for text, _ in said(draws, Made.pairs, ties=Ties.keep)[0]]
    assert kept.count("ab") + kept.count("ba") == 400 and 160 < kept.count("ab") < 240
    assert said(draws[:1], Made.rankings)[0] == [("ac", [0.0, 1.0])]
    assert said(draws[:1], Made.rankings, ties=Ties.keep)[0] == [("abc", [0.0, 0.0, 1.0])]
    assert said([draw(1.0, 1.0)], Made.rankings) == ([], {"rankings_of_one_rank_dropped": 1})


def test_scores_closer_than_the_margin_are_a_tie():
    one = draw(1.0, 1.2, 3.0)
    assert said([one], Made.pairs, tie_margin=0.3)[0] == [("ca", []), ("cb", [])]
    assert said([one], Made.rankings, tie_margin=0.3, ties=Ties.keep)[0] == [("abc", [1.0, 1.0, 0.0])]


def test_what_has_no_score_no_text_or_a_twin_is_left_out_and_counted_once():
    one = draw(1.0, None, 2.0, 5.0, 3.0, texts=["a", "b", "a", " ", "c"])
    found, counts = said([one], Made.pairs, raters=2)
    assert found == [("ca", [])] * 2
    assert counts == {"completions_unscored": 1, "completions_identical": 1, "completions_empty": 1}
    assert [text for text, _ in said([one], Made.ratings)[0]] == ["a", "a", "c"]


def test_each_rater_has_noise_of_its_own_and_the_first_is_the_same_with_or_without_others():
    draws = [draw(0.5, 0.0, number=i) for i in range(300)]
    alone, _ = labels(draws, Making(kind=Made.pairs, temperature=1.0), "made", ())
    three, _ = labels(draws, Making(kind=Made.pairs, temperature=1.0, raters=3), "made", ())
    sides = [[one.samples[0].text for one in three if one.rater == number] for number in range(3)]
    assert sides[0] == [one.samples[0].text for one in alone]
    agreement = np.mean([a == b for a, b in zip(sides[0], sides[1], strict=True)])
    p = 1 / (1 + exp(-0.5))
    assert agreement == pytest.approx(p * p + (1 - p) ** 2, abs=0.09)


def test_levels_hold_equally_many():
    draws = [draw(float(i), number=i) for i in range(12)]
    found, _ = said(draws, Made.ratings, thresholds(draws, 3), levels=3)
    assert [marks[0] for _, marks in found] == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert thresholds(draws, 0) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": Made.pairs, "samples": 1}, "making.samples=1: pairs need at least 2"),
        ({"kind": Made.none, "flip": 0.1}, "making.flip is set, and nothing is made"),
        ({"kind": Made.pairs, "flip": 1.5}, "making.flip=1.5 is out of range"),
        ({"kind": Made.pairs, "temperature": -1.0}, "making.temperature=-1.0 is out of range"),
        ({"kind": Made.pairs, "levels": 3}, "making.levels=3 is about ratings"),
        ({"kind": Made.ratings, "flip": 0.1}, "give the scale, as making.levels=2"),
        ({"kind": Made.pairs, "raters": 0}, "making.raters=0 is out of range"),
    ],
)
def test_settings_that_make_no_sense(settings, said):
    with pytest.raises(UserError, match=said):
        Making(**settings)
