"""The account against torch's own count of what is executed, and against numbers worked by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from inspect import getsource

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from alignzoo.batch import Completions, Pairs, Prompts, Rated
from alignzoo.common.account import Account, Tally, completions_in
from alignzoo.contracts import Reward, Scores
from alignzoo.models.forward import flat
from alignzoo.models.forward.flops import attention, uncounted, watch
from alignzoo.models.networks import PolicyNetwork
from alignzoo.models.references import AdapterOff, Cached
from alignzoo.models.sampling import backends
from alignzoo.settings import Forward, Generation, Model, Peft
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
        writes = isinstance(network, PolicyNetwork)
        backends.fastest(network.module) if writes else flat.unpadded(network.trunk, Forward.auto)
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
    "ppo plain": (PPO, {"generation": Generation(max_new_tokens=6, decoding="plain")}),
    "ppo transformers": (PPO, {"generation": Generation(max_new_tokens=6, decoding="transformers")}),
    "ppo entropy": (lambda: PPO(entropy_coef=0.1), {}),
}


@pytest.mark.skipif(
    "@ position_ids" in getsource(LlamaRotaryEmbedding.forward),
    reason="its rotary angles are a matrix product, which torch counts",
)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_costs_what_torch_counts(name, tmp_path):
    """Forward, backward, decoding, the head and evaluation, in every layout."""
    algorithm, changes = RUNS[name]
    cost, theirs = counted(algorithm(), tmp_path, **changes)
    assert cost["flops"] + cost["evaluation_flops"] == theirs


def test_numbers_worked_by_hand():
    """Rows (5, 3) through 3 -> 4 -> 2: 2 x 5 x (12 + 8) = 200 forward. Backward: the last layer both gradients, 2 x 80; the
    first its weight alone, 120, for nobody asks about the rows. Without its weight the last layer has 80."""
    network, account = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), Account()
    watch(network, account, "policy")
    network(torch.ones(5, 3)).sum().backward()
    assert account.flops() == {"policy": [200, 280, 1, 1]}
    network[1].requires_grad_(False)
    network(torch.ones(5, 3)).sum().backward()
    assert account.tally("policy").backward == 280 + 200
    network(torch.ones(5, 3))
    assert account.flops()["policy"] == [600, 480, 3, 2]  # no backward, no cost
    with torch.no_grad(), uncounted(network):
        network(torch.ones(5, 3))
    assert sum(account.flops()["policy"][:2]) == 1080


def test_attention_by_hand():
    """Two queries, three keys, four heads of five, values of six: 2 x 4 x 6 x (5 + 6) = 528; its backward two and a half."""
    owner, account = nn.Identity(), Account()
    watch(owner, account, "policy")
    query, key, value = (torch.ones(1, 4, n, d, requires_grad=True) for n, d in ((2, 5), (3, 5), (3, 6)))
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    attention(owner, output, query, key, value, entries=6)
    output.sum().backward()
    assert account.flops()["policy"][:2] == [528, 1320]


SIZES = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "llama": SIZES | {"num_key_value_heads": 2},
    "gpt2": {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": SIZES,
    "mixtral": SIZES | {"num_key_value_heads": 2, "num_local_experts": 4},
    "t5": {
        "vocab_size": 99,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
}


@pytest.mark.parametrize(
    ("family", "attention"), [*((family, "sdpa") for family in FAMILIES), ("llama", "eager"), ("t5", "eager")]
)
def test_plain_networks_of_transformers(family, attention):
    """With padding, forward and backward, and sampling with a cache: what hosted trainers run."""
    config = AutoConfig.for_model(family, **FAMILIES[family])
    kind = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    network = kind.from_config(config, attn_implementation=attention)
    if family == "mixtral":
        network.set_experts_implementation("eager")  # torch does not count grouped products
    account = Account()
    watch(network, account, "policy")
    ids, mask = torch.arange(51).view(3, 17), torch.ones(3, 17, dtype=torch.long)
    mask[0, :5] = 0
    more = {"labels": ids} if family == "t5" else {}
    with independent() as theirs:
        network(input_ids=ids, attention_mask=mask, **more).logits.logsumexp(-1).sum().backward()
        network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert sum(account.flops()["policy"][:2]) == pytest.approx(theirs.get_total_flops(), rel=5e-3)


def test_what_is_not_known_is_said(caplog):
    watch(nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 3)), Account(), "value")
    assert "FLOPs of the value leave out Conv1d" in caplog.text


def test_every_role_has_its_share(tmp_path):
    """PPO trains policy and value; the reference only looks. Evaluation is on nobody's account."""
    trainer = toys.trainer(toys.setup(PPO(), training={"max_steps": 1, "eval_steps": 1}), tmp_path)
    trainer.train()
    cost = trainer.cost.columns()
    assert {name for name in cost if name.startswith("flops/")} == {"flops/policy", "flops/value", "flops/reference"}
    assert cost["flops"] == sum(cost[f"flops/{role}"] for role in ("policy", "value", "reference"))
    # rolling out reads prompts, then at most five tokens more; then one step
    assert cost["passes/policy/backward"] == cost["passes/value/backward"] == 1
    assert (cost["passes/value/forward"], cost["passes/reference/forward"], cost["passes/reference/backward"]) == (2, 1, 0)
    assert 2 <= cost["passes/policy/forward"] <= 7
    forward, backward, *_ = trainer.cost.flops()["reference"]
    assert forward > 0 == backward < cost["evaluation_flops"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, last = (row for row in rows if "eval/reward" in row)
    assert {first[f"cost/{unit}"] for unit in ("steps", "samples", "tokens", "flops")} == {0}
    assert [last[f"cost/{unit}"] for unit in ("steps", "samples", "flops")] == [1, 8, cost["flops"]]
    assert last["cost/tokens"] == sum(cost[name] for name in ("prompt_tokens", "completion_tokens", "trained_tokens"))


def test_frozen_weights_cost_half_of_the_way_back(tmp_path):
    """Of a LoRA policy, backward is less than forward: no gradient by its frozen weights; the reference is the same network
    without adapter, and has a share of its own."""
    made = toys.setup(DPO(), peft=Peft(enabled=True, rank=2), reference=AdapterOff(), training={"max_steps": 1})
    trainer = toys.trainer(made, tmp_path)
    trainer.train()
    state = trainer.cost.flops()
    forward, backward, *passes = state["policy"]
    assert passes == [1, 1] and backward < 1.3 * forward
    assert 0.8 * forward < state["reference"][0] < forward and state["reference"][1:] == [0, 1, 0]


def test_a_cached_reference_is_free_the_second_time(tmp_path):
    cached = Cached(path=str(tmp_path / "cache.sqlite"))
    first, second = (counted(DPO(), tmp_path / name, reference=cached)[0]["flops/reference"] for name in ("one", "two"))
    assert first > 0 == second


@dataclass(kw_only=True)
class Judged(Reward):
    """Scores by a network of its own, kept within another reward."""

    def setup(self, context):
        self.parts = {"judge": [nn.Linear(1, 1)]}

    def __call__(self, c):
        return Scores(total=self.parts["judge"][0](c.length[:, None])[:, 0])


def test_the_networks_of_a_reward_count(tmp_path):
    """8 completions a rollout, each one product: 2 FLOPs; the evaluation's four are apart."""
    trainer = toys.trainer(toys.setup(PPO(), reward=Judged(), training={"max_steps": 1}), tmp_path)
    trainer.train()
    cost = trainer.cost.columns()
    assert (cost["flops/reward"], cost["passes/reward/forward"], cost["passes/reward/backward"]) == (16, 1, 0)
    assert cost["reward_seconds"] > 0


def test_samples_are_completions_at_first_hand():
    """A pair is two, a demonstration one, a prompt none; rows from 24 on are an epoch's second look."""
    table = {view: toys.ToyTable(view, 24, 0, True).batch([0, 1, 2]) for view in (Pairs, Completions, Rated, Prompts)}
    assert [completions_in(records, 24) for records in table.values()] == [6, 3, 3, 0]
    assert [completions_in(records, 2) for records in table.values()] == [4, 2, 2, 0]


def test_costs_come_back_exactly():
    cost, again = Account(), Account()
    cost.tallies["policy"] = Tally(1, 2, 3, 4)
    cost.evaluation_flops = 5
    again.tallies["value"] = Tally(9, 9, 9, 9)
    again.load_state_dict(json.loads(json.dumps(cost.state_dict())))
    assert again.flops()["policy"] == [1, 2, 3, 4] and again.evaluation_flops == 5
    assert again.used()["flops"] == 3
