"""Attention over a layout on the CPU, piece by piece: no mask where order alone decides, and nothing kept but what the kernel
itself needs for its backward pass.

What a token sees is its own stretch, causally, and for branches also their prompt, wholly. Two softmaxes over parts of the
keys make one: with l = log sum exp of each part, out = sum_i exp(l_i - l) out_i, l = log sum_i exp l_i. The kernel's backward
pass needs only (out, l) of the whole (Dao et al. 2022, FlashAttention, algorithm 4), so it runs on the parts as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from alignzoo.models.forward.layout import TINY, Layout, Ranges, buckets, padded, trees, visible

ALONE = 128  # tokens: a longer stretch is a call of its own
WORTH = 48  # prompt tokens without a reader: fewer are cheaper computed than left out
Place = slice | Tensor
flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Call:
    """One call of the kernel. queries and keys: a stretch of the row, or places (S, L) in it, the last repeated as padding;
    used (n,): the entries of the flattened queries that are no padding. mask (S, 1, Lq, Lk), added to the scores, where
    `causal` does not say it all. `merged`: these queries have an output already, over other keys.
    """

    queries: Place
    keys: Place
    causal: bool = False
    merged: bool = False
    mask: Tensor | None = None
    used: Tensor | None = None

    @property
    def entries(self) -> int:
        """Pairs of a query and a key that are computed, hidden ones included."""
        if isinstance(self.queries, Tensor) and isinstance(self.keys, Tensor):
            return self.queries.numel() * self.keys.shape[1]
        assert isinstance(self.queries, slice) and isinstance(self.keys, slice)
        return int((self.queries.stop - self.queries.start) * (self.keys.stop - self.keys.start))

    @cached_property
    def rows(self) -> Tensor:
        """(n,): the places of the queries that are no padding, where `queries` are places."""
        assert isinstance(self.queries, Tensor)
        return self.queries.flatten()[self.used]


@dataclass(frozen=True)
class Pieces:
    """All calls for one layout; rows that none of them computes are zero. `whole`: there are no such rows. Calls that see what
    others have seen (`merged`) come last.
    """

    calls: list[Call]
    whole: bool

    @cached_property
    def entries(self) -> int:
        return sum(call.entries for call in self.calls)


def able(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether the kernel takes these. It has no dropout."""
    alike = query.dtype == key.dtype == value.dtype and query.shape[-1] == value.shape[-1]
    return alike and query.device.type == "cpu" and not dropout


