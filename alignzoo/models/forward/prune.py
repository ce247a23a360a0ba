"""The last layer computed only where its output is read: its feed-forward part, its queries, and the projection out of its
attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

LAYERS = ("layers", "h")  # what families call their list of layers
ATTENTION = ("self_attn", "attn", "attention")
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
QUERIES = ("q_proj",)  # where keys and values come from it too, all rows are needed
OUTWARD = ("o_proj", "c_proj", "dense", "out_proj")


@contextmanager
def pruned(backbone: Any, rows: Tensor, total: int) -> Iterator[Any]:
    """Inside, what works row by row in the last layer sees `rows` (n,) of a sequence of `total`; the others get zeros, which
    nobody reads. Yields the layer's attention, or None where it is not known.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].reshape(total, -1).index_select(0, rows)[None], *inputs[1:])

    def spread(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.new_zeros(1, total, output.shape[-1]).index_copy(1, rows, output.reshape(1, len(rows), -1))

    attention, parts = _row_by_row(backbone)
    hooks = [hook for part in parts for hook in _hooks(part, select, spread)]
    try:
        yield attention
    finally:
        for hook in hooks:
            hook.remove()


def _hooks(part: nn.Module, before: Any, after: Any) -> list[Any]:
    return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]


def _row_by_row(backbone: Any) -> tuple[Any, list[nn.Module]]:
    """The last layer's attention, and parts of the layer that work on each row by itself, as far as they are known by name."""
    layers = _first(backbone, LAYERS)
    if not layers:
        return None, []
    last = layers[-1]
    if any(getattr(last, name, False) for name in CHECKPOINTING):  # a second forward, later, would not be pruned
        return None, []
    attention = _first(last, ATTENTION)
    parts = (getattr(last, "mlp", None), _first(attention, QUERIES), _first(attention, OUTWARD))
    return attention, [part for part in parts if isinstance(part, nn.Module)]


def _first(owner: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(owner, name, None)) is not None), None)
