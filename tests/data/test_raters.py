"""Rows that several people labelled, as one row each."""

import math

import pytest

from alignzoo import compose
from alignzoo.batch import Pairs, Rankings, Rated
from alignzoo.data.raters import settled
from alignzoo.data.repeats import Repeated
from alignzoo.data.rows import UnusableRow, canonical
from alignzoo.settings import UserError

A, B = {"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "b", "rejected": "a"}
MESSAGE = [{"role": "assistant", "content": "m"}]


def rows(*raw):
    return [canonical(row, f"f, line {number}", {}) for number, row in enumerate(raw, 1)]


def by_raters(*raw):
    return rows(*({**row, "rater": name} for name, row in zip("xyzvw", raw, strict=False)))


def texts(made):
    return [(row["chosen"], row["rejected"]) for row in made]


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([1, 1, 0], [("a", "b")]),
        ([1, 0, 0], [("b", "a")]),
        ([0.5, 0.5, 1], [("a", "b")]),
        ([0.9, 0.4, 0.4], [("b", "a")]),
        ([1, 0, 1], [("a", "b")]),
        ([None, 0], [("b", "a")]),
    ],
)
def test_the_majority_of_votes_on_a_pair(votes, expected):
    made, told = settled(rows({**A, "votes": votes}, {**A, "prompt": "q", "votes": [1, 0]}))
    assert texts(made) == expected
    assert told["raters"]["ties_dropped"] == 1
    assert all(set(row.values) == {"prompt", "chosen", "rejected"} for row in made)


def test_a_row_for_each_rater_whichever_side_is_first():
    made, told = settled(by_raters(A, B, B))
    assert texts(made) == [("b", "a")]
    assert told["raters"] | {"names": ["x", "y", "z"], "votes": 3, "rated": 1, "rated_by_several": 1} == told["raters"]
    assert told["raters"]["raw_agreement"] == pytest.approx(1 / 3)


def test_who_votes_twice_has_one_vote_the_last():
    made, _ = settled(rows({**A, "rater": "x"}, {**A, "rater": "y"}, *({**B, "rater": r} for r in "xyx")))
    assert texts(made) == [("b", "a")]


def test_margins_are_averaged_by_side():
    made, _ = settled(by_raters({**A, "margin": 3}, {**B, "margin": 1}, {**A, "margin": 1}))
    assert (texts(made), made[0]["margin"]) == ([("a", "b")], 1.0)


def test_ratings_are_averaged_and_labels_of_yes_and_no_voted():
    rated = {"prompt": "p", "completion": "c"}
    made, told = settled(by_raters({**rated, "label": 2}, {**rated, "label": 5}))
    assert [row["label"] for row in made] == [3.5]
    assert "krippendorffs_alpha" in told["raters"]
    votes = [{**rated, "votes": [True, True, False]}, {**rated, "prompt": "q", "votes": [0, 0, 1]}]
    made, _ = settled(rows(*votes, {**rated, "prompt": "r", "votes": [1, 0]}))
    assert [row["label"] for row in made] == [1, 0]


def test_rankings_are_by_mean_rank_whatever_the_order_of_the_completions():
    one = {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, 3]}
    other = {"prompt": "p", "completions": ["c", "a", "b"], "ranks": [2, 3, 1]}
    made, told = settled(by_raters(one, other, one))
    assert made[0]["completions"] == ["a", "b", "c"]
    assert made[0]["ranks"] == pytest.approx([5 / 3, 5 / 3, 8 / 3])
    # a before b for 2 of 3, a before c for 2 of 3, b before c for all
    assert told["raters"]["raw_agreement"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)


def test_to_agree_on_every_pair_is_not_chance_though_the_chosen_is_always_first():
    pairs = [{**A, "prompt": f"p{n}", "votes": [1, 1]} for n in range(40)]
    _, told = settled(rows(*pairs))
    assert told["raters"]["cohens_kappa"] == told["raters"]["krippendorffs_alpha"] == 1.0
    _, same = settled(rows(*({**row, "chosen": "b", "rejected": "a", "votes": [0, 0]} for row in pairs)))
    assert same == told


