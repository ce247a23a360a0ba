"""The last layer computed only where its output is read: its feed-forward part, its queries, and the projection out of its
attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

LAYERS = ("layers", "h")  # what families call their list of layers
ATTENTION = ("self_attn", "attn", "attention")
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
QUERIES = ("q_proj",)  # where keys and values come from it too, all rows are needed
OUTWARD = ("o_proj", "c_proj", "dense", "out_proj")


@contextmanager
def pruned(backbone: nn.Module, rows: Tensor, total: int) -> Iterator[nn.Module | None]:
    """Inside, what works row by row in the last layer sees `rows` (n,) of a sequence of `total`; the others get zeros, which
    nobody reads. Yields the layer's attention, or None where it is not known.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].reshape(total, -1).index_select(0, rows)[None], *inputs[1:])

    def spread(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output.new_zeros(1, total, output.shape[-1]).index_copy(1, rows, output.reshape(1, len(rows), -1))

    layers = _first(backbone, LAYERS)
    last = layers[-1] if isinstance(layers, nn.ModuleList) and layers else None
    if last is None or any(getattr(last, name, False) for name in CHECKPOINTING):  # a second forward would not be pruned
        yield None
        return
    attention = _first(last, ATTENTION)
    hooks = []
    for part in (_first(last, ("mlp",)), _first(attention, QUERIES), _first(attention, OUTWARD)):
        hooks += [part.register_forward_pre_hook(select), part.register_forward_hook(spread)] if part is not None else []
    try:
        yield attention
    finally:
        for hook in hooks:
            hook.remove()


def _first(owner: nn.Module | None, names: tuple[str, ...]) -> nn.Module | None:
    """What the first of these names stands for, if anything."""
    parts = (getattr(owner, name, None) for name in names)
    return next((part for part in parts if isinstance(part, nn.Module)), None)
