"""State on disk without pickle: nested dicts, lists, numbers, strings, tensors and records as one JSON and one safetensors
file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainingArguments

from alignzoo.batch import Batch
from alignzoo.errors import UserError

T = TypeVar("T")


def save(state: object, path: Path) -> None:
    """Write `path`.json and `path`.safetensors. Raises TypeError for what has no exact form there."""
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, tensors)
    path.with_suffix(".json").write_text(json.dumps(tree))
    save_file(tensors, path.with_suffix(".safetensors"))


def load(path: Path) -> Any:
    """What `save` wrote. Record types must already be imported: a checkpoint never names code to load."""
    tensors = load_file(path.with_suffix(".safetensors"))
    return _unpack(json.loads(path.with_suffix(".json").read_text()), tensors)


def of_rank(states: list[T], args: TrainingArguments) -> T:
    """This process's of the states of all. Raises UserError where other processes than those of now wrote them."""
    if len(states) != args.world_size:
        raise UserError(
            f"the checkpoint was written by {len(states)} process(es), and {args.world_size} are to go on from it: "
            f"a run goes on with as many (torchrun --nproc-per-node {len(states)})"
        )
    return states[args.process_index]


def _pack(value: object, tensors: dict[str, Tensor]) -> object:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$tensor": name}
    if isinstance(value, Batch):
        kind = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"$record": kind, "fields": {f.name: _pack(getattr(value, f.name), tensors) for f in fields(value)}}
    if isinstance(value, dict):
        return {"$dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_pack(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_pack(v, tensors) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint can hold numbers, strings, lists, dicts, tensors and records, not {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_unpack(v, tensors) for v in value["$tuple"])
    if "$dict" in value:
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in value["$dict"]}
    columns = {name: _unpack(column, tensors) for name, column in value["fields"].items()}
    return _record_type(value["$record"])(**columns)


def _record_type(kind: str) -> type[Batch]:
    module, name = kind.split(":")
    record: object = reduce(lambda scope, part: getattr(scope, part, None), name.split("."), sys.modules.get(module))
    if not (isinstance(record, type) and issubclass(record, Batch)):
        raise UserError(
            f"the checkpoint holds records of {kind}, which this algorithm's plugin does not define: is it the same version?"
        )
    return record
