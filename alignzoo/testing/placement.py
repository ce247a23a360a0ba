"""Properties of how a loss computes: in the networks' own dtype, on the records' own device, and as fast as DPO."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo.batch import Pairs
from alignzoo.contracts import Algorithm, Kind, Models, Role
from alignzoo.functional import dpo_loss
from alignzoo.testing.lab import Lab
from alignzoo.testing.subject import Subject, expect

MAKERS = {
    torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.tensor, torch.as_tensor, torch.linspace, torch.eye,
    torch.rand, torch.randn, torch.randint, torch.randperm,
}  # fmt: skip
MOVERS = {Tensor.cpu, Tensor.cuda}
CORE = ("alignzoo.", "torch.", "transformers.")
OPERATIONS, BYTES, GROWTH = 5.0, 5.0, 1.5  # times DPO's


def dtype(subject: Subject) -> None:
    """Terms are of the networks' own precision."""
    lab = subject.lab
    for name, term in lab.terms(lab.records).items():
        cause = "a dtype is hard-coded (.float(), dtype=torch.float32)"
        expect(term.dtype == torch.float64, f"the term {name!r} in float64, as the networks are", str(term.dtype), cause)


def device(subject: Subject) -> None:
    """Tensors are made where the records are."""
    lab = subject.lab
    with Watch() as watch:
        if lab.online:
            lab.rollout(lab.inputs())
        lab.objective(lab.records)
    found = "; ".join(dict.fromkeys(watch.found))
    expect(
        not found,
        "tensors on the device of the records",
        found,
        "a device is hard-coded: give device=x.device, or use x.new_zeros",
    )


class Watch(TorchFunctionMode):
    """Notes where code outside the core makes a tensor without saying where, or moves one to a device it names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, made = kwargs or {}, None
        made = func(*args, **kwargs)
        caller = sys._getframe(1)
        if not str(caller.f_globals.get("__name__", "")).startswith(CORE) and self._wrong(func, args, kwargs, made):
            name = getattr(func, "__name__", str(func))
            self.found.append(f"{name} in {Path(caller.f_code.co_filename).name}, line {caller.f_lineno}")
        return made

    def _wrong(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], made: Any) -> bool:
        if func in MOVERS:
            return True
        named = isinstance(kwargs.get("device"), str) or (func is Tensor.to and any(_is_device(a) for a in args[1:]))
        unsaid = func in MAKERS and "device" not in kwargs and not any(isinstance(a, Tensor) for a in args)
        return isinstance(made, Tensor) and (named or (unsaid and made.dim() > 0))


def _is_device(value: Any) -> bool:
    return isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda", "mps", "xpu")


def speed(subject: Subject) -> None:
    """A loss takes about as many operations and as much memory as DPO's, and no more operations for more records."""
    own, dpo = account(subject.lab), yardstick()
    cause = "a loop over records or tokens: write it for the whole batch"
    found = own.operations / dpo.operations
    expect(found <= OPERATIONS, f"at most {OPERATIONS:g} times DPO's operations", f"{found:.1f} times", cause)
    found = own.growth / dpo.growth
    expect(found <= GROWTH, "twice the records to take as many operations", f"{found:.1f} times as many", cause)
    found = own.bytes / dpo.bytes
    cause = "a tensor over the vocabulary or over pairs of tokens: use `policy.tokens`, which goes chunk by chunk"
    expect(found <= BYTES, f"at most {BYTES:g} times DPO's memory traffic", f"{found:.1f} times", cause)


@dataclass
class Account(TorchDispatchMode):
    """Operations and bytes written, of a loss and its gradient."""

    operations: int = 0
    bytes: int = 0
    growth: float = field(default=1.0)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.operations += 1
        parts = made if isinstance(made, tuple | list) else [made]
        self.bytes += sum(x.numel() * x.element_size() for x in parts if isinstance(x, Tensor) and x._base is None)
        return made


def account(lab: Lab) -> Account:
    lab.objective(lab.records)  # once before: what is done at the first call only is not counted
    twice = type(lab.records).cat([lab.records, lab.records])
    found, double = Account(), Account()
    with found:
        lab.objective(lab.records)
    with double:
        lab.objective(twice)
    found.growth = double.operations / found.operations
    return found


@dataclass(kw_only=True)
class Yardstick(Algorithm):
    """DPO, as the measure of speed."""

    data = Pairs

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reference": Role(kind=Kind.POLICY, start="reference")}

    def loss(self, models: Models, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        both = batch.both
        chosen, rejected = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both)).chunk(2)
        return dpo_loss(chosen, rejected, 0.1), {}


@cache
def yardstick() -> Account:
    with TemporaryDirectory() as folder:
        return account(Subject("dpo", Yardstick(), Path(folder)).build())
