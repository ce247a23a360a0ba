"""The baseline of benchmarks/reward_models, worked by hand."""

import pytest
import torch

from benchmarks.reward_models.bag_of_words import BagOfWords, terms


def test_terms_are_words_and_neighbours_each_once():
    assert terms("No, no: NO no!") == {"no", ",", ":", "!", "no ,", ", no", "no :", ": no", "no no", "no !"}


def test_the_weights_minimise_the_penalised_loss():
    """Yes beats no three times of four: the margin d minimises 3/4 log(1 + e^-d) + 1/4 log(1 + e^d) + p (w_yes^2 + w_no^2),
    where w_yes = - w_no = d / 2, so that sigma(d) + p d = 3/4."""
    made = BagOfWords([("yes", "no")] * 3 + [("no", "yes")], penalty=0.01)
    d = made.margins([("yes", "no")]).item()
    assert torch.sigmoid(torch.tensor(d)).item() + 0.01 * d == pytest.approx(0.75, abs=1e-4)
    assert made.weight[made.column["yes"]].item() == pytest.approx(d / 2, abs=1e-4)


def test_what_both_sides_have_and_what_was_never_seen_counts_nothing():
    made = BagOfWords([("so yes", "so no")] * 2, penalty=0.1)
    assert made.margins([("so", "so"), ("maybe", "perhaps"), ("yes maybe", "yes")]).tolist() == [0, 0, 0]
    assert made.margins([("so yes", "so no")]).item() == -made.margins([("so no", "so yes")]).item() > 0
