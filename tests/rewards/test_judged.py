"""Sentiment, constraints, penalties, and ratings from a file."""

import json
import math
from dataclasses import replace

import pytest
import torch

from alignzoo.rewards.human import Ratings
from alignzoo.rewards.text_measures import (
    Case,
    Constraints,
    Feeling,
    Length,
    LengthUnit,
    Repetition,
    Sentiment,
    SoftOverlong,
    TruncationPenalty,
)
from alignzoo.rewards.text_reward import Written
from alignzoo.settings import UserError


def written(text, prompt="", tokens=0, **columns):
    return Written(text=text, prompt=prompt, columns=columns, tokens=tokens)


def sentiment(text, before="", **settings):
    reward = Sentiment(**settings)
    reward.setup(None)
    return reward.rate(written(text, before))


def test_sentiment_is_the_valence_of_the_lexicon_on_vaders_scale():
    """ "good" has a valence of 1.9 in the lexicon, "bad" -2.5; s / sqrt(s^2 + 15)."""
    assert sentiment("a good day") == pytest.approx(1.9 / math.sqrt(1.9**2 + 15), abs=1e-4)
    assert sentiment("a bad day") == pytest.approx(-2.5 / math.sqrt(2.5**2 + 15), abs=1e-4)
    assert sentiment("a day") == 0.0
    assert sentiment("") == 0.0


def test_sentiment_as_its_authors_print_it():
    """The first example of the authors' README, "VADER is smart, handsome, and funny."; other shares and the prompt."""
    text = "VADER is smart, handsome, and funny."
    assert sentiment(text) == pytest.approx(0.8316)
    assert sentiment(text, score=Feeling.pos) == pytest.approx(0.746)
    assert sentiment(" day", "a good", prompt=True) == sentiment("a good day")
    assert sentiment(" day", "a good") == 0.0


def test_sentiment_without_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(UserError, match=r"reward=sentiment needs vaderSentiment\S*, .*: pip install alignzoo\[text\]"):
        sentiment("good")


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("one two three", {"least_words": 3}, 1.0),
        ("one two", {"least_words": 3}, 0.0),
        ("one two three", {"most_words": 2}, 0.0),
        ("The cat sat", {"include": ["cat", "dog"]}, 0.5),
        ("categories", {"include": ["cat"]}, 0.0),
        ("CAT!", {"include": ["cat"]}, 1.0),
        ("The cat sat", {"forbid": ["cat", "dog"]}, 0.5),
        ("Dear all, bye ", {"start": "Dear", "end": "bye"}, 1.0),
        ("all, bye", {"start": "Dear", "end": "bye"}, 0.5),
        ("The cat", {"most_words": 5, "include": ["dog"], "strict": True}, 0.0),
        ("The dog", {"most_words": 5, "include": ["dog"], "strict": True}, 1.0),
        ("a 2nd cat", {"case": "lower"}, 1.0),
        ("12", {"case": Case.lower}, 0.0),
        ("A CAT", {"case": "upper", "most_words": 1}, 0.5),
        ("One. Two", {"least_sentences": 2, "most_sentences": 2}, 1.0),
        ("One. Two. Three!", {"least_sentences": 2, "most_sentences": 2}, 0.5),
    ],
)
def test_constraints(text, settings, expected):
    assert Constraints(**settings).rate(written(text)) == expected


def test_constraints_of_each_row():
    reward = Constraints(column="asked", most_words=3)
    assert reward.rate(written("a b c d", asked={"most_words": 4, "include": ["a", "x"]})) == pytest.approx(2 / 3)
    assert reward.rate(written("a b c d", asked={"most_words": None, "include": ["a"]})) == 0.5  # as data files fill in
    assert reward.rate(written("a b c d", asked=None)) == 0.0
    assert Constraints(column="asked").rate(written("a", asked={})) is None


@pytest.mark.parametrize(
    ("settings", "text", "tokens", "expected"),
    [
        ({}, "", 7, -7.0),
        ({"most": 5}, "", 7, -2.0),
        ({"least": 3, "most": 5}, "", 4, 0.0),
        ({"least": 3, "most": 5}, "", 1, -2.0),
        ({"least": 3, "most": None}, "", 900, 0.0),
        ({"most": 1, "unit": LengthUnit.words}, "a big cat", 0, -2.0),
        ({"most": 1, "unit": LengthUnit.characters}, "a big cat", 0, -8.0),
    ],
)
def test_length(settings, text, tokens, expected):
    assert Length(**settings).rate(written(text, tokens=tokens)) == expected


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b c", 3, 0.0),
        ("a b a b a b", 2, 2 / 5 - 1),  # ab ba ab ba ab
        ("no No NO no", 1, 1 / 4 - 1),
        ("a b", 3, 0.0),
        ("", 1, 0.0),
    ],
)
def test_repetition(text, n, expected):
    assert Repetition(n=n).rate(written(text)) == pytest.approx(expected)


