"""Rotary embeddings that are of two kinds: one for short texts and one for long ones (LongRoPE, Ding et al. 2024).

As transformers computes them, the longest row of a batch decides for all of them, and a text that grows changes its kind: the
log-probs of a row would depend on its neighbours, and those of sampling would be none of training. Here a run has one kind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

logger = logging.getLogger("alignzoo")


def border(config: Any) -> int | None:
    """How many positions the embedding for short texts is for; None where there is only one kind."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None


def settle(module: nn.Module, context_length: int | None) -> None:
    """The long kind for every text where `context_length` reaches beyond the border; below it, texts are short anyway."""
    limit = border(module.config)
    if limit and context_length and context_length > limit:
        logger.warning(
            "model.context_length=%d: texts of any length get the rotary embedding for long ones; transformers gives those up "
            "to %d tokens another, unless a longer one is in their batch", context_length, limit,
        )  # fmt: skip
        lengthen(module)


def lengthen(module: nn.Module) -> None:
    """The long kind for every text."""
    for rope in _changing(module):
        rope(torch.zeros(1, 1), torch.tensor([[border(module.config)]]))  # makes its long frequencies
        rope.original_inv_freq = rope.long_inv_freq


def is_long(module: nn.Module) -> bool:
    ropes = [rope for rope in _changing(module) if hasattr(rope, "long_inv_freq")]
    return any(torch.equal(rope.original_inv_freq, rope.long_inv_freq) for rope in ropes)


def _changing(module: nn.Module) -> Iterator[Any]:
    return (part for part in module.modules() if getattr(part, "rope_type", None) == "longrope")
