"""Properties of how a loss computes: in the networks' own dtype, on the records' own device, and as fast as DPO."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo.testing import toys
from alignzoo.testing.expect import expect
from alignzoo.testing.lab import Lab
from alignzoo.testing.subject import Subject

MAKERS = {
    torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.tensor, torch.as_tensor, torch.linspace, torch.eye,
    torch.rand, torch.randn, torch.randint, torch.randperm,
}  # fmt: skip
MOVERS = {Tensor.cpu, Tensor.cuda}
CORE = ("alignzoo.", "torch.", "transformers.")
Arguments = tuple[object, ...]
OPERATIONS, BYTES, GROWTH = 5.0, 5.0, 1.5  # times DPO's


def dtype(subject: Subject) -> None:
    """Terms are of the networks' own precision."""
    lab = subject.lab
    cause = "a dtype is hard-coded (.float(), dtype=torch.float32)"
    for name, term in lab.terms(lab.records).items():
        expect(term.dtype == torch.float64, f"the term {name!r} in float64, as the networks are", str(term.dtype), cause)


def device(subject: Subject) -> None:
    """Tensors are made where the records are."""
    lab = subject.lab
    with Watch() as watch:
        if lab.online:
            lab.rollout()
        lab.objective(lab.records)
    calls = "; ".join(dict.fromkeys(watch.calls))
    cause = "a device is hard-coded: give device=x.device, or use x.new_zeros"
    expect(not calls, "tensors on the device of the records", calls, cause)


class Watch(TorchFunctionMode):
    """Notes where code outside the core makes a tensor without saying where, or moves one to a device it names."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Arguments = (), kwargs: dict[str, object] | None = None
    ) -> object:
        kwargs = kwargs or {}
        result, caller = func(*args, **kwargs), sys._getframe(1)
        if not str(caller.f_globals.get("__name__", "")).startswith(CORE) and self._wrong(func, args, kwargs, result):
            name = getattr(func, "__name__", str(func))
            self.calls.append(f"{name} in {Path(caller.f_code.co_filename).name}, line {caller.f_lineno}")
        return result

    def _wrong(self, func: Callable[..., object], args: Arguments, kwargs: dict[str, object], result: object) -> bool:
        if func in MOVERS:
            return True
        named = isinstance(kwargs.get("device"), str) or (func is Tensor.to and any(_is_device(a) for a in args[1:]))
        unsaid = func in MAKERS and "device" not in kwargs and not any(isinstance(a, Tensor) for a in args)
        return isinstance(result, Tensor) and (named or (unsaid and result.dim() > 0))


def _is_device(value: object) -> bool:
    return isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda", "mps", "xpu")


def speed(subject: Subject) -> None:
    """A loss takes about as many operations and as much memory as DPO's, and no more operations for more records."""
    work, growth = workload(subject.lab)
    dpo, dpo_growth = yardstick()
    cause = "a loop over records or tokens: write it for the whole batch"
    times = work.operations / dpo.operations
    expect(times <= OPERATIONS, f"at most {OPERATIONS:g} times DPO's operations", f"{times:.1f} times", cause)
    times = growth / dpo_growth
    expect(times <= GROWTH, "twice the records to take as many operations", f"{times:.1f} times as many", cause)
    times = work.bytes / dpo.bytes
    cause = "a tensor over the vocabulary or over pairs of tokens: use `policy.tokens`, which goes chunk by chunk"
    expect(times <= BYTES, f"at most {BYTES:g} times DPO's memory traffic", f"{times:.1f} times", cause)


class Workload(TorchDispatchMode):
    """Operations and bytes written, of what is computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: Arguments = (), kwargs: dict[str, object] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        parts = result if isinstance(result, tuple | list) else [result]
        self.bytes += sum(x.numel() * x.element_size() for x in parts if isinstance(x, Tensor) and x._base is None)
        return result


def workload(lab: Lab) -> tuple[Workload, float]:
    """Of a loss and its gradient; and how many times as many operations twice the records take."""
    lab.objective(lab.records)  # once before: what is done at the first call only is not counted
    work, double = Workload(), Workload()
    with work:
        lab.objective(lab.records)
    with double:
        lab.objective(type(lab.records).cat([lab.records, lab.records]))
    return work, double.operations / work.operations


@cache
def yardstick() -> tuple[Workload, float]:
    """DPO's."""
    with TemporaryDirectory() as folder:
        return workload(Subject("dpo", toys.ToyDPO(), Path(folder)).build())


CHECKS = (dtype, device, speed)
