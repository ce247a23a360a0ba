"""What a network computes beside its weights: what a key to its outputs must hold, or another network's are taken for them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from alignzoo.common import fingerprint
from alignzoo.models.forward.padded import inner

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# of `config.to_dict()`: where a model is from and who wrote it down, not what it computes
VOLATILE = {"transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "architectures", "torch_dtype", "dtype",
            "use_cache", "problem_type", "return_dict", "output_attentions", "output_hidden_states"}  # fmt: skip


def plain(config: PretrainedConfig) -> dict[str, object]:
    """What of a model's config says what it computes, with all that it nests."""
    return {str(key): _without(value) for key, value in config.to_dict().items() if key not in VOLATILE}


def computation(module: nn.Module) -> dict[str, object]:
    """Of a network: its class, its code where that came with it, its config, its attention, and the libraries it runs on."""
    kind, config = type(module), inner(module).config
    foreign = kind.__module__.partition(".")[0] not in ("transformers", "peft")
    return {
        "class": kind.__qualname__, "config": plain(config), "attention": config._attn_implementation,
        "code": fingerprint.of_file(Path(inspect.getfile(kind))) if foreign else None,
        "versions": {name: version for name, version in fingerprint.versions().items() if name in ("torch", "transformers")},
    }  # fmt: skip


def weights(module: nn.Module) -> str:
    """A hash of every weight by name, dtype, shape and value."""
    return fingerprint.of_tensors(
        (f"{name}:{value.dtype}:{tuple(value.shape)}", value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        for name, value in sorted(module.state_dict().items())
    )


def _without(node: object) -> object:
    if isinstance(node, dict):
        return {str(key): _without(value) for key, value in node.items() if key not in VOLATILE}
    return [_without(value) for value in node] if isinstance(node, list | tuple) else node
