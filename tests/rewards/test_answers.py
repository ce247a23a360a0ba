"""Exact match, regular expressions, numbers and arithmetic, by hand."""

from fractions import Fraction

import pytest

from alignzoo.rewards.answers import Arithmetic, ExactMatch, Numeric, Regex, answer
from alignzoo.rewards.text_reward import Written
from alignzoo.settings import UserError


def written(text, **columns):
    return Written(text=text, prompt="", columns=columns, tokens=len(text))


@pytest.mark.parametrize(
    ("text", "reference", "settings", "expected"),
    [
        ("Paris", "Paris", {}, 1.0),
        (" Paris\n", "Paris", {}, 1.0),
        ("paris", "Paris", {}, 0.0),
        ("paris", "Paris", {"ignore_case": True}, 1.0),
        ("Paris.", "Paris", {}, 0.0),
        ("Paris.", "Paris", {"ignore_punctuation": True}, 1.0),
        ("Paris, France", "Paris", {}, 0.0),
        ("b", ["a", "b"], {}, 1.0),
        ("4", 4, {}, 1.0),
        ("x", None, {}, None),
        ("x", [], {}, None),
    ],
)
def test_exact_match(text, reference, settings, expected):
    assert ExactMatch(**settings).rate(written(text, reference=reference)) == expected


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("the cat sat", {"pattern": "c.t"}, 1.0),
        ("the dog sat", {"pattern": "c.t"}, 0.0),
        ("the cat sat", {"pattern": "c.t", "whole": True}, 0.0),
        (" cat\n", {"pattern": "c.t", "whole": True}, 1.0),
        ("CAT", {"pattern": "cat"}, 0.0),
        ("CAT", {"pattern": "cat", "ignore_case": True}, 1.0),
        ("<a>\nb</a>", {"pattern": "<a>.*</a>"}, 1.0),
    ],
)
def test_regex(text, settings, expected):
    assert Regex(**settings).rate(written(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She has 16 - 3 - 4 = 9 eggs.\n#### 18", 18),
        ("#### 1 is wrong, so #### 1,234.50 dollars, not 7", Fraction(2469, 2)),
        ("first 3, then 5.", 5),
        ("it is -7", -7),
        ("pages 10-12", 12),
        ("costs $2,000,000", 2_000_000),
        ("1,2", 2),
        ("half is .5", Fraction(1, 2)),
        ("3.0", 3),
        ("no idea", None),
        ("5 #### none", None),
    ],
)
def test_the_number_that_a_solution_ends_with(text, expected):
    assert answer(text) == expected


@pytest.mark.parametrize(
    ("text", "reference", "settings", "expected"),
    [
        ("so it is 1,000", "steps ... #### 1000.00", {}, 1.0),
        ("so it is 1001", "#### 1000", {}, 0.0),
        ("so it is 1001", "#### 1000", {"tolerance": 0.001}, 1.0),
        ("so it is 1002", "#### 1000", {"tolerance": 0.001}, 0.0),
        ("-999", "-1000", {"tolerance": 0.001}, 1.0),
        ("none", "#### 1000", {}, 0.0),
        ("3", ["2", "3"], {}, 1.0),
        ("3", "no number", {}, None),
        ("Answer: 3 or 4", "3", {"marker": "Answer:"}, 1.0),
    ],
)
def test_numeric(text, reference, settings, expected):
    assert Numeric(**settings).rate(written(text, answer=reference)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 + 30 = 42", 1.0),
        ("12 + 30 = 43", 0.0),
        ("2 + 3 x 4 = 14, and 2*3=7", 0.5),
        ("10 - 2 - 3 = 5", 1.0),
        ("7 / 2 = 3.5", 1.0),
        ("7 / 2 = 3", 0.0),
        ("2 / 3 = 0.67", 1.0),
        ("2 / 3 = 0.66", 0.0),
        ("1 / 0 = 0", 0.0),
        ("1,000 + 1 = 1,001", 1.0),
        ("3 - -2 = 5", 1.0),
        ("6 \u00d7 7 = 42", 1.0),
        ("(1 + 2) * 3 = 9", 0.25),  # with brackets: not read
        ("x = 3", 0.25),
        ("42", 0.25),
    ],
)
def test_arithmetic(text, expected):
    assert Arithmetic(none=0.25).rate(written(text)) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regex(), "reward=regex needs a pattern"),
        (lambda: Regex(pattern="(a"), r"reward.pattern=\(a: no regular expression: missing \)"),
        (lambda: Numeric(tolerance=1.0), r"reward.tolerance=1.0.*\[0, 1\)"),
        (
            lambda: Numeric().rate(written("1", anwser="1")),
            r"reward.reference=answer: the data has no such column. Did you mean",
        ),
        (lambda: ExactMatch().rate(written("1", reference={"a": 1})), "must hold a text or a list of texts, not {'a': 1}"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError, match=message):
        make()
