"""Log-probs and entropies, with tokens outside the support."""

import math

import pytest
import torch

from alignzoo.functional import entropy, selective_log_softmax

QUARTERS = torch.tensor([[0.0, math.log(3), -torch.inf]])  # probabilities 1/4, 3/4, 0


def test_selective_log_softmax_by_hand() -> None:
    """log 1/4 and log 3/4, and minus infinity for the token outside the support."""
    values = selective_log_softmax(QUARTERS.expand(3, 3), torch.tensor([0, 1, 2]))
    assert values.tolist() == pytest.approx([-1.386294, -0.287682, -math.inf], abs=1e-6)


def test_selective_log_softmax_is_that_of_torch_in_value_and_gradient() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0, 4, 2], [1, 1, 3]])
    expected = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(selective_log_softmax(logits, ids), expected)
    mine = torch.autograd.grad(selective_log_softmax(logits, ids).sum(), logits)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(expected.sum(), logits)[0])


def test_entropy_by_hand_and_with_finite_gradient_outside_the_support() -> None:
    """H = 1/4 log 4 + 3/4 log 4/3 = 0.562335; dH/dz_v = - p_v (log p_v + H) = +-0.205990."""
    logits = QUARTERS.clone().requires_grad_()
    entropy(logits).sum().backward()
    assert entropy(logits).item() == pytest.approx(0.562335, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.205990, -0.205990, 0.0], abs=1e-6)


def test_uniform_entropy_is_the_log_of_the_number_of_supported_tokens() -> None:
    logits = torch.zeros(1, 10).index_fill(1, torch.tensor([3, 7]), -torch.inf)
    assert entropy(logits).item() == pytest.approx(math.log(8), abs=1e-6)
