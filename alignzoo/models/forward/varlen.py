"""Attention over a layout on NVIDIA GPUs in half precision: flash attention over sequences of varying length, one call of the
kernel a layer, or two where prompts have several branches.

The first call is causal: a prompt with its first branch is a sequence, and so is each further branch. The second lets further
branches see their prompt. Both make one, forward and backward, as in `pieces`. Where queries are fewer than keys the kernel's
causal mask lets the last query see all keys, so a last layer that needs no outputs before some place just has fewer queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_flash_attention

from alignzoo.models.forward.layout import Layout, Range, trees
from alignzoo.models.forward.pieces import merge

DOCUMENTED = find_spec("torch.nn.attention.varlen") is not None  # an older torch may lay its log-sum-exps out otherwise
CAUSAL, EVERYTHING = (-1, 0), (-1, -1)
flash = torch.ops.aten._flash_attention_forward
flash_backward = torch.ops.aten._flash_attention_backward


@dataclass(frozen=True)
class Sequences:
    """One call of the kernel: sequences of queries, each with its keys, one after the other. starts: where each begins, for
    queries and for keys (S + 1,) int32, the last entry being their number. longest: of queries and of keys. window: how many
    keys before and after its own place a query sees, -1 being all.
    """

    starts: tuple[Tensor, Tensor]
    longest: tuple[int, int]
    window: tuple[int, int]
    entries: int

    def arguments(self) -> tuple[Tensor, Tensor, int, int, float, bool]:
        """What forward and backward take alike: no dropout, and whether a causal mask says it all."""
        return (*self.starts, *self.longest, 0.0, self.window == CAUSAL)

    def keywords(self, scaling: float | None) -> dict[str, float | None]:
        return {"scale": scaling, "window_size_left": self.window[0], "window_size_right": self.window[1]}


@dataclass(frozen=True)
class Calls:
    """The calls for a layout. rows (n,): the places of the queries, None where those are all; `stretches` are over all of
    them and the whole row. queries and keys: those of `crossing`, where there is one, in the n queries and in the row.
    """

    rows: Tensor | None
    stretches: Sequences
    crossing: Sequences | None
    queries: Tensor
    keys: Tensor

    @property
    def entries(self) -> int:
        """Pairs of a query and a key that are computed, hidden ones included."""
        return self.stretches.entries + (self.crossing.entries if self.crossing else 0)


def able(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether the kernel takes query (1, heads, N, d), key and value (1, key heads, N, d). Torch says which types, sizes and
    GPUs its flash attention is made for, and whether it is switched on; AMD's is another kernel.
    """
    if query.device.type != "cuda" or torch.version.hip or not DOCUMENTED or dropout or query.shape[-1] % 8:
        return False
    return can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, True, query.shape[1] != key.shape[1]))


def lowered(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the type of autocast, which casts what `scaled_dot_product_attention` takes, but doesn't know the kernel by itself."""
    device = tensors[0].device.type
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors) if torch.is_autocast_enabled(device) else tensors


def of(layout: Layout, pruned: bool, window: int | None) -> Calls | None:
    """The calls for a layout, found once for all layers; `pruned`: for the outputs at `layout.read` alone. None where there is
    a window and branches look back to a prompt: each of their tokens then sees another part of it, which no call can say.
    """
    return layout.once((pruned, window, "varlen"), lambda: _calls(layout, layout.rows if pruned else None, window))


def attention(query: Tensor, key: Tensor, value: Tensor, calls: Calls, scaling: float | None) -> Tensor:
    """query (heads, N, d), key and value (key heads, N, d) -> (N, heads, d), zero where there is no query."""
    query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    if calls.rows is None:
        return VaryingAttention.apply(query, key, value, calls, scaling)
    out = VaryingAttention.apply(query.index_select(0, calls.rows), key, value, calls, scaling)
    return out.new_zeros(query.shape).index_copy(0, calls.rows, out)


class VaryingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: Calls, scaling: float | None) -> Tensor:
        out, total = computed(query, key, value, calls, scaling)
        ctx.save_for_backward(query, key, value, out, total)
        ctx.calls, ctx.scaling = calls, scaling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, total = ctx.saved_tensors
        return (*gradients(gradient, query, key, value, out, total, ctx.calls, ctx.scaling), None, None)


