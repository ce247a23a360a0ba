"""What the processes of a run tell each other: identities where there is one alone."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_objects(x: T) -> list[T]:
    """x of every rank, in rank order."""
    if ranks() == 1:
        return [x]
    gathered: list[T] = [x] * ranks()
    dist.all_gather_object(gathered, x)
    return gathered


def gather(x: Tensor) -> Tensor:
    """(n, ...) of every rank, concatenated in rank order. Ranks may differ in n."""
    return torch.cat(gather_objects(x.cpu())).to(x.device) if ranks() > 1 else x


def summed(x: Tensor) -> Tensor:
    """Elementwise over ranks."""
    if ranks() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total, dist.ReduceOp.SUM)
    return total


def anywhere(x: Tensor) -> Tensor:
    """Elementwise or over ranks."""
    if ranks() == 1:
        return x
    flags = x.detach().to(torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return flags.bool()
