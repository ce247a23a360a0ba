"""Whether the weights' precision holds the steps that they will take."""

from __future__ import annotations

import logging

import torch
from torch import nn

logger = logging.getLogger("alignzoo")
HALF = (torch.bfloat16, torch.float16)
LOOKED_AT = 100_000  # weights of a tensor, evenly spread


def warn(trained: nn.Module, learning_rate: float) -> None:
    """Says where most weights in half precision can't move: Adam's steps are of the learning rate's size, and one below half
    the distance to the next number is rounded away, every time."""
    share = lost(trained, learning_rate)
    if share > 0.5:
        logger.warning(
            "trainer.learning_rate=%g is too small a step for %.0f %% of the weights in model.dtype=bfloat16 or float16, which "
            "stay as they are: take model.dtype=float32 with trainer.bf16=true", learning_rate, 100 * share,
        )  # fmt: skip


def lost(trained: nn.Module, step: float) -> float:
    """The share of trained weights in half precision to which adding `step` changes nothing; 0 where there are none."""
    weights = [p.detach().flatten() for p in trained.parameters() if p.requires_grad and p.dtype in HALF]
    some = [w[:: max(1, len(w) // LOOKED_AT)] for w in weights]
    unmoved = sum(len(whole) * float((w + step == w).double().mean()) for whole, w in zip(weights, some, strict=True))
    return unmoved / max(1, sum(map(len, weights)))
