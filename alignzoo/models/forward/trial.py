"""What a network can is found out by trying: a few made-up tokens, without dropout, on nobody's account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions, Prompts
from alignzoo.errors import first_line
from alignzoo.models.forward.flops import uncounted
from alignzoo.models.forward.padded import inner

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}  # of the largest logit; wrong attention is off by far more
WINDOW = 4  # tokens


@contextmanager
def trying(module: nn.Module) -> Iterator[None]:
    """Inside, the network has no dropout, and what it computes is not counted; every part goes back to its own mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with uncounted(module):
            yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def narrow(module: nn.Module) -> Iterator[None]:
    """Inside, sliding windows are of a few tokens, which the records reach beyond."""
    parts: list[Any] = [inner(module).config.get_text_config(), *module.modules()]
    windows = [(part, part.sliding_window) for part in parts if getattr(part, "sliding_window", None)]
    for part, window in windows:
        part.sliding_window = min(WINDOW, window)
    try:
        yield
    finally:
        for part, window in windows:
            part.sliding_window = window


def records(module: nn.Module) -> Completions:
    """Two prompts of unequal length with three completions of unequal length."""
    device, size = next(module.parameters()).device, int(inner(module).config.vocab_size)
    ids = (torch.arange(30, device=device) * 7 + 1) % size
    attended = torch.ones(2, 5, dtype=torch.bool, device=device)
    attended[0, :2] = False
    written = torch.ones(3, 4, dtype=torch.bool, device=device)
    written[1, 2:] = False
    row = torch.arange(3, device=device)
    prompts = Prompts(ids=ids[:10].view(2, 5), attended=attended, row=row[:2])
    return Completions(
        prompts=prompts, prompt_of=torch.tensor([0, 0, 1], device=device), ids=ids[10:22].view(3, 4), attended=written,
        scored=written, truncated=torch.zeros(3, dtype=torch.bool, device=device), row=row,
    )  # fmt: skip


def distance(module: nn.Module, outputs: Tensor, expected: Tensor) -> float | None:
    """How far outputs are from what is expected, relative to the largest of that; None where that is rounding."""
    weight = next(module.parameters())
    tolerance = 0.1 if torch.is_autocast_enabled(weight.device.type) else TOLERANCE.get(weight.dtype, 0.1)
    off = (outputs - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return None if off <= tolerance else float(off)


def failure(error: Exception) -> str:
    """One line about what a network's own code raised."""
    return f"it fails otherwise with {type(error).__name__}: {first_line(error)}"
