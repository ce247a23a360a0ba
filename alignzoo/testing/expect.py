"""What a check says where a property does not hold, and the expectations that several properties share."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.testing.reshape import tensors


class Broken(AssertionError):
    """A property that does not hold: what was expected, what was found, and what usually causes it."""

    def __init__(self, expected: str, found: str, cause: str) -> None:
        super().__init__(f"expected {expected}; found {found}. Likely cause: {cause}")
        self.expected, self.found, self.cause = expected, found, cause


class RepeatedFailure(Broken):
    """The error that an earlier property ended with."""

    def __init__(self, earlier: str) -> None:
        super().__init__("no error", f"the one that `{earlier}` ends with", "that one's")
        self.earlier = earlier


def expect(holds: bool | Tensor, expected: str, found: str, cause: str) -> None:
    """Raise `Broken` unless `holds`."""
    if not holds:
        raise Broken(expected, found, cause)


def expect_finite(x: Tensor, expected: str, cause: str) -> None:
    expect(x.isfinite().all(), expected, "NaN or Inf", cause)


@contextmanager
def untouched(batch: Batch, who: str) -> Iterator[None]:
    """Raises `Broken` where a tensor of the records is changed inside."""
    before = {path: x.clone() for path, x in tensors(batch).items()}
    yield
    changed = [path for path, x in tensors(batch).items() if not torch.equal(x, before[path])]
    cause = "an operation in place (x += ..., x[...] = ...)"
    expect(not changed, f"{who} to leave its records alone", f"{', '.join(changed)} changed", cause)


@contextmanager
def no_draw(remedy: str) -> Iterator[None]:
    """Raises `Broken` where something is drawn inside from a global random stream."""
    before = _streams()
    yield
    drawn = [name for name, state in _streams().items() if state != before[name]]
    expect(not drawn, "no draw from a global random stream", f"one from {', '.join(drawn)}", remedy)


def _streams() -> dict[str, str]:
    torch_state = torch.get_rng_state().numpy().tobytes().hex()
    return {"torch": torch_state, "numpy": str(np.random.get_state()), "random": str(random.getstate())}
