"""The account against torch's own count of what is executed, and against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_backward_flop_count, sdpa_flop_count

from alignzoo.models import cascade, flat
from alignzoo.models.references import AdapterOff, Cached
from alignzoo.settings import Decoding, Forward, Generation, Model, Peft
from alignzoo.testing import toys
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.sft.sft import SFT

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def independent() -> FlopCounterMode:
    """torch's counter, told what it leaves out: fused attention on the CPU, and products added in place."""

    def forward(query, key, value, *_, **__):
        return sdpa_flop_count(query, key, value)

    def backward(gradient, query, key, value, *_, **__):
        return sdpa_backward_flop_count(gradient, query, key, value)

    def product(_, left, right, **__):
        return mm_flop(left, right)

    more = {FUSED: forward, FUSED_BACKWARD: backward, torch.ops.aten.addmm_: product}
    return FlopCounterMode(display=False, custom_mapping=more)


def counted(algorithm, folder, **changes):
    """The cost of three steps, and torch's count of the same."""
    training = {"max_steps": 3, "batch": 4, "micro_batch": "2", "eval_steps": 0} | changes.pop("training", {})
    trainer = toys.trainer(toys.setup(algorithm, training=training, **changes), folder)
    for network in trainer.roles.networks.values():
        # what a network can is tried out on nobody's account
        flat.unpadded(network.trunk, Forward.auto) if hasattr(network, "trunk") else cascade.able(network.module, Decoding.auto)
    with independent() as theirs:
        trainer.train()
    return trainer.cost.columns(), theirs.get_total_flops()


RUNS = {
    "dpo": (DPO, {}),
    "dpo padded": (DPO, {"model": Model(config=dict(toys.LLAMA), forward=Forward.padded)}),
    "dpo flat": (DPO, {"model": Model(config=dict(toys.LLAMA), forward=Forward.flat)}),
    "dpo cached": (DPO, {"reference": Cached(path=":memory:")}),
    "dpo checkpointing": (DPO, {"model": Model(config=dict(toys.LLAMA), gradient_checkpointing=True)}),
    "dpo lora": (DPO, {"peft": Peft(enabled=True, rank=2), "reference": AdapterOff()}),
    "sft lora": (SFT, {"peft": Peft(enabled=True, rank=2)}),
    "ppo": (PPO, {}),
    "ppo plain": (PPO, {"generation": Generation(max_new_tokens=6, decoding=Decoding.plain)}),
    "ppo entropy": (lambda: PPO(entropy_coef=0.1), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_costs_what_torch_counts(name, tmp_path):
    """Forward, backward, decoding, the head and evaluation, in every layout."""
    algorithm, changes = RUNS[name]
    cost, theirs = counted(algorithm(), tmp_path, **changes)
    assert cost["flops"] + cost["evaluation_flops"] == theirs
