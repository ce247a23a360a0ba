"""Every data set type in every view, with the records written out."""

from dataclasses import dataclass
from itertools import permutations

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.settings import UserError

PAIRS = [{"prompt": "p", "chosen": "a", "rejected": "bc"}, {"prompt": "qq", "chosen": "d", "rejected": "e"}]
RATED = [{"prompt": "p", "completion": "a", "label": True}, {"prompt": "p", "completion": "b", "label": False}]
RANKED = [{"prompt": "p", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}]
P, Q, A, B, C, EOS = 3 + ord("p"), 3 + ord("q"), 100, 101, 102, 2


def table(source, context, rows, view, **settings):
    return source(rows, **settings).tables(view, context).train


def texts(completions):
    return completions.text


def test_pairs_share_prompts_padded_left_and_pad_completions_right(source, context):
    batch = table(source, context, PAIRS, Pairs).batch([1, 0])
    assert batch.chosen.prompts is batch.rejected.prompts
    assert batch.chosen.prompts.ids.tolist() == [[0, P], [Q, Q]]
    assert batch.chosen.prompts.attended.tolist() == [[False, True], [True, True]]
    assert batch.chosen.prompt_of.tolist() == batch.rejected.prompt_of.tolist() == [1, 0]
    assert batch.rejected.ids.tolist() == [[104, EOS, 0], [B, C, EOS]]
    assert batch.rejected.attended.tolist() == batch.rejected.scored.tolist() == [[True, True, False], [True, True, True]]
    assert batch.chosen.row.tolist() == batch.row.tolist() == [1, 0]
    assert batch.chosen.truncated.tolist() == [False, False]
    assert batch.both.text == ["d", "a", "e", "bc"]


def test_pairs_give_demonstrations_of_the_chosen_ratings_rankings_and_prompts(source, context):
    assert table(source, context, PAIRS, Completions).batch([0, 1]).text == ["a", "d"]
    rated = table(source, context, PAIRS, Rated).batch([0, 1, 2])
    assert (rated.text, rated.rating.tolist()) == (["a", "bc", "d"], [1.0, 0.0, 1.0])
    ranked = table(source, context, PAIRS, Rankings).batch([1])
    assert (ranked.text, ranked.rank.tolist(), ranked.row.tolist()) == (["d", "e"], [0.0, 1.0], [1, 1])
    prompts = table(source, context, [*PAIRS, PAIRS[0]], Prompts)
    assert len(prompts) == 2
    assert prompts.batch([1, 0]).text == ["qq", "p"]
    assert prompts.batch([1]).columns == {"prompt": ["qq"], "chosen": ["d"], "rejected": ["e"]}


def test_rated_completions_give_demonstrations_of_the_desirable(source, context):
    rated = table(source, context, RATED, Rated).batch([0, 1])
    assert (rated.text, rated.rating.tolist(), rated.prompt_of.tolist()) == (["a", "b"], [1.0, 0.0], [0, 0])
    assert table(source, context, RATED, Completions).batch([0]).text == ["a"]
    assert len(table(source, context, RATED, Completions)) == 1


def test_rankings_give_pairs_of_different_rank_and_the_best(source, context):
    ranked = table(source, context, RANKED, Rankings).batch([0])
    assert (ranked.text, ranked.rank.tolist()) == (["b", "a", "c"], [0.0, 1.0, 1.0])
    pairs = table(source, context, RANKED, Pairs)
    assert len(pairs) == 2
    pairs = pairs.batch([0, 1])
    assert (pairs.chosen.text, pairs.rejected.text) == (["b", "b"], ["a", "c"])
    assert table(source, context, RANKED, Completions).batch([0]).text == ["b"]


def test_a_demonstration_beside_a_pair_makes_a_triple(source, context):
    batch = table(source, context, [PAIRS[0] | {"completion": "gold"}], Triples).batch([0])
    assert batch.three.text == ["a", "bc", "gold"] and batch.three.prompt_of.tolist() == [0, 0, 0]
    assert table(source, context, PAIRS, Triples).batch([1]).three.text == ["d", "e", "d"]


