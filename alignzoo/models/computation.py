"""What a network computes beside its weights: what a key to its outputs must hold, or another network's are taken for them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignzoo.common import fingerprint

# of `config.to_dict()`: where a model is from and who wrote it down, not what it computes
VOLATILE = {"transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "architectures", "torch_dtype", "dtype",
            "use_cache", "problem_type", "return_dict", "output_attentions", "output_hidden_states"}  # fmt: skip


def plain(config: Any) -> dict[str, Any]:
    """What of a model's config says what it computes, with all that it nests."""
    return _without(config.to_dict())


def computation(module: Any) -> dict[str, Any]:
    """Of a network: its class, its code where that came with it, its config, its attention, and the libraries it runs on."""
    kind = type(module)
    own = kind.__module__.partition(".")[0] not in ("transformers", "peft")
    return {
        "class": kind.__qualname__, "config": plain(module.config), "attention": module.config._attn_implementation,
        "code": fingerprint.of_file(Path(inspect.getfile(kind))) if own else None,
        "versions": {name: version for name, version in fingerprint.versions().items() if name in ("torch", "transformers")},
    }  # fmt: skip


def weights(module: nn.Module) -> str:
    """A hash of every weight by name, dtype, shape and value."""
    return fingerprint.of_tensors(_tensors(module))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(module.state_dict().items()):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        yield f"{name}:{value.dtype}:{tuple(value.shape)}", content


def _without(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _without(value) for key, value in node.items() if key not in VOLATILE}
    return [_without(value) for value in node] if isinstance(node, list | tuple) else node