class PiecewiseAttention(torch.autograd.Function):
    """query, key, value (heads, N, d) -> (N, heads, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, scaling: float | None) -> Tensor:
        heads, count, size = query.shape
        make = query.new_empty if pieces.whole else query.new_zeros
        out, total = make(count, heads, size), None
        rows = [x.transpose(0, 1) for x in (query, key, value)]
        for call in pieces.calls:
            q, k, v = (_part(x, place) for x, place in zip(rows, (call.queries, call.keys, call.keys), strict=True))
            part, logs = flash(q, k, v, 0.0, call.causal, attn_mask=call.mask, scale=scaling)
            total = logs.new_zeros(count, heads) if total is None else total
            part, logs = part.transpose(1, 2).flatten(0, 1), logs.transpose(1, 2).flatten(0, 1)
            if call.merged:
                merge(out[call.queries], total[call.queries], part, logs)
            elif isinstance(call.queries, slice):
                out[call.queries], total[call.queries] = part, logs
            else:
                out[call.rows], total[call.rows] = part[call.used], logs[call.used]
        ctx.save_for_backward(query, key, value, out, total)
        ctx.pieces, ctx.scaling = pieces, scaling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, total = ctx.saved_tensors
        query, key, value = (x.transpose(0, 1) for x in inputs)
        # where every place has a call of its own, that one writes first, and nothing needs to be zero before
        grads = [torch.empty_like(out) if ctx.pieces.whole else torch.zeros_like(out) for _ in range(3)]
        for call in ctx.pieces.calls:
            q, k, v = _part(query, call.queries), _part(key, call.keys), _part(value, call.keys)
            upstream, output = (_part(x, call.queries) for x in (gradient, out))
            logs = total[call.queries].reshape(*output.transpose(1, 2).shape[:3]).transpose(1, 2)
            if isinstance(call.queries, Tensor):
                upstream = _without_padding(upstream, call)
            parts = flash_backward(
                upstream, q, k, v, output, logs, 0.0, call.causal, attn_mask=call.mask, scale=ctx.scaling
            )  # fmt: skip
            for grad, part, place in zip(grads, parts, (call.queries, call.keys, call.keys), strict=True):
                part = part.transpose(1, 2).flatten(0, 1)
                if isinstance(place, Tensor):
                    grad[call.rows] = part[call.used]
                elif ctx.pieces.whole and not call.merged:
                    grad[place] = part
                else:
                    grad[place] += part
        return (*(grad.transpose(0, 1) for grad in grads), None, None)


def _part(x: Tensor, place: Place) -> Tensor:
    """(N, heads, d) -> (S, heads, L, d)."""
    return (x[None, place] if isinstance(place, slice) else x[place]).transpose(1, 2)


def _without_padding(x: Tensor, call: Call) -> Tensor:
    """x (S, heads, L, d) with zeros where queries are padding."""
    rows = x.new_zeros(x.shape[0] * x.shape[2], x.shape[1], x.shape[3])
    rows[call.used] = x.transpose(1, 2).flatten(0, 1)[call.used]
    return rows.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def merge(out: Tensor, total: Tensor, part: Tensor, logs: Tensor) -> None:
    """Take `part` (n, heads, d), with `logs` (n, heads), into `out` and `total`."""
    together = torch.logaddexp(total, logs)
    before, more = ((x - together).exp_().to(out.dtype).unsqueeze(-1) for x in (total, logs))
    out.mul_(before).addcmul_(part, more)
    total.copy_(together)


# --- which calls ---


def of(layout: Layout, pruned: bool, dtype: torch.dtype) -> Pieces:
    """The pieces of a layout, made once for all layers; `pruned`: for the outputs at `layout.read` alone."""
    return layout.once((pruned, dtype), lambda: _pieces(layout, dtype, layout.rows if pruned else None))


def _pieces(layout: Layout, dtype: torch.dtype, read: Tensor | None) -> Pieces:
    causal, squares, crossing = [], [], []
    whole = True
    for tree in trees(layout, read):
        (start, end), stop, first = tree.trunk, tree.stop, tree.first
        if tree.further and stop - start <= TINY:
            squares.append(([(start, stop)], [(start, stop)]))
            continue
        if first - start < WORTH:
            first = start
        else:
            crossing.append(((first, end), (start, first)))
        whole = whole and first == start
        causal += [([stretch], [stretch]) for stretch in ((first, end), *tree.further)]
        if tree.further:
            crossing.append(((end, stop), tree.prompt))
    calls = [*_causal(causal)]
    for bucket in buckets(squares):
        places, used = padded([piece[0] for piece in bucket])
        hidden = ~(visible(layout, places, places) & used[:, None])
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)[:, None]
        calls.append(Call(places, places, mask=mask, used=used.flatten().nonzero()[:, 0]))
    calls += [Call(slice(*queries), slice(*keys), merged=True) for queries, keys in crossing]
    return Pieces(calls, whole)


def _causal(stretches: list[tuple[Ranges, Ranges]]) -> Iterator[Call]:
    """A token sees what stands before it in its stretch: padding on the right changes nothing."""
    short = []
    for stretch in stretches:
        ((start, stop),) = stretch[0]
        if stop - start > ALONE:
            yield Call(slice(start, stop), slice(start, stop), causal=True)
        else:
            short.append(stretch)
    for bucket in buckets(short):
        if len(bucket) == 1:
            place = slice(*bucket[0][0][0])
            yield Call(place, place, causal=True)
        else:
            places, used = padded([piece[0] for piece in bucket])
            yield Call(places, places, causal=True, used=used.flatten().nonzero()[:, 0])