@pytest.mark.parametrize(
    ("ranks", "triple"), [([3, 1, 4, 2], "dcb"), ([2, 1, 2, 2], "bdb"), ([1, 1, 2, 2], "bda"), ([2, 1, 1, 3], "cdb")]
)
def test_of_a_ranking_the_best_is_imitated_and_the_second_beats_the_last(source, context, ranks, triple):
    rows = [{"prompt": "p", "completions": ["a", "b", "c", "d"], "ranks": ranks}]
    batch = table(source, context, rows, Triples).batch([0])
    assert "".join(batch.three.text) == triple


def test_of_a_ranking_of_two_the_better_is_both(source, context):
    rows = [{"prompt": "p", "completions": ["a", "b"], "ranks": [2, 1]}]
    assert table(source, context, rows, Triples).batch([0]).three.text == ["b", "a", "b"]


def test_prompts_asked_for_as_such_are_kept_as_often_as_they_come(source, context):
    rows = [{"prompt": "p", "answer": "1"}, {"prompt": "p", "answer": "2"}]
    prompts = table(source, context, rows, Prompts)
    assert prompts.batch([0, 1]).columns["answer"] == ["1", "2"]
    assert prompts.batch([1]).row.tolist() == [1]


def test_rows_share_a_prompt_only_if_their_other_columns_agree(source, context):
    rows = [{"prompt": "p", "completion": c, "topic": t} for c, t in (("a", "x"), ("b", "x"), ("c", "y"))]
    batch = table(source, context, rows, Completions).batch([0, 1, 2])
    assert batch.prompt_of.tolist() == [0, 0, 1]
    assert batch.prompts.columns["topic"] == ["x", "y"]
    assert batch.prompts.row.tolist() == [0, 2]


def test_text_is_learned_after_the_beginning_token(source, context):
    batch = table(source, context, [{"text": "ab"}], Completions).batch([0])
    assert (batch.prompts.ids.tolist(), batch.ids.tolist()) == ([[1]], [[A, B, EOS]])


def test_the_report_says_what_was_derived(source, context):
    counts = {"rows": 2, "train": 4, "heldout": 0, "heldout_prompts": 0}
    report = source(PAIRS).tables(Rated, context).report
    assert report == {"view": "Rated", "derived": "the chosen rated 1, the rejected 0", **counts}
    assert "derived" not in source(PAIRS).tables(Pairs, context).report


@pytest.mark.parametrize(
    ("rows", "view", "message"),
    [
        (RATED[:1], Pairs, r"learns from pairs: .* has the columns prompt, completion, label\n.*data.columns.rejected=NAME"),
        (
            [{"prompt": "p", "completion": "a"}],
            Triples,
            r"learns from pairs and demonstrations: .*\n.*data.columns.rejected=NAME",
        ),
        ([PAIRS[0], {"prompt": "p", "chosen": "a"}], Pairs, "rows.jsonl, line 2: no 'rejected', which other rows have"),
        ([{"text": "ab"}], Prompts, "learns from prompts; rows.jsonl, line 1 has the columns text"),
        ([RATED[1]], Completions, "no row of rows.jsonl can be used as Completions"),
    ],
)
def test_a_view_that_cannot_be_had_says_why_and_what_to_do(source, context, rows, view, message):
    with pytest.raises(UserError, match=message):
        source(rows).tables(view, context)


LABELLED = [
    {"prompt": "p", "completion": "a", "label": None},
    {"prompt": "p", "completion": "b", "label": False},
    {"prompt": "p", "completion": "c", "label": True},
    {"prompt": "p", "completion": "d"},
]
MARGINS = [PAIRS[0] | {"margin": None}, PAIRS[1] | {"margin": 2}]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_which_row_comes_first_decides_nothing(source, context, order):
    """Of four rated completions two have no rating: of the others c is desirable, b is not, and c is better than b."""
    rows = [LABELLED[i] for i in order]
    data = source(rows, unusable="drop")
    shown, rated, pairs = (data.tables(view, context) for view in (Completions, Rated, Pairs))
    assert shown.train.batch(range(len(shown.train))).text == ["c"]
    assert dict(zip(rated.train.batch([0, 1]).text, rated.train.batch([0, 1]).rating.tolist(), strict=True)) == {"b": 0, "c": 1}
    assert pairs.train.batch([0]).both.text == ["c", "b"] and len(pairs.train) == 1
    assert all(tables.report["rows_without_label_dropped"] == 2 for tables in (shown, rated, pairs))
    line = 1 + min(place for place, i in enumerate(order) if i in (0, 3))
    for view in (Completions, Rated, Pairs):
        with pytest.raises(UserError, match=f"line {line}: no 'label', which other rows have, nor are 1 more rows complete\n"):
            source(rows).tables(view, context)