def computed(query: Tensor, key: Tensor, value: Tensor, calls: Calls, scaling: float | None) -> tuple[Tensor, Tensor]:
    """query (n, heads, d), key and value (N, key heads, d) -> outputs (n, heads, d) and log-sum-exps (heads, n)."""
    out, total = _forward(calls.stretches, query, key, value, scaling)
    if calls.crossing:
        q, k, v = query.index_select(0, calls.queries), key.index_select(0, calls.keys), value.index_select(0, calls.keys)
        part, logs = _forward(calls.crossing, q, k, v, scaling)
        rows, sums = out.index_select(0, calls.queries), total.index_select(1, calls.queries)
        merge(rows, sums.t(), part, logs.t())
        out.index_copy_(0, calls.queries, rows)
        total.index_copy_(1, calls.queries, sums)
    return out, total


def gradients(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, total: Tensor, calls: Calls, scaling: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """By query, key and value, of what `computed` gives, for the gradient (n, heads, d) of the outputs."""
    slopes = _backward(calls.stretches, gradient, query, key, value, out, total, scaling)
    if calls.crossing:
        upstream, q, output = (x.index_select(0, calls.queries) for x in (gradient, query, out))
        k, v = key.index_select(0, calls.keys), value.index_select(0, calls.keys)
        more = _backward(calls.crossing, upstream, q, k, v, output, total.index_select(1, calls.queries), scaling)
        for whole, place, part in zip(slopes, (calls.queries, calls.keys, calls.keys), more, strict=True):
            whole.index_add_(0, place, part)
    return slopes


def _forward(sequences: Sequences, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    out, logs, *_ = flash(query, key, value, *sequences.arguments(), False, **sequences.keywords(scaling))
    return out, logs


def _backward(
    sequences: Sequences,
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    total: Tensor,
    scaling: float | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The kernel reads the log-sum-exps (heads, n) as they lie in memory, so they must be contiguous."""
    randomness, unused = query.new_zeros(2, dtype=torch.uint64), query.new_empty(0)  # read only where there is dropout
    return flash_backward(
        gradient, query, key, value, out, total, *sequences.arguments(), randomness, unused, **sequences.keywords(scaling)
    )


# --- which sequences ---


def _calls(layout: Layout, read: Tensor | None, window: int | None) -> Calls | None:
    """The calls for a layout, or those for the queries from the first of `read` (sorted places in the row) on in each trunk."""
    stretches, crossing, places, left_out = list[tuple[Range, Range]](), list[tuple[Range, Range]](), list[Range](), 0
    for tree in trees(layout, read):
        (start, end), stop = tree.trunk, tree.stop
        left_out += tree.first - start
        places.append((tree.first, stop))
        stretches += [((tree.first, end), tree.trunk), *((branch, branch) for branch in tree.further)]
        if tree.further:
            crossing.append(((end - left_out, stop - left_out), tree.prompt))
    if window and crossing:
        return None
    device = layout.ids.device
    return Calls(
        rows=_places(places, device) if left_out else None,
        stretches=_sequences(stretches, (window - 1, 0) if window else CAUSAL, device),
        crossing=_sequences(crossing, EVERYTHING, device) if crossing else None,
        queries=_places([queries for queries, _ in crossing], device),
        keys=_places([keys for _, keys in crossing], device),
    )


def _places(ranges: Iterable[Range], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(0), *(torch.arange(*stretch) for stretch in ranges)]).to(device)


def _sequences(pairs: list[tuple[Range, Range]], window: tuple[int, int], device: torch.device) -> Sequences:
    """Of the ranges of queries and of their keys."""
    queries, keys = ([stop - start for start, stop in ranges] for ranges in zip(*pairs, strict=True))
    starts = [torch.tensor([*accumulate(sizes, initial=0)], dtype=torch.int32, device=device) for sizes in (queries, keys)]
    entries = sum(q * k for q, k in zip(queries, keys, strict=True))
    return Sequences((starts[0], starts[1]), (max(queries), max(keys)), window, entries)
