"""The discriminator's loss and the rewards made of it, at s = log 3, where D = 3/4."""

import math

import pytest
import torch

from alignzoo.functional import airl_reward, discriminator_loss, gail_reward, seqgan_reward

S = torch.tensor([math.log(3.0)], dtype=torch.float64)


def test_cross_entropy_by_side() -> None:
    """-log 3/4 of a demonstration, -log 1/4 of a sample; log 2 each where D = 1/2."""
    real, fake = discriminator_loss(S, S)
    assert (real.item(), fake.item()) == (pytest.approx(0.28768207), pytest.approx(1.38629436))
    for side in discriminator_loss(torch.zeros(2), torch.zeros(3)):
        assert side.tolist() == pytest.approx([0.69314718] * len(side))


def test_smoothing_is_of_demonstrations_alone() -> None:
    """0.9 x 0.28768207 + 0.1 x 1.38629436; least where D = 0.9, its gradient there 0."""
    real, fake = discriminator_loss(S, S, label_smoothing=0.1)
    assert (real.item(), fake.item()) == (pytest.approx(0.39754330), pytest.approx(1.38629436))
    best = torch.tensor([math.log(9.0)], dtype=torch.float64, requires_grad=True)
    discriminator_loss(best, S, label_smoothing=0.1)[0].backward()
    assert best.grad is not None and best.grad.item() == pytest.approx(0, abs=1e-12)


def test_rewards() -> None:
    assert gail_reward(S).item() == pytest.approx(1.38629436)
    assert airl_reward(S).item() == pytest.approx(1.09861229)
    assert seqgan_reward(S).item() == pytest.approx(0.75)
