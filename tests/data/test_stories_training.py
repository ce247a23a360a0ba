"""The script that trains the story model: its rows, its windows, its schedule, and going on where it stopped."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignzoo.models.tokenizers import train_bpe
from benchmarks.stories.corpus import Story, encode, pack, windows
from benchmarks.stories.measure import perplexity
from benchmarks.stories.prompts import passages, sentences
from benchmarks.stories.training import Recipe, fresh, train

BOS, PAD = 1, 0
STORIES = [[10, 11, 2], [20, 21, 22, 23, 24, 25, 2], [30, 31, 32, 2]]
RECIPE = Recipe(
    vocabulary=270, context=16, width=8, layers=1, heads=2, inner=16, rows=2, steps=8, decay=2, warmup=2, dropout=0.1
)
TEXTS = ["the cat sat.", "a dog ran far away.", "the bird flew.", "a fish swam.", "the end."]


def test_every_story_begins_a_row_and_long_ones_fill_the_others() -> None:
    for seed in range(20):
        rows = pack(STORIES, 5, BOS, PAD, random.Random(seed)).tolist()
        begins = [row[1] if row[0] == BOS else row[0] for row in rows]
        assert sorted(begins) == [10, 20, 30]
        later = STORIES[1][4 if rows[begins.index(20)][0] == BOS else 5 :]
        added = [token for row in rows if 2 in row for token in row[row.index(2) + 1 :]]
        assert added == (later + [PAD] * 5)[: len(added)]
    orders = {str(pack(STORIES, 5, BOS, PAD, random.Random(seed)).tolist()) for seed in range(20)}
    assert len(orders) > 10


def test_windows_score_every_token_but_the_first_once() -> None:
    for size in range(2, 40):
        scored = []
        for window, first in windows(list(range(size)), 8, 4):
            scored += window[first:]
        assert scored == list(range(1, size))


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [RECIPE.rate(step) for step in range(RECIPE.steps)]
    assert rates == [0.5, 1, 1, 1, 1, 1, 1, 0.5]


def test_going_on_is_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    """Also for a run that was first meant to be shorter; not once the learning rate falls."""
    tokenizer = train_bpe(TEXTS, RECIPE.vocabulary)
    stories = encode([Story("own", text) for text in TEXTS], tokenizer)
    longer = replace(RECIPE, steps=12)

    def weights(name: str, *recipes: Recipe) -> torch.Tensor:
        seen: list[int] = []
        for recipe in recipes:
            model = fresh(recipe, tokenizer)
            train(model, stories, recipe, tokenizer, tmp_path / name, 3, False, lambda step, _: seen.append(step))
        assert seen[-1] == recipes[-1].steps
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    whole = weights("whole", longer)
    stopped = replace(longer, steps=1000)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(stopped, tokenizer), stories, stopped, tokenizer, tmp_path / "parts", 3, False, _interrupt)
    assert torch.equal(weights("parts", longer), whole)
    weights("short", RECIPE)
    with pytest.raises(SystemExit, match="at step 8, where the learning rate falls already"):
        weights("short", longer)
    with pytest.raises(SystemExit, match="trained by another recipe"):
        weights("short", replace(RECIPE, width=16))


def _interrupt(step: int, row: dict[str, float]) -> None:
    if step == 6:
        raise KeyboardInterrupt


def test_perplexity_of_a_model_that_knows_nothing() -> None:
    """Uniform over the vocabulary: the perplexity a token is its size, and the loss a character follows."""
    tokenizer = train_bpe(TEXTS, RECIPE.vocabulary)
    model = fresh(RECIPE, tokenizer)
    torch.nn.init.zeros_(model.lm_head.weight)
    text = "the cat sat. " * 4
    measured = perplexity(model, tokenizer, [Story("own", text), Story("other", "a dog")], RECIPE.context)
    tokens = len(tokenizer(text)["input_ids"]) + 1
    assert measured["own"]["perplexity"] == pytest.approx(len(tokenizer), rel=1e-4)
    assert measured["own"]["tokens"] == tokens
    assert measured["own"]["perplexity_per_character"] == pytest.approx(len(tokenizer) ** (tokens / len(text)), rel=1e-4)
    assert measured["all"]["tokens"] == tokens + measured["other"]["tokens"]


def test_sentences_end_where_they_end() -> None:
    text = 'mr. fox ran. "stop!" said mrs. hen.\nno end'
    assert [text[start:end] for start, end in sentences(text)] == ["mr. fox ran.", '"stop!"', "said mrs. hen."]


def test_a_passage_is_a_sentence_with_what_follows_it() -> None:
    text = "there was a very old king. " + "he was sad all day long and all night. " * 10
    (row,) = passages(Story("african", text.strip()))
    assert row["prompt"] == "there was a very old king."
    assert row["completion"] == " he was sad all day long and all night." * 7
