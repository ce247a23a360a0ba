"""Rows said twice, rows said both ways, and labels that are none."""

import pytest

from alignzoo.batch import Completions, Pairs, Rankings, Rated
from alignzoo.data.repeats import Repeated
from alignzoo.data.source import Unusable
from alignzoo.settings import UserError


def pair(prompt, chosen, rejected):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


PAIRS = [pair("p", "a", "b"), pair("p", "a", "c"), pair("p", "a", "b"), pair("p", "b", "a"), pair("q", "b", "a")]
RATED = [{"prompt": "p", "completion": text, "label": label} for text, label in (("a", 1), ("a", 1), ("b", 2), ("b", 4.0))]
RANKED = [
    {"prompt": "p", "completions": list(texts), "ranks": ranks}
    for texts, ranks in (("abc", [1, 2, 3]), ("cba", [9, 5, 2]), ("abc", [2, 1, 3]), ("abd", [1, 2, 3]))
]


def test_pairs_said_again_or_the_other_way_round_are_counted(source, context):
    report = source(PAIRS).tables(Pairs, context).report
    assert (report["duplicate_pairs"], report["contradictory_pairs"], report["train"]) == (1, 3, 5)
    assert "repeated_rows_dropped" not in report
    clean = source(PAIRS[1:2] + PAIRS[4:]).tables(Pairs, context).report
    assert not [name for name in clean if "pairs" in name or "repeated" in name]


def test_of_duplicates_the_first_is_kept_and_of_contradictions_none(source, context):
    def kept(**settings):
        tables = source(PAIRS, **settings).tables(Pairs, context)
        pairs = [tables.train.batch([row]) for row in range(len(tables.train))]
        said = ["".join((*one.chosen.prompts.text, *one.chosen.text, *one.rejected.text)) for one in pairs]
        return said, tables.report.get("repeated_rows_dropped", 0)

    assert kept() == (["pab", "pac", "pab", "pba", "qba"], 0)
    assert kept(duplicates=Repeated.drop) == (["pab", "pac", "pba", "qba"], 1)
    assert kept(contradictions=Repeated.drop) == (["pac", "qba"], 3)
    assert kept(duplicates=Repeated.drop, contradictions=Repeated.drop) == (["pac", "qba"], 3)


def test_ratings_and_rankings_too_whatever_the_order_of_the_completions(source, context):
    report = source(RATED).tables(Rated, context).report
    assert (report["duplicate_ratings"], report["contradictory_ratings"]) == (1, 2)
    report = source(RANKED).tables(Rankings, context).report
    assert (report["duplicate_rankings"], report["contradictory_rankings"]) == (1, 3)
    assert len(source(RANKED, contradictions=Repeated.drop).tables(Rankings, context).train) == 1


def test_those_of_a_file_to_hold_out_are_dropped_as_well(tmp_path, source, context):
    import json

    other = tmp_path / "heldout.jsonl"
    other.write_text("\n".join(json.dumps(pair("h", *sides)) for sides in ("ab", "ba", "cd")))
    tables = source(PAIRS, heldout_path=str(other), contradictions=Repeated.drop).tables(Pairs, context)
    assert (len(tables.train), len(tables.heldout)) == (2, 1)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completions": ["a"], "ranks": [1]}, "line 2: a ranking of one completion prefers nothing"),
        ({"completions": ["a", "b"], "ranks": [1, 1]}, "line 2: a ranking of 2 completions that are all equal"),
        ({"completions": ["a", "b"], "ranks": [1, float("nan")]}, "line 2: 'ranks' must hold one number"),
    ],
)
def test_a_ranking_that_ranks_nothing_is_named_or_dropped(row, said, source, context):
    rows = [RANKED[0], {"prompt": "p", **row}]
    with pytest.raises(UserError, match=said):
        source(rows).tables(Rankings, context)
    assert source(rows, unusable=Unusable.drop).tables(Rankings, context).report["unusable_rows_dropped"] == 1


def test_a_ranking_with_a_tie_gives_the_pairs_that_differ(source, context):
    rows = [{"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 1, 2]}]
    batch = source(rows).tables(Pairs, context).train.batch([0, 1])
    assert list(zip(batch.chosen.text, batch.rejected.text, strict=True)) == [("a", "c"), ("b", "c")]


def test_a_rating_outside_its_scale_is_named_or_dropped(source, context):
    rows = [*RATED, {"prompt": "p", "completion": "z", "label": 7}]
    with pytest.raises(UserError, match=r"line 5: the rating 7 is outside data.scale=\[1,5\]"):
        source(rows, scale=[1.0, 5.0]).tables(Rated, context)
    tables = source(rows, scale=[1.0, 5.0], unusable=Unusable.drop).tables(Rated, context)
    assert tables.report["unusable_rows_dropped"] == 1 and tables.train.batch(range(4)).rating.max() == 4
    assert len(source(rows, scale=[1.0, 7.0]).tables(Rated, context).train) == 5
    votes = [{"prompt": "p", "completion": "a", "votes": [1, 9], "raters": ["x", "y"]}]
    with pytest.raises(UserError, match="the rating 9 is outside"):
        source(votes, scale=[1.0, 5.0]).tables(Rated, context)
    pairs = [{"prompt": "p", "chosen": "a", "rejected": "b", "votes": [1, 0, 1]}]
    with pytest.raises(UserError, match=r"is about ratings"):
        source(PAIRS, scale=[1.0, 5.0]).tables(Pairs, context)
    assert len(source([*RATED, *RATED[:1]], scale=[1.0, 5.0]).tables(Completions, context).train) == 5
    assert source(pairs).rows()[0]


def test_a_scale_or_a_label_that_is_none(source, context):
    for scale in ([1.0], [5.0, 1.0]):
        with pytest.raises(UserError, match="must be the lowest and the highest rating"):
            source(RATED, scale=scale)
    with pytest.raises(UserError, match="'label' is nan: must be true, false or a number"):
        source([{**RATED[0], "label": float("nan")}]).tables(Rated, context)
