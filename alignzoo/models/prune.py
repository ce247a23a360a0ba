"""The last layer computed only where its output is read: its feed-forward part, and the projection out of its attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

LAYERS = ("layers", "h")  # what families call their list of layers
ATTENTION = ("self_attn", "attn", "attention")
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
OUTWARD = ("o_proj", "c_proj", "dense", "out_proj")


@contextmanager
def pruned(backbone: Any, rows: Tensor, total: int) -> Iterator[None]:
    """Inside, what works row by row in the last layer sees `rows` (n,) of a sequence of `total`; the others get zeros, which
    nobody reads.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].reshape(total, -1).index_select(0, rows)[None], *inputs[1:])

    def spread(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.new_zeros(1, total, output.shape[-1]).index_copy(1, rows, output.reshape(1, len(rows), -1))

    hooks = [hook for part in _row_by_row(backbone) for hook in _hooks(part, select, spread)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hooks(part: nn.Module, before: Any, after: Any) -> list[Any]:
    return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]


def _row_by_row(backbone: Any) -> list[nn.Module]:
    """Parts of the last layer that work on each row by itself, as far as they are known by name."""
    layers = next((found for name in LAYERS if (found := getattr(backbone, name, None)) is not None), None)
    if not layers:
        return []
    last = layers[-1]
    if any(getattr(last, name, False) for name in CHECKPOINTING):  # a second forward, later, would not be pruned
        return []
    attention = next((found for name in ATTENTION if (found := getattr(last, name, None)) is not None), None)
    outward = next((found for name in OUTWARD if (found := getattr(attention, name, None)) is not None), None)
    return [part for part in (getattr(last, "mlp", None), outward) if isinstance(part, nn.Module)]
