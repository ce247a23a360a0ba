"""The DPO loss by hand, its gradient, its extremes."""

import math

import pytest
import torch

from alignzoo.functional import dpo_loss


def test_dpo_by_hand() -> None:
    """beta 0.1, Delta 2: - log sigma(0.2) = log(1 + e^-0.2) = 0.598139; the other label's is 0.2 more.
    Smoothed by 0.1: 0.9 * 0.598139 + 0.1 * 0.798139 = 0.618139."""
    chosen, rejected = torch.tensor([1.5]), torch.tensor([-0.5])
    assert dpo_loss(chosen, rejected, 0.1).item() == pytest.approx(0.598139, abs=1e-6)
    assert dpo_loss(rejected, chosen, 0.1).item() == pytest.approx(0.798139, abs=1e-6)
    assert dpo_loss(chosen, rejected, 0.1, 0.1).item() == pytest.approx(0.618139, abs=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_dpo_at_the_reference_is_log_two_and_pulls_the_sides_apart(label_smoothing: float) -> None:
    """dL/dh_chosen = - beta (1 - 2 e) / 2 at Delta = 0."""
    chosen, rejected = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    loss = dpo_loss(chosen, rejected, 0.5, label_smoothing)
    assert loss.tolist() == pytest.approx([math.log(2)] * 3)
    gradients = torch.autograd.grad(loss.sum(), [chosen, rejected])
    expected = -0.25 * (1 - 2 * label_smoothing)
    assert gradients[0].tolist() == pytest.approx([expected] * 3)
    assert gradients[1].tolist() == pytest.approx([-expected] * 3)


def test_dpo_is_finite_at_extreme_margins() -> None:
    """- log sigma(-1000) = 1000."""
    margin = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = dpo_loss(margin, torch.zeros(2), 0.1)
    assert loss.tolist() == pytest.approx([0, 1000])
    assert torch.autograd.grad(loss.sum(), margin)[0].tolist() == pytest.approx([0, -0.1])
