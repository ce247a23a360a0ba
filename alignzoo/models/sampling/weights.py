"""A network's weights one by one, as a checkpoint of it names them: whole where they are sharded, adapters added in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from alignzoo.errors import UserError
from alignzoo.models.forward import flat, padded


class Lora(Protocol):
    """A LoRA layer of peft."""

    disable_adapters: bool
    active_adapters: list[str]
    lora_variant: Mapping[str, object]

    def get_delta_weight(self, adapter: str) -> Tensor: ...


@dataclass(frozen=True)
class Weight:
    """One tensor. `adapted` is the LoRA layer around it."""

    name: str
    tensor: Tensor
    adapted: Lora | None = None

    @property
    def described(self) -> tuple[str, str, list[int]]:
        """Name, dtype such as "bfloat16", shape."""
        return self.name, str(self.tensor.dtype).removeprefix("torch."), list(self.tensor.shape)

    def whole(self) -> Tensor:
        """The tensor; a collective where it is sharded. The network itself is left as it is: merged and unmerged again, its
        weights would no longer be quite the same."""
        whole = _gathered(self.tensor.detach())
        if self.adapted is None or self.adapted.disable_adapters:
            return whole
        for adapter in self.adapted.active_adapters:
            whole = whole + _gathered(self.adapted.get_delta_weight(adapter)).to(whole.dtype)
        return whole


def weights(module: nn.Module) -> list[Weight]:
    """All of them, tied ones once. Raises UserError where they can't be had."""
    if flat.adapted_ties(module):
        raise UserError("generation.decoding=vllm can't send an adapter on embeddings that input and output share: take auto")
    network = padded.inner(module)
    layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "adapter_layer_names")}
    parts = [getattr(layer, name) for layer in layers.values() for name in layer.adapter_layer_names if hasattr(layer, name)]
    of_adapters = {id(parameter) for part in parts for parameter in part.parameters()}
    around = {f"{name}.base_layer.weight": layer for name, layer in layers.items()}
    whole = [
        Weight(name.replace(".base_layer.", "."), parameter, around.get(name))
        for name, parameter in network.named_parameters()
        if id(parameter) not in of_adapters
    ]
    for weight in whole:
        _check(weight)
    return whole


def _check(weight: Weight) -> None:
    if hasattr(weight.tensor, "ds_id") or "_fsdp_wrapped_module" in weight.name:
        raise UserError("generation.decoding=vllm can't put weights together that ZeRO-3 or FSDP1 shards: use FSDP2 or DDP")
    if not weight.tensor.is_floating_point():
        raise UserError(f"generation.decoding=vllm can't send {weight.name}, which is quantised: take generation.decoding=auto")
    if weight.adapted is not None and (not hasattr(weight.adapted, "get_delta_weight") or weight.adapted.lora_variant):
        raise UserError(f"generation.decoding=vllm can send LoRA adapters, and {weight.name} has another: take auto")


def _gathered(tensor: Tensor) -> Tensor:
    """A DTensor whole, a tensor as it is."""
    from torch.distributed.tensor import DTensor  # a second of import, that composing a config need not pay

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
