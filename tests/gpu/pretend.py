"""A GPU where there is none: tensors that are said to be on one compute on the CPU, and meet no others.

What a real one refuses is refused: operations on tensors of both, and numbers of one read through NumPy. What it allows is
allowed: copies, indices from the CPU, and single numbers from there among what they are combined with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}
COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """In what operations take and give: tensors, and lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(*value)


class Marks:
    """Which storages are said to be on the GPU; they are kept, so that no other one is taken for them."""

    def __init__(self) -> None:
        self.storages: dict[int, Any] = {}

    def put(self, result: Any) -> Any:
        for x in tensors_in(result):
            self.storages[x.untyped_storage()._cdata] = x.untyped_storage()
        return result

    def __contains__(self, x: Tensor) -> bool:
        return x.untyped_storage()._cdata in self.storages


class Refusing(TorchDispatchMode):
    """Every operation there is passes here, those of backward passes included."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self.marks = marks

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [*tensors_in(args, [*(kwargs or {}).values()])]
        there = [x for x in tensors if x in self.marks]
        here = [x for x in tensors if x not in self.marks and x.dim()]
        if func in INDEXING and args[0] in self.marks:
            here = [x for x in here if not any(x is index for index in args[1])]
        if there and here and func not in COPIES:
            raise RuntimeError(f"{func}: tensors on {GPU} and on the CPU: {[(x.shape, x in self.marks) for x in tensors]}")
        result = func(*args, **(kwargs or {}))
        onto = args[0] in self.marks if func in COPIES else bool(there)
        return self.marks.put(result) if onto else result


class Placing(TorchFunctionMode):
    """What names a device, or asks for one."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self.marks = marks

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        there = bool(args) and isinstance(args[0], Tensor) and args[0] in self.marks
        if func == Tensor.device.__get__ and there:  # type: ignore[attr-defined]
            return GPU
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return there
        if name in ("numpy", "__array__") and there:
            raise TypeError(f"can't convert {GPU} device type tensor to numpy")
        if name in ("to", "cpu", "cuda"):
            return self._moved(func, args, kwargs, there)
        if name == "pad_sequence" and args[0][0] in self.marks:  # which makes what it fills out of nothing
            return self.marks.put(func(*args, **kwargs))
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            del kwargs["device"]
            return self.marks.put(func(*args, **kwargs))
        return func(*args, **kwargs)

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any], there: bool) -> Any:
        """`x.to(...)`, `x.cpu()`, `x.cuda()`: the device is what is done here, the type is left to the function itself."""
        x, *rest = args
        if func.__name__ != "to":
            device = torch.device(func.__name__)
        else:
            named = [part for part in [*rest, kwargs.get("device")] if isinstance(part, str | torch.device)]
            like = [part for part in [*rest, kwargs.get("other")] if isinstance(part, Tensor)]
            onto = GPU if (like[0] in self.marks if like else there) else torch.device("cpu")
            device = torch.device(named[0]) if named else onto
        if device.type == "meta" or not (there or device.type == "cuda"):
            return func(*args, **kwargs)
        rest = [part for part in rest if part is not None and not isinstance(part, str | torch.device)]
        others = {key: value for key, value in kwargs.items() if key != "device"}
        typed = any(isinstance(part, torch.dtype | Tensor) for part in [*rest, *others.values()])
        result = x.to(*rest, **others) if typed and func.__name__ == "to" else x
        if (device.type == "cuda") == there:
            return result
        copied = result.clone()
        if device.type == "cuda":
            return self.marks.put(copied)
        self.marks.storages.pop(copied.untyped_storage()._cdata, None)
        return copied


@contextmanager
def gpu() -> Iterator[Marks]:
    """Inside, there seems to be one."""
    marks, enabled, lowered, run = (
        Marks(),
        torch.is_autocast_enabled,
        torch.get_autocast_dtype,
        torch.autograd._engine_run_backward,
    )
    placing = Placing(marks)

    def backward(*args: Any, **kwargs: Any) -> Any:
        with placing:  # which is left while one of torch's functions runs, and backward passes run within one
            return run(*args, **kwargs)

    with placing, Refusing(marks), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "_engine_run_backward", backward)
        patch.setattr(torch, "is_autocast_enabled", lambda device=None: enabled("cpu"))
        patch.setattr(torch, "get_autocast_dtype", lambda device=None: lowered("cpu"))
        yield marks
