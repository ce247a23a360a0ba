"""What stands in for pi_ref stays what the policy was, and the cache never answers for anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from alignzoo.batch import Pairs
from alignzoo.contracts import Context
from alignzoo.functional import dpo_loss, forward_kl
from alignzoo.models import modules
from alignzoo.models.computation import weights
from alignzoo.models.networks import PolicyNetwork
from alignzoo.models.references import AdapterOff, Cached, Copy, NoReference
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Dtype, Forward, Model, Peft, Sampling, UserError
from alignzoo.testing import toys

RECORDS = toys.completions([0, 1, 2, 3], unscored=True)
PAIRS = toys.ToyTable(Pairs, 4).batch(range(4))


@pytest.fixture
def context(shared, tmp_path):
    """`context(module)`: what a reference is built from."""

    def make(module: Any) -> Context:
        cache = tmp_path / "cache"
        return Context(
            tokenizer=None, seed=0, sampling=Sampling(), context_length=64, cache=cache, policy=module, shared=shared
        )

    return make


def train(network: PolicyNetwork, steps: int = 3) -> None:
    """Some steps up the likelihood: afterwards the policy is another."""
    learnt = [p for p in network.module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.1)
    before = network.logprobs(RECORDS).detach()
    for _ in range(steps):
        optimizer.zero_grad()
        (-network.logprobs(RECORDS).sum()).backward()
        optimizer.step()
    assert (network.logprobs(RECORDS) - before).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["copy", "adapter"])
def test_training_leaves_the_reference_as_it_was(kind, module, shared, context):
    made = module("llama")
    base = PolicyNetwork(modules.frozen(made), shared)
    expected, entropy = base.logprobs(RECORDS), base.entropy(RECORDS)
    if kind == "adapter":
        made = modules.adapted(made, Peft(enabled=True, rank=4), seed=0)
    policy = PolicyNetwork(made, shared)
    reference = {"copy": Copy(), "adapter": AdapterOff()}[kind].build(context(made))
    torch.testing.assert_close(policy.logprobs(RECORDS), expected)  # an adapter starts as no change
    train(policy)
    found = reference.logprobs(RECORDS)
    assert torch.equal(found, expected) and not found.requires_grad
    assert torch.equal(reference.entropy(RECORDS), entropy)
    divergence = policy.tokens(RECORDS, forward_kl, beside=[reference])
    torch.testing.assert_close(
        divergence, base.tokens(RECORDS, lambda p, q: forward_kl(q, p), beside=[policy]), rtol=0, atol=1e-5
    )
    assert divergence.sum() > 1e-3
    drawn = reference.generate(RECORDS.prompts, Sampling(max_new_tokens=5).greedy())
    assert torch.equal(drawn.ids, base.generate(RECORDS.prompts, Sampling(max_new_tokens=5).greedy()).ids)
    # the sampler's log-probs are the reference's, and no stand-in for those of the policy, which shares its weights
    with torch.no_grad():
        assert torch.equal(reference.logprobs(drawn), drawn.logprobs)
        assert (policy.logprobs(drawn) - drawn.logprobs).abs().max() > 1e-3
    # the policy samples beside it, each by its own weights
    both = []
    policy.generate(RECORDS.prompts, Sampling(max_new_tokens=1), lambda *logits: both.append(logits) or logits[0], [reference])
    first = policy.generate(RECORDS.prompts, Sampling(max_new_tokens=1))
    for logits, network in zip(both[0], (policy, base), strict=True):
        expected = network.tokens(first, lambda rows: rows)[first.scored]
        torch.testing.assert_close(logits, expected.detach(), rtol=0, atol=1e-4)
    if kind == "adapter":
        with pytest.raises(UserError, match="sample from the policy, beside it"):
            reference.generate(RECORDS.prompts, Sampling(max_new_tokens=1), lambda *logits: logits[0], [policy])
    train(policy, steps=1)  # switching the adapter off has not frozen it


def test_a_copy_can_learn_nothing(module, context):
    reference = Copy().build(context(module("llama")))
    assert not any(p.requires_grad for p in reference.module.parameters())
    assert not reference.module.training


def test_no_reference(module, context):
    assert NoReference().build(context(module("llama"))) is None


# --- the cache ---


def cached(context: Any, module: Any) -> tuple[Any, list[int]]:
    """A network with its own connection, as another run has it, and a mark for each of its forwards."""
    network, forwards = Cached().build(context(module)), []
    network.module.get_input_embeddings().register_forward_hook(lambda *_: forwards.append(1))
    return network, forwards


def stored(network: Any) -> int:
    return network.store.connection.execute("SELECT COUNT(*) FROM logprobs").fetchone()[0]


def test_a_second_run_computes_nothing_and_reads_the_same_bits(module, context):
    first, computed = cached(context, module("llama"))
    expected = first.logprobs(RECORDS)
    assert computed and stored(first) == 4
    assert torch.equal(expected, Copy().build(context(module("llama"))).logprobs(RECORDS))
    second, computed = cached(context, module("llama"))
    assert torch.equal(second.logprobs(RECORDS), expected)
    # rows are known by their text, whatever they are padded to and next to
    shuffled = RECORDS.take([3, 1, 1])
    assert torch.equal(second.logprobs(shuffled), expected[[3, 1, 1], : shuffled.ids.shape[1]])
    assert not computed and second.logprobs(RECORDS.take([])).shape[0] == 0
    grown = second.logprobs(toys.completions([2, 3, 4, 5], unscored=True))
    assert computed and stored(second) == 6
    width = min(grown.shape[1], expected.shape[1])
    assert torch.equal(grown[:2, :width], expected[2:, :width])


def test_float64_is_kept(module, context):
    made = module("llama").double()
    first, second = cached(context, made)[0], cached(context, made)[0]
    assert first.logprobs(RECORDS).dtype == torch.float64
    assert torch.equal(second.logprobs(RECORDS), first.logprobs(RECORDS))


@pytest.mark.parametrize("change", ["weights", "token", "prompt", "scored", "temperature", "support"])
def test_any_change_is_computed_anew(change, module, shared, context):
    first, _ = cached(context, module("llama"))
    before, records, made = first.logprobs(RECORDS), RECORDS, module("llama")
    if change == "weights":
        with torch.no_grad():
            made.model.norm.weight[0] += 0.01
    if change == "token":
        records = replace(records, ids=records.ids.index_fill(1, torch.tensor([0]), 30))
    if change == "prompt":
        ids = records.prompts.ids.index_fill(1, torch.tensor([records.prompts.ids.shape[1] - 1]), 30)
        records = replace(records, prompts=replace(records.prompts, ids=ids))
    if change == "scored":
        records = replace(records, scored=records.attended & (torch.arange(records.ids.shape[1]) > 2))
    if change == "temperature":
        shared.temperature = 0.5
    if change == "support":
        shared.support = torch.arange(259) < 200
    network, computed = cached(context, made)
    found = network.logprobs(records)
    assert computed and stored(network) == 8
    assert not torch.equal(found, before)
    assert torch.equal(found, Copy().build(context(made)).logprobs(records))


def test_samples_of_evaluation_are_not_kept(module, shared, context):
    network, computed = cached(context, module("llama"))
    with shared.noise.during("evaluation", 3):
        expected = network.logprobs(RECORDS)
    assert stored(network) == 0
    assert torch.equal(network.logprobs(RECORDS), expected) and stored(network) == 4
    once = len(computed) // 2
    assert len(computed) == 2 * once > 0


def test_the_hash_of_weights(module):
    made = module("llama")
    before = weights(made)
    assert weights(module("llama")) == before
    assert weights(made.double()) != before
    assert weights(module("llama", seed=1)) != before


# --- one weights file, several networks ---


@pytest.mark.parametrize(
    "change",
    [{}, {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, {"hidden_act": "gelu"}, {"rms_norm_eps": 0.5}],
)
def test_the_first_loss_is_ln_2_whatever_the_same_weights_compute(change, module, shared, context):
    """DPO starts at -log sigma(0) = ln 2, as the policy is the reference."""
    cached(context, module("llama"))[0].logprobs(PAIRS.both)  # as an earlier run left them
    settings = Model(config={**toys.LLAMA, **change})
    other = modules.policy(settings, modules.config(settings, byte_level()), 0)
    other.load_state_dict(module("llama").state_dict())
    reference, computed = cached(context, other)
    policy = PolicyNetwork(other, shared).logprobs(PAIRS.both)
    chosen, rejected = PAIRS.both.sum(policy - reference.logprobs(PAIRS.both)).chunk(2)
    torch.testing.assert_close(dpo_loss(chosen, rejected, beta=1.0), torch.full((4,), 0.693147), rtol=0, atol=1e-5)
    assert bool(computed) == bool(change)


def test_how_tokens_are_laid_out_and_attended_to_is_told_apart(module, shared, context):
    keys = [Cached().build(context(module("llama"))).identity]
    shared.forward = Forward.padded
    keys.append(Cached().build(context(module("llama"))).identity)
    keys.append(Cached().build(context(module("llama", attention="eager"))).identity)
    keys.append(Cached().build(context(module("llama", dtype=Dtype.float64))).identity)
    assert len(set(keys)) == 4


# --- damage ---


@pytest.mark.parametrize("when", ["before a run", "in a run"])
def test_a_damaged_file_is_set_aside_named_once_and_made_again(when, module, context, capsys):
    first, _ = cached(context, module("llama"))
    expected = first.logprobs(RECORDS)
    path = first.store.path
    network = cached(context, module("llama"))[0] if when == "in a run" else None
    first.store.connection.close()
    path.write_bytes(b"no database at all" * 300)
    network = network or cached(context, module("llama"))[0]
    assert torch.equal(network.logprobs(RECORDS), expected) and torch.equal(network.logprobs(RECORDS), expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"alignzoo: {path} is damaged (file is not a database): it is {path.name}.damaged now")
    assert path.with_name(f"{path.name}.damaged").read_bytes().startswith(b"no database")
    assert stored(network) == 4


def test_a_cache_that_is_a_folder_is_named(module, context, tmp_path):
    with pytest.raises(UserError, match=f"reference=cached: {tmp_path} can't be written .*give a file, as reference.path=FILE"):
        Cached(path=str(tmp_path)).build(context(module("llama")))


def test_a_vector_whose_bits_have_changed_is_computed_again(module, context):
    first, _ = cached(context, module("llama"))
    expected = first.logprobs(RECORDS)
    with first.store.connection as connection:
        for key, value in connection.execute("SELECT key, value FROM logprobs").fetchall()[:2]:
            connection.execute("UPDATE logprobs SET value = ? WHERE key = ?", (value[:-1] + bytes([value[-1] ^ 1]), key))
    again, computed = cached(context, module("llama"))
    assert torch.equal(again.logprobs(RECORDS), expected) and computed
    last, computed = cached(context, module("llama"))
    assert torch.equal(last.logprobs(RECORDS), expected) and not computed