def test_a_margin_that_is_missing_is_missing_in_that_row_alone(source, context):
    for rows, line in ((MARGINS, 1), (MARGINS[::-1], 2)):
        with pytest.raises(UserError, match=f"line {line}: no 'margin', which other rows have\nfill it in, or drop"):
            source(rows).tables(Pairs, context)
        kept = source(rows, unusable="drop").tables(Pairs, context)
        assert kept.train.batch([0]).margin.tolist() == [2] and kept.report["rows_without_margin_dropped"] == 1
    assert source([MARGINS[0], MARGINS[0]]).tables(Pairs, context).train.batch([0]).margin is None


def test_held_out_rows_lack_what_training_rows_have(source, context):
    """Of 40 prompts, some held out, every fourth has no label."""
    rows = [{"prompt": f"{i}", "completion": "a", "label": None if i % 4 == 0 else True} for i in range(40)]
    tables = source(rows, heldout=0.3, unusable="drop").tables(Completions, context)
    assert tables.report["rows_without_label_dropped"] == 10
    assert len(tables.train) + len(tables.heldout) == 30


@dataclass(frozen=True, eq=False, kw_only=True)
class Labelled(Batch):
    """A plugin's own record."""

    number: Tensor
    prompts: Prompts

    @classmethod
    def collate(cls, rows, encoder):
        ids = torch.tensor(encoder.prompts([row["prompt"] for row in rows]))
        prompts = Prompts(ids=ids, attended=ids > 0, row=torch.arange(len(rows)))
        return cls(number=torch.tensor([row.columns["n"] for row in rows]), prompts=prompts)


def test_a_plugins_own_record_is_made_by_its_collate(source, context):
    made = table(source, context, [{"prompt": "p", "n": 5}, {"prompt": "q", "n": 6}], Labelled)
    batch = made.batch([1])
    assert (len(made), batch.number.tolist(), batch.prompts.ids.tolist()) == (2, [6], [[Q]])


def test_a_record_without_collate_is_refused(source, context):
    with pytest.raises(UserError, match="no data source makes Batch records: give the class `collate"):
        source(PAIRS).tables(Batch, context)


RATINGS = [("p", "a", 2), ("p", "b", 5), ("q", "c", 1), ("p", "d", 2), ("q", "e", 1), ("r", "f", 3)]
RATED_ROWS = [{"prompt": prompt, "completion": completion, "label": label} for prompt, completion, label in RATINGS]


def test_ratings_of_one_prompt_are_compared(source, context):
    """b beats a and d, which are rated alike, as are those of q; r has one alone."""
    made = source(RATED_ROWS).tables(Pairs, context)
    batch = made.train.batch(range(len(made.train)))
    texts = [context.tokenizer.batch_decode(side.ids, skip_special_tokens=True) for side in (batch.chosen, batch.rejected)]
    assert sorted(zip(*texts, strict=True)) == [("b", "a"), ("b", "d")]
    assert made.report["ratings_compared_within_prompts"] == 6
    ranked = source(RATED_ROWS).tables(Rankings, context).train.batch([0])
    assert ranked.rank.tolist() == [0.0, 1.0, 1.0]


def test_ratings_that_compare_nothing_are_refused_as_before(source, context):
    with pytest.raises(UserError, match="the algorithm learns from pairs"):
        source(RATED_ROWS[-1:]).tables(Pairs, context)
