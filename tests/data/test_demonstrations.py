"""Held-out demonstrations to take a perplexity on, whatever an algorithm learns from."""

import pytest

from alignzoo.batch import Pairs, Prompts
from alignzoo.data.stories import Stories

DEMONSTRATION = {"prompt": "q{i}", "completion": " yes"}
PAIR = {"prompt": "q{i}", "chosen": " yes", "rejected": " no"}
RANKING = {"prompt": "q{i}", "completions": [" no", " yes"], "ranks": [1, 0]}


def filled(row, **more):
    return [{**row, **more, "prompt": row["prompt"].format(i=i)} for i in range(20)]


@pytest.mark.parametrize(("row", "view"), [(DEMONSTRATION, Prompts), (PAIR, Pairs), (PAIR, Prompts), (RANKING, Pairs)])
def test_they_are_the_good_completions_of_held_out_prompts(source, context, row, view):
    data = source(filled(row), heldout=0.4)
    tables = data.tables(view, context)
    shown = data.heldout_demonstrations(context)
    assert len(shown) == len(tables.prompts) < 20
    records = shown.batch(range(len(shown)))
    assert set(records.text) == {" yes"}
    assert set(records.prompts.text) == set(tables.prompts.batch(range(len(tables.prompts))).text)


def test_labels_say_which_are_good(source, context):
    rows = filled(DEMONSTRATION, label=1) + filled({**DEMONSTRATION, "completion": " no"}, label=0)
    data = source(rows, heldout=0.4)
    data.tables(Prompts, context)
    shown = data.heldout_demonstrations(context)
    assert set(shown.batch(range(len(shown))).text) == {" yes"}


def test_prompts_alone_demonstrate_nothing(source, context):
    data = source(filled({"prompt": "q{i}"}), heldout=0.4)
    assert data.tables(Prompts, context).prompts
    assert data.heldout_demonstrations(context) is None


def test_nothing_held_out_demonstrates_nothing(source, context):
    data = source(filled(PAIR))
    data.tables(Prompts, context)
    assert data.heldout_demonstrations(context) is None


def test_stories_have_continuations_beside_their_prompts(context):
    context.context_length = 2048
    data = Stories()
    prompts = data.tables(Prompts, context).prompts
    shown = data.heldout_demonstrations(context)
    told = shown.batch(range(len(shown)))
    assert len(shown) >= 90 and len(prompts) >= 200
    assert min(len(text) for text in told.text) > 20
