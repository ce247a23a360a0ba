"""Steps that half precision rounds away are warned of."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from alignzoo.engine import precision


def trained(dtype: torch.dtype, values: list[float], frozen: list[float] | None = None) -> nn.Module:
    weights = {"trained": nn.Parameter(torch.tensor(values, dtype=dtype))}
    if frozen:
        weights["frozen"] = nn.Parameter(torch.tensor(frozen, dtype=dtype), requires_grad=False)
    return nn.ParameterDict(weights)


@pytest.mark.parametrize(("dtype", "step", "expected"), [
    (torch.bfloat16, 0.0039, 0.5),  # half the distance at 1 is 2^-8 = 0.0039063, at 2^-10 it is 2^-18
    (torch.bfloat16, 0.0040, 0.0),
    (torch.float16, 0.0004, 0.5),  # 2^-11 = 0.00048828
    (torch.float16, 0.0005, 0.0),
    (torch.float32, 1e-6, 0.0),  # not in half precision
])  # fmt: skip
def test_the_share_of_weights_that_a_step_does_not_move(dtype: torch.dtype, step: float, expected: float) -> None:
    assert precision.lost(trained(dtype, [1.0, 2**-10], frozen=[8.0] * 9), step) == expected


def test_it_is_said_once_most_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    # moved: those below 2^-11, 2 (Phi(2^-11 / 0.02) - 1/2) = 1.9 % of them
    weights = (0.02 * torch.randn(1000, generator=torch.Generator().manual_seed(0))).tolist()
    with caplog.at_level(logging.WARNING):
        precision.warn(trained(torch.float32, weights), 1e-6)
        precision.warn(trained(torch.bfloat16, weights), 1e-3)
        assert not caplog.text
        precision.warn(trained(torch.bfloat16, weights), 1e-6)
    assert "trainer.learning_rate=1e-06 is too small a step for 98 % of the weights in model.dtype=bfloat16" in caplog.text
