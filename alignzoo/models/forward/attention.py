"""Attention over a `Layout`, for every network that asks `transformers`' attention interface for its attention."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from alignzoo.errors import first_line
from alignzoo.models.forward import flops, pieces, varlen
from alignzoo.models.forward.layout import Layout, Plan, Rectangle

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger("alignzoo")
NAME = "alignzoo_sdpa"  # sdpa, and more where a layout is given
KNOWN = {"is_causal", "position_ids", "cache_position", "use_cache", "output_attentions", "head_mask"}
TOLERANCE = 0.05  # of half precision, relative to the norm

NO_MASK = torch.zeros(1, 1, 1, 1)  # four-dimensional masks are passed on as they are, and none is made


def install(config: PretrainedConfig) -> None:
    """Let the network of this config understand layouts; without one it computes what it did before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME


class KeyValueMemory(Protocol):
    """Keys and values of what was read before, as a `cascade.Memory` keeps them."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor: ...

    def entries(self, window: int | None) -> int: ...

    def store_prompts(self, layer: int, keys: Tensor, values: Tensor) -> None: ...


def forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, layout: Layout | None = None, memory: KeyValueMemory | None = None,
    sliding_window: int | None = None, **keywords: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """query (1, heads, N, d), key and value (1, key heads, N, d) -> (1, N, heads, d). With a memory, tokens are remembered,
    and without a layout each row is one more token. With neither: sdpa.
    """
    if layout is None and memory is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **keywords
        )[0]
        flops.attention(module, output, query, key, value, query.shape[0] * query.shape[2] * key.shape[2])
        return output, None
    unknown = sorted(name for name, value_of in keywords.items() if value_of is not None and name not in KNOWN)
    if unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    if memory is not None and layout is None:
        output = memory.attend(cast(int, module.layer_idx), query, key, value, scaling, sliding_window)
        flops.attention(module, output, query, key, value, memory.entries(sliding_window))
        return output, None
    assert layout is not None
    if memory is not None:
        memory.store_prompts(cast(int, module.layer_idx), key[0], value[0])
    window, pruned, calls = layout.effective(sliding_window), module is layout.pruned, None
    if query.device.type == "cuda":
        query, key, value = varlen.lowered(query, key, value)
    if varlen.able(query, key, value, dropout) and _right(query.device, query.dtype, query.shape[-1]):
        calls = varlen.of(layout, pruned, window)
    if calls is not None:
        output, entries = varlen.attention(query[0], key[0], value[0], calls, scaling), calls.entries
    else:
        keys, values = _spread(key[0], query.shape[1]), _spread(value[0], query.shape[1])
        if window is None and pieces.able(query, key, value, dropout):
            parts = pieces.of(layout, pruned, query.dtype)
            output, entries = pieces.PiecewiseAttention.apply(query[0], keys, values, parts, scaling), parts.entries
        else:
            plan = layout.plan(window)
            output, entries = tree_attention(query[0], keys, values, plan, dropout, scaling), plan.entries
    flops.attention(module, output, query, key, value, entries)
    return output[None], None


forward.counts = True  # type: ignore[attr-defined]


@functools.cache
def _right(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether the GPU's kernel gives what masks give, for heads of this size, or else a warning. Outputs and gradients,
    of which a network that is tried shows the outputs alone.
    """
    try:
        distance = max(_distance(pruned, device, dtype, size) for pruned in (False, True))
        problem = "" if distance < TOLERANCE else f"is off by {distance:.1e}"
    except RuntimeError as error:
        problem = f"fails: {first_line(error)}"
    if problem:
        logger.warning("attention on %s is computed with masks, which is slower: the kernel for sequences %s", device, problem)
    return not problem


def _distance(pruned: bool, device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Between the kernel and masks, of the outputs and gradients of two prompts, relative to their norms."""
    branch = torch.tensor([0] * 6 + [1] * 5 + [2] * 3 + [0] * 2 + [1] * 4, device=device)
    positions = torch.tensor([*range(11), *range(6, 9), *range(6)], device=device)
    read = torch.cat([torch.arange(5, 14), torch.arange(15, 20)]).to(device)
    layout = Layout(branch, positions, branch, read, [(0, 6, [(6, 5), (11, 3)]), (14, 2, [(16, 4)])])
    source = torch.Generator().manual_seed(0)  # one by itself: that of torch goes on as if nothing had been tried
    inputs = [torch.randn(heads, len(branch), size, generator=source).to(device, dtype) for heads in (4, 2, 2)]

    def by_kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls = varlen.of(layout, pruned, None)
        assert calls is not None
        return varlen.attention(query, key, value, calls, None)

    def by_masks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return tree_attention(query, _spread(key, 4), _spread(value, 4), layout.plan(), 0.0, None)

    sides = []
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for attend, exact in ((by_kernel, dtype), (by_masks, torch.promote_types(dtype, torch.float32))):
            copies = [x.to(exact).requires_grad_() for x in inputs]
            out = attend(*copies).index_select(0, layout.rows)
            sides.append([out.detach(), *torch.autograd.grad(out.square().sum(), copies)])
    return max(float((x - y).norm() / y.norm()) for x, y in zip(*sides, strict=True))


def _spread(x: Tensor, heads: int) -> Tensor:
    """(key heads, N, d) -> (heads, N, d)."""
    return x if len(x) == heads else x.repeat_interleave(heads // len(x), 0)


def tree_attention(query: Tensor, key: Tensor, value: Tensor, plan: Plan, dropout: float, scaling: float | None) -> Tensor:
    """query, key, value (heads, N, d) -> (N, heads, d)."""
    parts = []
    for start, stop in plan.slices:
        q, k, v = (x[None, :, start:stop] for x in (query, key, value))
        parts.append(scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True)[0].transpose(0, 1))
    if plan.rectangles:
        q, k, v = (x.transpose(0, 1) for x in (query, key, value))
        parts += [_rectangle(q, k, v, rectangle, dropout, scaling) for rectangle in plan.rectangles]
    out = torch.cat(parts) if len(parts) > 1 else parts[0]
    return out if plan.place is None else out.index_select(0, plan.place)


def _rectangle(query: Tensor, key: Tensor, value: Tensor, r: Rectangle, dropout: float, scaling: float | None) -> Tensor:
    q = query[r.queries].transpose(1, 2)  # (S, heads, Lq, d)
    k, v = (x[r.keys].transpose(1, 2) for x in (key, value))
    out = scaled_dot_product_attention(q, k, v, attn_mask=r.mask, dropout_p=dropout, scale=scaling)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, r.used)
