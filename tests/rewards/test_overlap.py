"""Overlap, BLEU, chrF and ROUGE against values worked from their definitions."""

import math
from dataclasses import replace

import pytest
import torch

from alignzoo.rewards.reference_metrics import Bleu, Chrf, Overlap, OverlapMeasure, Rouge, RougeKind
from alignzoo.settings import UserError


def scored(reward, completions, text, *references):
    """The score of one text against references, which may be several texts, or None."""
    one = completions.take([0])
    prompts = replace(one.prompts, columns={"reference": [references[0] if len(references) == 1 else list(references)]})
    ids = torch.tensor([[3 + byte for byte in text.encode()] + [2]])
    on = torch.ones_like(ids, dtype=torch.bool)
    reward.setup(None)
    made = reward(replace(one, prompts=prompts, ids=ids, attended=on, scored=on))
    return made.total.item() if made.usable.all() else None


@pytest.mark.parametrize(
    ("text", "references", "settings", "expected"),
    [
        ("The cat sat", ["the cat"], {}, 2 * 2 / (3 + 2)),
        ("The cat sat", ["the cat"], {"measure": OverlapMeasure.precision}, 2 / 3),
        ("The cat sat", ["the cat"], {"measure": OverlapMeasure.recall}, 1.0),
        (
            "the the the",
            ["the cat"],
            {"measure": OverlapMeasure.precision},
            1 / 3,
        ),  # a word counts as often as the reference has it
        ("the cat sat", ["the cat sat on"], {"n": 2}, 2 * 2 / (2 + 3)),
        ("the cat", ["a dog", "one cat"], {}, 1 / 2),
        ("", ["the cat"], {}, 0.0),
        ("the cat", [None], {}, None),
    ],
)
def test_overlap(completions, text, references, settings, expected):
    assert scored(Overlap(**settings), completions, text, *references) == pytest.approx(expected)


def test_bleu_by_hand(completions):
    """The cat sat / the cat sat on: precisions 3/3, 2/2 and 1/1 for the orders there are; brevity exp(1 - 4/3)."""
    short = scored(Bleu(), completions, "the cat sat", "the cat sat on")
    assert short == pytest.approx(math.exp(1 - 4 / 3), abs=1e-5)
    four = scored(Bleu(), completions, "a b c d e", "a b c d f")  # 4/5, 3/4, 2/3, 1/2; equal lengths
    assert four == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4), abs=1e-5)
    clipped = scored(
        Bleu(order=1), completions, "the the the the the the the", "the cat is on the mat", "there is a cat on the mat"
    )
    assert clipped == pytest.approx(
        2 / 7, abs=1e-5
    )  # the example of Papineni et al. (2002), section 2.1; 7 words in the nearest
    assert scored(Bleu(order=1), completions, "The", "the") == 0.0
    assert scored(Bleu(order=1, lowercase=True), completions, "The", "the") == pytest.approx(1.0, abs=1e-5)
    assert scored(Bleu(), completions, "x", None) is None


def test_chrf_by_hand(completions):
    """abc / abd, orders 1 and 2: precision = recall = 2/3 and 1/2, mean 7/12, so F of any beta is 7/12."""
    assert scored(Chrf(order=2), completions, "abc", "abd") == pytest.approx(7 / 12, abs=1e-5)
    # ab / abc of order 1: precision 1, recall 2/3; F2 = 5 P R / (4 P + R) = 5/7, F1 = 4/5
    assert scored(Chrf(order=1), completions, "ab", "abc") == pytest.approx(5 / 7, abs=1e-5)
    assert scored(Chrf(order=1, beta=1), completions, "ab", "abc") == pytest.approx(4 / 5, abs=1e-5)
    # characters 1, words 1: "ab c" / "ab d" has 2/3 and 1/2
    assert scored(Chrf(order=1, words=1), completions, "ab c", "ab d") == pytest.approx(7 / 12, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": RougeKind.rouge1}, 3 / 4),  # police, the, gunman of four words each
        ({"kind": RougeKind.rouge2}, 1 / 3),  # the gunman
        ({}, 2 / 4),  # the example of Lin (2004), section 3.1: police ... the gunman in the other order shares "the gunman"
    ],
)
def test_rouge_by_hand(completions, settings, expected):
    assert scored(Rouge(**settings), completions, "the gunman kill police", "police killed the gunman") == pytest.approx(
        expected
    )


def test_rouge_of_several_references_is_the_best_and_may_stem(completions):
    assert scored(Rouge(), completions, "the cat", "a dog", "the cat") == 1.0
    assert scored(Rouge(kind=RougeKind.rouge1, stem=True), completions, "kills", "killed") == 1.0
    assert scored(Rouge(kind=RougeKind.rouge1), completions, "kills", "killed") == 0.0


@pytest.mark.parametrize("kind", [Bleu, Rouge])
def test_a_package_that_is_missing_is_named_with_the_remedy(kind, monkeypatch):
    for package in ("sacrebleu", "sacrebleu.metrics", "rouge_score", "rouge_score.rouge_scorer"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=rf"reward={kind.__name__.lower()} needs \w+\S*, .*: pip install alignzoo\[text\]"):
        kind().setup(None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Overlap(n=0), "reward.n=0"),
        (lambda: Bleu(order=0), "reward.order=0"),
        (lambda: Chrf(order=0), "reward.order=0"),
        (lambda: Chrf(words=-1), "reward.words=-1"),
        (lambda: Chrf(beta=0), "reward.beta=0"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_column_that_is_not_there(completions):
    with pytest.raises(UserError, match=r"reward.reference=reference: the data has no such column.*answer, topic"):
        Overlap()(completions)
