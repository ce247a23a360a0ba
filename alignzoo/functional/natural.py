"""Directions that a curvature tells, without its matrix."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def conjugate_gradient(
    product: Callable[[list[Tensor]], Sequence[Tensor]], target: Sequence[Tensor], iterations: int, close: float = 1e-10
) -> list[Tensor]:
    """x with A x = target for a symmetric positive A that is only known by its products.

    product: x -> A x, lists of tensors alike; it is asked at most `iterations` times, and no more once the squared residual is
    at most `close` times what it was at first. Hestenes and Stiefel 1952, Methods of conjugate gradients for
    solving linear systems.
    """
    x, residual, direction = [torch.zeros_like(t) for t in target], [t.clone() for t in target], [t.clone() for t in target]
    size = first = dot(residual, residual)
    for _ in range(iterations):
        if size <= close * first:
            break
        curved = product(direction)
        length = size / dot(direction, curved)
        x = [a + length * b for a, b in zip(x, direction, strict=True)]
        residual = [a - length * b for a, b in zip(residual, curved, strict=True)]
        size, before = dot(residual, residual), size
        direction = [a + size / before * b for a, b in zip(residual, direction, strict=True)]
    return x


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists of tensors, one number."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
