"""The text rewards, by hand."""

import pytest
import torch

from alignzoo.rewards import text


def test_length_counts_words_or_the_distance_to_a_target():
    assert text.length(["one two, three.", ""]) == [3.0, 0.0]
    assert text.length(["one two three", "", "a b"], target=2) == [-1.0, -2.0, 0.0]


def test_word_frequency_ignores_case():
    assert text.word_frequency(["The the cat", "", "dog"], word="THE") == pytest.approx([2 / 3, 0.0, 0.0])


def test_token_frequency_is_the_mean_of_the_reward_of_each_token(completions):
    e = 3 + ord("e")
    each = text.each_token(completions, token=e)
    assert text.token_frequency(completions, token=e).tolist() == pytest.approx([1 / 8, 0.0, 2 / 12])
    assert each.sum(1).tolist() == [1.0, 0.0, 2.0]
    assert torch.all(each[~completions.scored] == 0)


def test_overlap_is_the_f1_of_shared_ngrams():
    # 2 of 3 and of 2 words: F1 = 2 * 2 / 5; one bigram of 2 and 1: 2 * 1 / 3
    assert text.overlap(["the cat sat"], ["The cat"]) == pytest.approx([0.8])
    assert text.overlap(["the cat sat"], ["the cat"], n=2) == pytest.approx([2 / 3])
    assert text.overlap(["the the", "", "x"], ["the", "the", "y"]) == pytest.approx([2 / 3, 0.0, 0.0])
