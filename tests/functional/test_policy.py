"""Policy-gradient surrogates case by case, the value loss, and the KL controller step by step."""

import math

import pytest
import torch

from alignzoo.functional import adapted_kl_coefficient, clipped_surrogate, clipped_value_loss, reinforce


def test_reinforce_raises_what_has_positive_advantage() -> None:
    """d(-A log pi)/d(log pi) = -A; the advantage gets no gradient."""
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[0.5, -3.0]], requires_grad=True)
    loss = reinforce(logprobs, advantages)
    assert loss.tolist() == [[0.5, -6.0]]
    loss.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == [[-0.5, 3.0]]
    assert advantages.grad is None


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 1.0, -1.2, 0.0),  # already better: clipped at 1.2
        (1.5, -1.0, 1.5, 1.5),  # gone the wrong way: not clipped
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),
        (1.0, 2.0, -2.0, -2.0),  # the sampler itself: the policy gradient
        (1.1, 2.0, -2.2, -2.2),  # inside the clip
    ],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    """epsilon 0.2; the gradient in log pi is that of - ratio * A where nothing is clipped, as d ratio / d log pi = ratio."""
    old = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    logprobs = (old.detach() + math.log(ratio)).requires_grad_()
    value = clipped_surrogate(logprobs, old, torch.tensor([advantage]), 0.2)
    value.sum().backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert logprobs.grad is not None and logprobs.grad.item() == pytest.approx(gradient, abs=1e-6)
    assert old.grad is None


@pytest.mark.parametrize(
    ("value", "epsilon", "loss", "gradient"),
    [
        (1.0, None, 0.5, -1.0),  # 1/2 (1 - 2)^2
        (1.0, 0.2, 0.845, 0.0),  # clipped to 0.7: 1/2 (0.7 - 2)^2 is worse, and pulls no further
        (0.6, 0.2, 0.98, -1.4),  # within reach of the old value: 1/2 (0.6 - 2)^2
        (0.0, 0.2, 2.0, -2.0),  # clipped to 0.3, which is better: 1/2 (0 - 2)^2 counts
    ],
)
def test_value_loss_by_hand(value: float, epsilon: float | None, loss: float, gradient: float) -> None:
    """Old value 0.5, return 2."""
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    result = clipped_value_loss(values, torch.tensor([0.5], dtype=torch.float64), torch.tensor([2.0]), epsilon)
    result.sum().backward()
    assert result.item() == pytest.approx(loss, abs=1e-6)
    assert values.grad is not None and values.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_adaptive_kl_step_by_step() -> None:
    """Target 6, horizon 10000, 512 samples: errors are cut at +-0.2, so one step changes beta by at most 1.024 %.

    KL 12: error 1 -> 0.2: 0.15 * 1.01024 = 0.151536. KL 6: as it is. KL 5.4: error -0.1: * 0.99488 = 0.1507601.
    KL 0: error -1 -> -0.2: * 0.98976 = 0.1492163.
    """
    beta, seen = 0.15, []
    for kl in (12.0, 6.0, 5.4, 0.0):
        beta = adapted_kl_coefficient(beta, kl, target=6.0, samples=512, horizon=10_000)
        seen.append(beta)
    assert seen == pytest.approx([0.151536, 0.151536, 0.1507601, 0.1492163], abs=1e-7)
