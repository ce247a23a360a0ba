"""The stories that come with alignzoo."""

import re
from functools import cache

import pytest
import torch

from alignzoo.batch import Completions, Pairs, Prompts
from alignzoo.contracts import Context
from alignzoo.data.rows import Row
from alignzoo.data.stories import FOLDER, Stories, StoryPart
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Model, Sampling, UserError, embedded

FILES = [(part, heldout) for part in (StoryPart.prompts, StoryPart.continuations) for heldout in (False, True)]


@cache
def rows(part: StoryPart, heldout: bool) -> list[Row]:
    return Stories(part=part).rows()[heldout]


def test_nothing_held_out_is_trained_on() -> None:
    seen = {row["prompt"] for part in (StoryPart.prompts, StoryPart.continuations) for row in rows(part, False)}
    kept = {row["prompt"] for part in (StoryPart.prompts, StoryPart.continuations) for row in rows(part, True)}
    assert seen.isdisjoint(kept)
    assert len(rows(StoryPart.prompts, False)) >= 500
    assert len(rows(StoryPart.prompts, True)) >= 200
    assert len(rows(StoryPart.continuations, False)) >= 1000
    told = {row["completion"].strip() for row in rows(StoryPart.continuations, False)}
    assert told.isdisjoint(row["completion"].strip() for row in rows(StoryPart.continuations, True))


def test_only_texts_that_may_be_passed_on_are() -> None:
    card = (FOLDER.parent / "README.md").read_text("utf-8")
    sources = {(row.columns["source"], row.columns["licence"]) for part, heldout in FILES for row in rows(part, heldout)}
    assert sources == {
        ("african", "CC-BY-3.0 or CC-BY-4.0, by story"),
        ("storyweaver", "CC-BY-4.0"),
        ("fairytaleqa", "public domain"),
        ("template", "Apache-2.0"),
    }
    for name, stories in (("ATTRIBUTION_african_storybook.md", 300), ("ATTRIBUTION_storyweaver.md", 380)):
        assert name in card
        assert len(re.findall(r"^\d{4} \| ", (FOLDER.parent / name).read_text("utf-8"), re.MULTILINE)) >= stories
    for licence in ("CC BY 4.0", "CC BY 3.0", "public domain", "Apache-2.0"):
        assert licence in card


def context() -> Context:
    sampling = Sampling(max_new_tokens=64)
    return Context(
        tokenizer=byte_level(), seed=0, sampling=sampling, context_length=512, cache=FOLDER, device=torch.device("cpu")
    )


def test_the_rows_are_those_the_algorithm_needs() -> None:
    shown = Stories().tables(Completions, context())
    asked = Stories().tables(Prompts, context())
    assert (len(shown.train), len(asked.train)) == (
        len(rows(StoryPart.continuations, False)),
        len(rows(StoryPart.prompts, False)),
    )
    assert shown.prompts is not None and asked.heldout is not None
    assert len(asked.heldout) == len(rows(StoryPart.prompts, True))
    with pytest.raises(UserError, match="the algorithm learns from pairs"):
        Stories().tables(Pairs, context())


def test_files_of_ones_own_are_refused() -> None:
    with pytest.raises(UserError, match="brings its own files"):
        Stories(path="mine.jsonl")


def test_a_model_that_does_not_come_with_alignzoo() -> None:
    with pytest.raises(UserError, match="alignzoo://storys: no such model comes with alignzoo"):
        Model(path="alignzoo://storys")
    assert embedded("./alignzoo") == "./alignzoo"
