"""Small networks of several families, their weights far enough from zero that context and position matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignzoo.common.noise import Noise
from alignzoo.models import modules, tokenizers
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.settings import Model
from alignzoo.testing import toys

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
SMALL = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "llama": toys.LLAMA,
    "gpt2": GPT2,
    "gpt_neox": {"model_type": "gpt_neox", **SMALL},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 1, **SMALL},
    "gemma3": {"model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4, **SMALL,
               "layer_types": ["sliding_attention", "full_attention"]},
    "t5": toys.T5,
}  # fmt: skip


@pytest.fixture
def module() -> Callable[..., nn.Module]:
    """`module(family, seed=0)`: a policy's module, every weight moved by noise."""

    def make(family: str, seed: int = 0, **settings: Any) -> nn.Module:
        model = Model(config=dict(FAMILIES[family]), **settings)
        made = modules.policy(model, modules.config(model, tokenizers.byte_level()), seed)
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.3 * torch.randn(weight.shape, generator=source))
        return made

    return make


@pytest.fixture
def shared() -> Shared:
    return Shared(Noise(seed=7), ends={toys.EOS})


@pytest.fixture
def policy(module: Any, shared: Shared) -> Callable[..., PolicyNetwork]:
    """`policy(family, seed=0)`: the module as algorithms see it."""
    return lambda family, seed=0, frozen=False: PolicyNetwork(module(family, seed), shared, frozen)


@pytest.fixture
def plain_logits() -> Callable[..., Tensor]:
    """`plain_logits(module, prompt, written)`: (len(written) + 1, V) next-token logits of one unpadded sequence, by the
    model alone.
    """

    def compute(module: nn.Module, prompt: list[int], written: list[int]) -> Tensor:
        if module.config.is_encoder_decoder:
            start = [module.config.decoder_start_token_id, *written]
            return module(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start])).logits[0]
        return module(input_ids=torch.tensor([prompt + written])).logits[0, len(prompt) - 1 :]

    return compute
