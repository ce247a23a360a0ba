"""Log-probs of given tokens straight from hidden states: the logits never exist as one tensor of their own, or only once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 128  # of states at a time: their logits stay in the processor's cache
KEPT_BYTES = 256 * 2**20  # of logits kept for the backward pass; above, they are computed again there


def head_logprobs(states: Tensor, weight: Tensor, ids: Tensor, scale: float, support: Tensor | None) -> Tensor:
    """log softmax(scale * states weight^T)[id] over the supported tokens; -inf for a token outside.

    states (n, H), weight (V, H), ids (n,), support (V,) bool -> (n,).
    """
    if support is not None:
        number = torch.where(support, support.cumsum(0) - 1, -1)
        ids, weight = number[ids], weight[support]
    return _HeadLogprobs.apply(states, weight, ids, scale)


def kept(states: Tensor, width: int) -> bool:
    """Whether the logits of states (n, H) over `width` tokens are kept for the backward pass."""
    return len(states) * width * states.element_size() <= KEPT_BYTES


class _HeadLogprobs(torch.autograd.Function):
    """With z = s W h, p = softmax(z): d log p(a) / dz = onehot(a) - p, so one buffer serves as logits, probabilities and
    gradient in turn.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, ids: Tensor, scale: float) -> Tensor:
        wanted = any(ctx.needs_input_grad[:2])
        keep = wanted and kept(states, len(weight))
        logits_kept, normalisers, logprobs = [], [], []
        for rows, chosen in zip(states.split(ROWS), ids.split(ROWS), strict=True):
            logits = rows @ weight.T
            if scale != 1:
                logits *= scale
            normaliser = logits.logsumexp(1)
            value = logits.gather(1, chosen.clamp(min=0)[:, None])[:, 0] - normaliser
            logprobs.append(value.masked_fill(chosen < 0, -torch.inf))
            normalisers.append(normaliser)
            logits_kept += [logits] if keep else []
        ctx.save_for_backward(states, weight, ids, *normalisers, *logits_kept)
        ctx.scale, ctx.keep = scale, keep
        return torch.cat(logprobs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, ids, *saved = ctx.saved_tensors
        chunks = len(saved) // 2 if ctx.keep else len(saved)
        for_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        gradient = torch.where(ids < 0, 0, gradient) * ctx.scale
        for i, normaliser in enumerate(saved[:chunks]):
            part = slice(i * ROWS, i * ROWS + ROWS)
            rows, upstream = states[part], gradient[part, None]
            logits = saved[chunks + i] if ctx.keep else rows @ weight.T
            if not ctx.keep and ctx.scale != 1:
                logits *= ctx.scale
            by_logits = torch.sub(logits, normaliser[:, None]).exp_().mul_(-upstream)
            by_logits.scatter_add_(1, ids[part].clamp(min=0)[:, None], upstream)
            if for_states is not None:
                torch.mm(by_logits, weight, out=for_states[part])
            if for_weight is not None:
                for_weight.addmm_(by_logits.T, rows)
        return for_states, for_weight, None, None
