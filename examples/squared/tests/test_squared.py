"""Squared worked out by hand."""

import pytest
import torch
from alignzoo_squared.squared import Squared

from alignzoo.batch import Pairs
from alignzoo.testing.fakes import FakeModels, TablePolicy, biased, completions, prompts


def test_loss_by_hand():
    """Policy: token 1 has 1/2, the others 1/6. Reference: 1/4 each. The margin is ln 3, the target 5: (ln 3 - 5)^2."""
    x = prompts(0)
    batch = Pairs(chosen=completions(x, [0], [[1]]), rejected=completions(x, [0], [[2]]))
    models = FakeModels(policy=TablePolicy(biased()), reference=TablePolicy(torch.zeros(4, 4)))
    loss, metrics = Squared(tau=0.1).loss(models, batch)
    assert loss.tolist() == pytest.approx([15.220827], abs=1e-4)
    assert metrics["rewards/margin"].tolist() == pytest.approx([1.098612], abs=1e-5)