def test_truncation_and_length_in_tokens(completions):
    cut = replace(completions, truncated=torch.tensor([True, False, True]))
    assert TruncationPenalty(penalty=0.5)(cut).total.tolist() == [-0.5, 0.0, -0.5]
    assert Length()(cut).total.tolist() == [-8.0, -2.0, -12.0]  # the cat, a, The the dog: bytes, and EOS


def test_overlong_by_hand_and_as_trl_has_it(completions, context):
    """8, 2 and 12 tokens; of at most 10, of which the last 4 cost more and more: (6 - 8) / 4. By default the run's limit."""
    trl = pytest.importorskip("trl.rewards")
    reward = SoftOverlong(most=10, buffer=4)
    reward.setup(context)
    assert reward(completions).total.tolist() == [-0.5, 0.0, -1.0]
    ids = [row[mask].tolist() for row, mask in zip(completions.ids, completions.scored, strict=True)]
    for most in (7, 8, 9, 12, 20):
        reward = SoftOverlong(most=most, buffer=4, penalty=2.0)
        reward.setup(context)
        theirs = trl.get_soft_overlong_punishment(most, 4)(ids)
        assert reward(completions).total.tolist() == pytest.approx([2 * value for value in theirs])
    shortest = replace(context, sampling=replace(context.sampling, max_new_tokens=12))
    default = SoftOverlong()
    default.setup(shortest)
    assert default(completions).total.tolist() == [0.0, 0.0, -1.0]
    with pytest.raises(UserError, match=r"reward\.buffer=13 is more than the longest completion, 12 tokens"):
        SoftOverlong(buffer=13).setup(shortest)
    with pytest.raises(UserError, match=r"reward\.most=16 is out of reach: up to 12 tokens .*max_new_tokens=12 allows no more"):
        SoftOverlong(most=16, buffer=4).setup(shortest)


def test_ratings_are_found_by_prompt_and_completion_and_averaged(tmp_path, source, context, completions):
    lines = [
        {"prompt": "p", "completion": "the cat", "rating": 4},
        {"prompt": "p", "completion": " the cat ", "rating": 1.0, "rater": "b"},
        {"prompt": "p", "completion": "a", "rating": 5},
        {"prompt": "qq", "completion": "The the dog", "rating": -2},
    ]
    path = tmp_path / "ratings.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    reward = Ratings(path=str(path)).resolve(source)
    reward.setup(context)
    scores = reward(completions)
    assert scores.usable.tolist() == [True, False, True]
    assert scores.total[[0, 2]].tolist() == [2.5, -2.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: must be an object with the texts prompt and completion, and a rating, as JSON"),
        ("[1]", "line 2: must be an object with the texts prompt and completion, and a rating"),
        ('{"prompt": "p", "rating": 1}', "line 2: must be an object with the texts prompt and completion"),
        ('{"prompt": "p", "completion": "c", "rating": "good"}', "line 2: rating is 'good': must be a finite number"),
        ('{"prompt": "p", "completion": "c", "rating": NaN}', "line 2: rating is nan: must be a finite number"),
        ('{"prompt": "p", "completion": "c", "rating": true}', "line 2: rating is True"),
    ],
)
def test_a_bad_line_of_ratings_is_named(tmp_path, context, line, message):
    path = tmp_path / "ratings.jsonl"
    path.write_text('{"prompt": "p", "completion": "c", "rating": 1}\n' + line)
    with pytest.raises(UserError, match=message):
        Ratings(path=str(path)).setup(context)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraints(), "reward=constraints has none"),
        (lambda: Constraints(least_words=5, most_words=3), "reward.least_words=5 is more than reward.most_words=3"),
        (lambda: Constraints(most_words=-1), "reward.most_words=-1"),
        (
            lambda: Constraints(least_sentences=2, most_sentences=1),
            "reward.least_sentences=2 is more than reward.most_sentences=1",
        ),
        (
            lambda: Constraints(column="asked").rate(written("a", asked={"case": "title"})),
            "reward.case=title: must be any, lower, upper",
        ),
        (lambda: Constraints(column="asked").rate(written("a")), "reward.column=asked: the data has no such column"),
        (lambda: Constraints(column="asked").rate(written("a", asked="x")), "must hold mappings of least_words, .*not 'x'"),
        (
            lambda: Constraints(column="asked").rate(written("a", asked={"includes": []})),
            r"no constraint 'includes'. Did you mean 'include'",
        ),
        (lambda: Length(least=5, most=3), "reward.most=3: must be >= reward.least=5, or null"),
        (lambda: Length(least=-1), "reward.least=-1"),
        (lambda: Repetition(n=0), "reward.n=0"),
        (lambda: TruncationPenalty(penalty=0), "reward.penalty=0: must be > 0"),
        (lambda: Ratings().resolve(None), "reward=ratings needs a file"),
        (lambda: Ratings(path="nowhere.jsonl").resolve(None), "reward.path=nowhere.jsonl: no such file"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError, match=message):
        make()