def test_what_nobody_voted_on_stays():
    plain = rows({"prompt": "p", "completion": "c"}, A)
    assert settled(plain) == (plain, {})
    made, _ = settled(rows({**A, "rater": "x"}, {"prompt": "p", "completion": "c"}))
    assert [row.where for row in made] == ["f, line 1", "f, line 2"]


def test_conversations_too():
    pair = {"prompt": [{"role": "user", "content": "q"}], "chosen": MESSAGE, "rejected": [{**MESSAGE[0], "content": "n"}]}
    made, _ = settled(rows({**pair, "votes": [0, 0]}))
    assert made[0]["rejected"] == MESSAGE


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({**A, "votes": [2]}, "f, line 1: the vote 2 must be 1 for the chosen, 0 for the rejected, or 0.5 for a tie"),
        ({**A, "votes": ["a"]}, "f, line 1: the vote 'a' must be 1 for the chosen"),
        ({**A, "votes": 1}, "f, line 1: 'votes' is 1: must be a list"),
        ({**A, "votes": [None]}, "f, line 1: 'votes' has none"),
        ({**A, "votes": [1, 0], "raters": ["x"]}, "'raters' has 1 names for 2 'votes': must be as many"),
        ({"prompt": "p", "completion": "c", "votes": [math.nan]}, "the vote nan must be a number, true or false"),
        ({"prompt": "p", "completions": ["a", "b"], "votes": [[1]]}, r"the vote \[1\] must be a list of 2 ranks"),
    ],
)
def test_votes_that_can_not_be(raw, message):
    with pytest.raises(UnusableRow, match=message):
        rows(raw)


def test_a_source_settles_them_and_reports(source, context):
    made = source([{**A, "votes": [1, 0, 0]}, {**A, "prompt": "q", "votes": [1, 0]}], unusable="drop").tables(Pairs, context)
    assert context.tokenizer.decode(made.train.batch([0]).chosen.ids[0], skip_special_tokens=True) == "b"
    assert len(made.train) == 1
    assert made.report["raters"]["ties_dropped"] == 1
    assert made.report["raters"]["names"] == ["rater 1", "rater 2", "rater 3"]


def test_shares_are_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"data\.votes.*shares.*majority"):
        compose(["data=jsonl", "data.path=x", "data.votes=shares"])


def test_votes_are_no_repeated_rows(source, context):
    votes = [{**A, "rater": "x"}, {**A, "rater": "y"}, {**B, "rater": "z"}]
    made = source(votes, duplicates=Repeated.drop, contradictions=Repeated.drop).tables(Pairs, context)
    assert len(made.train) == 1
    assert not any("duplicate" in name or "contradictory" in name for name in made.report)


def test_one_raters_tie_is_a_vote_on_a_ranking():
    ranking = {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}
    made, told = settled(by_raters(ranking, {**ranking, "ranks": [2, 1]}))
    assert made[0]["ranks"] == [1.5, 1.0]
    assert told["raters"]["votes"] == 2


def test_columns_of_other_names(source, context):
    raw = [{"prompt": "p", "completion": "c", "stars": n, "who": name} for n, name in ((2, "x"), (4, "y"))]
    made = source(raw, columns={"label": "stars", "rater": "who"}).tables(Rated, context)
    assert made.train.batch([0]).rating.tolist() == [3.0]


def test_rankings_of_several_raters_as_rankings(source, context):
    raw = [{"prompt": "p", "completions": ["a", "b"], "votes": [[2, 1], [2, 1], [1, 2]]}]
    batch = source(raw).tables(Rankings, context).train.batch([0])
    assert context.tokenizer.decode(batch.ids[0], skip_special_tokens=True) == "b"


def test_only_ties_leave_nothing(source, context):
    with pytest.raises(UserError, match=r"rows\.jsonl: all votes are tied"):
        source([{**A, "votes": [1, 0]}]).tables(Pairs, context)
