"""Words of many scripts, counted, compared and looked for."""
# ruff: noqa: RUF001 - full-width punctuation is what the texts are written with

from __future__ import annotations

import pytest

from alignzoo.common.words import ngrams, whole, words
from alignzoo.rewards.answers import Arithmetic, ExactMatch, Numeric, answer
from alignzoo.rewards.judge import Judge
from alignzoo.rewards.reference_metrics import Bleu, Overlap, Rouge, RougeKind, Tokenizer
from alignzoo.rewards.text import length, overlap, word_frequency
from alignzoo.rewards.text_measures import Constraints, Length, LengthUnit, Repetition
from alignzoo.rewards.text_reward import Written
from alignzoo.statistics.text_statistics import distinct, repetition

WALL = "我爱长城吗？"


def one(text: str, **columns: object) -> Written:
    return Written(text, "", columns, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop_it, 3 times!", ["Don", "t", "stop_it", "3", "times"]),
        (WALL, ["我", "爱", "长", "城", "吗"]),
        ("GPT4模型 is 好", ["GPT4", "模", "型", "is", "好"]),
        ("日本のテスト・A", ["日", "本", "の", "テ", "ス", "ト", "A"]),
        ("한국어 글", ["한", "국", "어", "글"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ไทยดี", ["ไ", "ท", "ย", "ดี"]),
        ("naïve cafe\u0301", ["naïve", "cafe\u0301"]),
        ("Привет, мир", ["Привет", "мир"]),
        ("", []),
    ],
)
def test_words_are_those_of_the_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert ngrams(text, 1).total() == len(expected) == length([text])[0]


@pytest.mark.parametrize(
    ("phrase", "text", "there"),
    [
        ("cat", "A category", False), ("cat", "A CAT.", True), ("cat", "concat", False), ("a b", "see a b c", True),
        ("长城", WALL, True), ("城墙", WALL, False), ("cat", "我爱cat吗", True), ("5", "第5名", True), ("5", "15名", False),
        ("हिन", "हिन्दी", False), ("हिन्दी", "यह हिन्दी है", True), ("C++", "in C++ now", True), ("e", "cafe\u0301", False),
    ],
)  # fmt: skip
def test_phrases_are_found_as_whole_words(phrase: str, text: str, there: bool) -> None:
    assert (whole(phrase).search(text) is not None) == there
    assert Constraints(include=[phrase]).rate(one(text)) == there
    assert Constraints(forbid=[phrase]).rate(one(text)) == (not there)


def test_constraints_count_characters_of_chinese() -> None:
    long = one("长城" * 105)
    assert Constraints(most_words=5).rate(long) == 0.0 and Constraints(least_words=210, most_words=210).rate(long) == 1.0
    assert Constraints(most_words=5).rate(one(WALL)) == 1.0
    assert Length(unit=LengthUnit.words, most=200).rate(long) == -10.0
    assert word_frequency(["长城长"], "长") == [pytest.approx(2 / 3)]


def test_overlap_distinct_and_repetition_of_chinese() -> None:
    """我爱长城 and 我爱故宫 share 2 of 4 characters, and 1 of 3 pairs; of 长城长城长, the third triple is the first."""
    assert overlap(["我爱长城"], ["我爱故宫"]) == [0.5] and overlap(["我爱长城"], ["我爱故宫"], n=2) == [pytest.approx(1 / 3)]
    assert Overlap(reference="r").rate(one("我爱长城", r="我爱故宫")) == 0.5
    assert distinct(["长城长城"], 1) == 0.5
    assert repetition(["长城长城长"]) == pytest.approx(1 / 3)
    assert Repetition().rate(one("长城长城长")) == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    ("text", "number"),
    [("差是-5", -5), ("差是\u22125", -5), ("差是\uff0d5", -5), ("x-5", 5), ("3-5", 5), ("共3个，剩5个", 5), ("答案：１２", 12)],
)
def test_numbers_among_other_scripts(text: str, number: int) -> None:
    assert answer(text) == number
    assert Numeric().rate(one(text, answer=str(number))) == 1.0


def test_statements_and_answers_among_chinese() -> None:
    assert Arithmetic(none=0.5).rate(one("我算12+3=15。")) == 1.0 and Arithmetic(none=0.5).rate(one("我算12+3=16。")) == 0.0
    match = ExactMatch(ignore_punctuation=True)
    assert match.rate(one("北京。", reference="北京")) == 1.0 and match.rate(one("「a+b」!", reference="ab")) == 1.0
    assert match.rate(one("北京。", reference="南京")) == 0.0


def test_a_verdict_among_chinese() -> None:
    judge = Judge(url="http://localhost", model="m", verdicts={"好": 1.0, "不好": 0.0})
    assert judge._verdict("我认为不好。") == 0.0 and judge._verdict("很好！") == 1.0


@pytest.mark.parametrize("kind", list(RougeKind))
def test_rouge_of_chinese(kind: RougeKind) -> None:
    rate = Rouge(kind=kind).rater()
    assert rate("我爱长城", ["我爱长城"]) == 1.0 and rate("我爱", ["长城"]) == 0.0


def test_rouge_by_hand_and_as_rouge_score_has_it_in_english() -> None:
    """3 of 4 characters in order; stems and underscores as rouge_score's own tokenizer."""
    from rouge_score.rouge_scorer import RougeScorer

    assert Rouge().rater()("我爱故城", ["我爱长城"]) == 0.75
    texts = ["The runner_s were running, quickly; 2 cats' cats", "A runner runs quickly_cat: the cats 22", "_ the -- __a"]
    for stem in (False, True):
        rate, theirs = Rouge(stem=stem).rater(), RougeScorer(["rougeL"], use_stemmer=stem)
        for text in texts:
            assert rate(text, [texts[0]]) == theirs.score(texts[0], text)["rougeL"].fmeasure


def test_bleu_takes_the_tokens_of_the_references_script() -> None:
    """Of 6 characters 5 are right, 4 of 5 pairs, 3 of 4 triples, 2 of 3 fours at the end: the fourth root of their product."""
    rate, standard = Bleu().rater(), Bleu(tokenizer=Tokenizer.standard).rater()
    expected = (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert rate("我爱长城故宫", ["他爱长城故宫"]) == pytest.approx(expected, abs=1e-6)
    assert rate("テストのため", ["アストのため"]) == pytest.approx(expected, abs=1e-6)
    assert standard("我爱长城故宫", ["他爱长城故宫"]) == 0.0
    assert rate("it isn't here.", ["it is not here."]) == standard("it isn't here.", ["it is not here."])


def test_words_are_as_fast_as_text_is_long() -> None:
    text = "word " * 20_000 + "长" * 20_000 + "\u0301" * 20_000
    assert len(words(text)) == 40_000
