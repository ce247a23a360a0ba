"""What of a tokenizer and its data concerns sampling: how to read tokens, which of them end a completion, which it may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from alignzoo.contracts import Context, Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[list[int]]], list[str]]:
    return lambda ids: tokenizer.batch_decode(ids, skip_special_tokens=True)


def ends(context: Context, policy: nn.Module) -> set[int]:
    """Tokens that end a completion: the tokenizer's EOS, the chat template's end of a turn, and those that the model's
    generation config adds (chat models have several).
    """
    more = getattr(getattr(policy, "generation_config", None), "eos_token_id", None)
    listed = more if isinstance(more, list) else [more]
    turn = None if context.encoder is None else context.encoder.turn_end
    return {context.tokenizer.eos_token_id, *(token for token in (turn, *listed) if token is not None)}


def support(source: Source, context: Context, vocabulary: int) -> torch.Tensor | None:
    """(V,) bool: the tokens that the data says completions may contain, or None for all."""
    tokens = source.support(context.tokenizer)
    if tokens is None:
        return None
    mask = torch.zeros(vocabulary, dtype=torch.bool)
    mask[list(tokens)] = True
    return mask.to(context.device)
