"""A network's weights one by one, as a checkpoint of it names them: whole where they are sharded, adapters added in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alignzoo.errors import UserError
from alignzoo.models.forward import flat


@dataclass(frozen=True)
class Weight:
    """One tensor. `adapted` is the LoRA layer around it."""

    name: str
    own: Tensor
    adapted: Any = None

    @property
    def described(self) -> tuple[str, str, list[int]]:
        """Name, dtype such as "bfloat16", shape."""
        return self.name, str(self.own.dtype).removeprefix("torch."), list(self.own.shape)

    def whole(self) -> Tensor:
        """The tensor; a collective where it is sharded. The network itself is left as it is: merged and unmerged again, its
        weights would no longer be quite the same."""
        found = _gathered(self.own.detach())
        if self.adapted is None or self.adapted.disable_adapters:
            return found
        for adapter in self.adapted.active_adapters:
            found = found + _gathered(self.adapted.get_delta_weight(adapter)).to(found.dtype)
        return found


def weights(module: Any) -> list[Weight]:
    """All of them, tied ones once. Raises UserError where they can't be had."""
    if flat.adapted_ties(module):
        raise UserError("generation.decoding=vllm can't send an adapter on embeddings that input and output share: take auto")
    network = flat._inner(module)
    layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "adapter_layer_names")}
    apart = {id(parameter) for layer in layers.values() for parameter in _of_adapters(layer)}
    around = {f"{name}.base_layer.weight": layer for name, layer in layers.items()}
    found = [
        Weight(name.replace(".base_layer.", "."), parameter, around.get(name))
        for name, parameter in network.named_parameters()
        if id(parameter) not in apart
    ]
    for one in found:
        _check(one)
    return found


def _of_adapters(layer: Any) -> Iterator[Tensor]:
    for name in layer.adapter_layer_names:
        if hasattr(layer, name):
            yield from getattr(layer, name).parameters()


def _check(weight: Weight) -> None:
    if hasattr(weight.own, "ds_id") or "_fsdp_wrapped_module" in weight.name:
        raise UserError("generation.decoding=vllm can't put weights together that ZeRO-3 or FSDP1 shards: use FSDP2 or DDP")
    if not weight.own.is_floating_point():
        raise UserError(f"generation.decoding=vllm can't send {weight.name}, which is quantised: take generation.decoding=auto")
    if weight.adapted is not None and (not hasattr(weight.adapted, "get_delta_weight") or weight.adapted.lora_variant):
        raise UserError(f"generation.decoding=vllm can send LoRA adapters, and {weight.name} has another: take auto")


def _gathered(tensor: Any) -> Tensor:
    """A DTensor whole, a tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
