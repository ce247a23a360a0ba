"""A function of logits, a few rows at a time, differentiated as soon as it is computed: of all that autograd keeps of it, only
those few rows' is ever there, and in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

PIECE_BYTES = 2**20  # of the first column at a time
ELSEWHERE = 64 * 2**20  # on a GPU, where a call costs more than what it computes


def by_rows(fn: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """fn(*columns) for a function that treats every row alike.

    columns (n, ...) -> (n, ...). Where fn gives more than one number a row, or has a gradient by something that isn't a column,
    it is called once with all rows.
    """
    first, trained = columns[0], [x for x in columns if x.requires_grad]
    rows = max(1, (PIECE_BYTES if first.device.type == "cpu" else ELSEWHERE) // max(first[:1].nbytes, 1))
    pieces = zip(*(x.split(rows) for x in columns), strict=True)
    if not (trained and torch.is_grad_enabled()):
        return torch.cat([fn(*piece) for piece in pieces])
    values, slopes = list[Tensor](), [torch.empty_like(x) for x in trained]
    # checkpointing would otherwise drop, and compute again for each piece, what its backward pass is about to read
    with torch.autograd.graph.saved_tensors_hooks(_same, _same):
        for i, piece in enumerate(pieces):
            cut = [x.detach().requires_grad_(x.requires_grad) for x in piece]
            leaves = [x for x in cut if x.requires_grad]
            value = fn(*cut)
            if i == 0 and not (value.dim() == 1 and _made_of(value, leaves)):
                break
            part = slice(i * rows, i * rows + rows)
            values.append(value.detach())
            gradients = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
            for slope, gradient in zip(slopes, gradients, strict=True):
                slope[part] = gradient
        else:
            return _Linear.apply(torch.cat(values), len(trained), *slopes, *trained)
    return fn(*columns)


class _Linear(torch.autograd.Function):
    """values (n,) whose gradient by each of `count` columns (n, ...), the last arguments, is known: the arguments before."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, count: int, *rest: Tensor) -> Tensor:
        ctx.save_for_backward(*rest[:count])
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [slope * upstream.view(-1, *[1] * (slope.dim() - 1)) for slope in ctx.saved_tensors]
        return None, None, *[None] * len(gradients), *gradients


def _same(x: Tensor) -> Tensor:
    return x


def _made_of(value: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Whether this tensor has a gradient, and by none but these."""
    seen, todo, allowed = set[Node](), [value.grad_fn], {id(leaf) for leaf in leaves}
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if hasattr(node, "variable") and id(node.variable) not in allowed:
            return False
        seen.add(node)
        todo += [after for after, _ in node.next_functions]
    return bool(seen)
