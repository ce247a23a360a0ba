"""Sampling by a vLLM server, against a stand-in that answers over HTTP and samples from weights it was sent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignzoo import config
from alignzoo.batch import Completions
from alignzoo.common.noise import Noise
from alignzoo.contracts import DecodingRequest
from alignzoo.engine import checks
from alignzoo.models import modules, tokenizers
from alignzoo.models.networks import AdapterOffNetwork, PolicyNetwork, Shared
from alignzoo.models.sampling import backends, vllm_loop
from alignzoo.models.sampling import weights as exported
from alignzoo.models.sampling.vllm_loop import VLLM
from alignzoo.settings import Dtype, Generation, Peft, Sampling, UserError
from alignzoo.testing import toys
from alignzoo_plugins.reinforce.reinforce import Reinforce
from tests.models.standin import StandIn, install, other, serving
from tests.models.test_flat import module, records

PROMPTS = records([1, 12, 5, 2], [(0, 1)]).prompts
ENDS = set(range(0, 259, 12))
EOS = 7  # the server's, which is not one of ours


def softened(made: nn.Module) -> nn.Module:
    """Nearer to uniform, so that samples differ."""
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(0.5)
    return made


def made(family: str = "llama") -> Any:
    return softened(module(family, Dtype.float32))


def shared(**settings: Any) -> Shared:
    return Shared(Noise(7), ENDS, **settings)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    vllm_loop.connected.cache_clear()
    vllm_loop._served.cache_clear()


@pytest.fixture
def serve(monkeypatch: Any) -> Iterator[Any]:
    """`serve(module)`: a server of the same architecture, its weights others."""
    open_ones: list[Any] = []

    def start(of: Any, stateful: bool = True) -> StandIn:
        server = StandIn(other(of), EOS)
        install(monkeypatch, server, stateful)
        open_ones.append(serving(server))
        return open_ones[-1].__enter__()

    yield start
    for one in open_ones:
        one.__exit__(None, None, None)


def sampling(server: StandIn, **settings: Any) -> Sampling:
    return Sampling(**{"max_new_tokens": 8, "decoding": "vllm", "server": server.url} | settings)


def drawn(network: PolicyNetwork, how: Sampling, purpose: str = "rollout", prompts: Any = PROMPTS) -> Completions:
    with network.shared.noise.during(purpose, 0), network.shared.at(how.temperature):
        return network.generate(prompts, how)


def tokens(c: Completions) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(c.ids, c.attended, strict=True)]


def greedy(network: PolicyNetwork) -> list[list[int]]:
    """What our own loop writes."""
    return tokens(drawn(network, Sampling(max_new_tokens=8).greedy()))


# --- weights ---


@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_the_server_samples_from_the_weights_as_they_are_now(family, stateful, serve):
    own = made(family)
    server, network = serve(own, stateful), PolicyNetwork(own, shared())
    seen = [greedy(PolicyNetwork(server.module, shared()))]
    for step in range(2):
        assert tokens(drawn(network, sampling(server).greedy())) == greedy(network)
        seen.append(greedy(network))
        with torch.no_grad():
            for weight in own.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)))
    assert seen[0] != seen[1] != seen[2]
    assert server.updates == [[name for name, _ in own.named_parameters()]] * 2


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_adapter_is_added_in_where_it_is_on_and_the_policy_stays_as_it_is(family, serve):
    plain = made(family)
    server = serve(plain)
    own = modules.adapted(plain, Peft(enabled=True, rank=2), 0)
    with torch.no_grad():
        for name, weight in own.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    before = {name: (weight.clone(), weight._version) for name, weight in own.named_parameters()}
    policy, reference = PolicyNetwork(own, shared()), AdapterOffNetwork(own, shared(), frozen=True)
    assert greedy(policy) != greedy(reference)
    for network in (policy, reference, policy):
        c = drawn(network, sampling(server).greedy())
        assert tokens(c) == greedy(network)
        torch.testing.assert_close(c.logprobs, network.logprobs(replace(c, logprobs=None)), rtol=0, atol=1e-6)
    for name, weight in own.named_parameters():
        assert torch.equal(weight, before[name][0]) and weight._version == before[name][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: setattr(weight, "ds_id", 0), r"can't put weights together.*use FSDP2 or DDP"),
        (lambda weight: setattr(weight, "data", weight.data.to(torch.int8)), r"lm_head.weight, which is quantised"),
    ],
)
def test_weights_that_can_not_be_sent(change, message):
    own = made().requires_grad_(False)
    change(own.lm_head.weight)
    with pytest.raises(UserError, match=message):
        exported.weights(own)


def test_an_adapter_on_embeddings_that_are_shared():
    """One tensor can't be sent as two."""
    own = modules.adapted(module("qwen2"), Peft(enabled=True, rank=2, target_modules="lm_head"), 0)
    with pytest.raises(UserError, match="can't send an adapter on embeddings that input and output share: take auto"):
        exported.weights(own)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_that_is_no_lora():
    from peft import IA3Config, get_peft_model

    own = get_peft_model(made(), IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[]))
    with pytest.raises(UserError, match=r"q_proj.weight has another: take auto"):
        exported.weights(own)


# --- requests and answers ---


def test_what_is_asked(serve):
    own = made()
    server = serve(own)
    support = torch.arange(259) % 5 > 0
    network = PolicyNetwork(own, shared(support=support))
    how = sampling(server, samples=3, temperature=0.7, top_k=9, top_p=0.9, min_p=0.01)
    drawn(network, how)
    asked = {tuple(body.pop("prompt")[0]): body for body in server.requests}
    assert set(asked) == {tuple(ids[mask].tolist()) for ids, mask in zip(PROMPTS.ids, PROMPTS.attended, strict=True)}
    seeds = [body.pop("seed") for body in asked.values()]
    assert len(set(seeds)) == len(PROMPTS) and all(0 <= seed < 2**53 for seed in seeds)
    for body in asked.values():
        assert body.pop("temperature") == pytest.approx(0.7, rel=1e-12)
        assert body == {
            "model": "served", "n": 3, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "max_tokens": 8, "logprobs": None,
            "repetition_penalty": 1.0, "stop_token_ids": sorted(ENDS), "ignore_eos": True,
            "allowed_token_ids": support.nonzero()[:, 0].tolist(), "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }  # fmt: skip


def test_the_record(serve):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared(support=torch.arange(259) % 5 > 0))
    c = drawn(network, sampling(server, samples=30, temperature=0.8))
    assert c.prompt_of.tolist() == [i for i in range(len(PROMPTS)) for _ in range(30)]
    assert torch.equal(c.row, PROMPTS.row[c.prompt_of]) and torch.equal(c.attended, c.scored)
    texts = tokens(c)
    assert c.ids.shape[1] == max(map(len, texts)) == 8 and len({len(text) for text in texts}) > 4
    assert all(token % 5 > 0 for text in texts for token in text)
    assert not any(token in ENDS for text in texts for token in text[:-1])
    assert c.truncated.tolist() == [text[-1] not in ENDS for text in texts]
    assert {False, True} == set(c.truncated.tolist())
    assert any(EOS in text[:-1] for text in texts), "theirs ends nothing"
    assert not c.ids[~c.attended].any()


def test_each_prompt_has_a_seed_of_its_own_that_comes_again(serve):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared())
    twice = replace(PROMPTS.take([0, 0]), row=torch.tensor([3, 4]))
    how = sampling(server, samples=4, temperature=2.0)
    first, again, later = (tokens(drawn(network, how, purpose, twice)) for purpose in ("rollout", "rollout", "evaluation"))
    assert first == again
    turned = tokens(drawn(network, how, "rollout", twice.take([1, 0])))
    assert turned == first[4:] + first[:4], "it is the prompt's own, wherever it stands"
    assert len({tuple(text) for text in [*first, *later]}) == 16


def test_greedy_samples_are_asked_for_once(serve):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared())
    texts = tokens(drawn(network, sampling(server, samples=2, temperature=0.0)))
    assert texts == [text for text in greedy(network) for _ in range(2)]
    assert {(body["n"], body["temperature"]) for body in server.requests} == {(1, 0.0)}


def test_logprobs_are_the_networks_own_and_need_no_second_forward(serve):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared(support=torch.arange(259) % 5 > 0))
    how = sampling(server, samples=3, temperature=0.6)
    c = drawn(network, how)
    assert c.logprobs is not None and not c.logprobs.requires_grad
    calls: list[int] = []
    own.register_forward_hook(lambda *_: calls.append(1))
    own.model.register_forward_hook(lambda *_: calls.append(1))
    with network.shared.at(0.6), torch.no_grad():
        assert torch.equal(network.logprobs(c), c.logprobs) and not calls
        again = network.logprobs(replace(c, logprobs=None))
    assert calls
    torch.testing.assert_close(c.logprobs, again, rtol=0, atol=1e-6)


def test_no_prompts(serve):
    own = made()
    c = drawn(PolicyNetwork(own, shared()), sampling(serve(own)), prompts=PROMPTS.take([]))
    assert len(c) == 0 and c.logprobs is not None


def test_a_run(serve, tmp_path, monkeypatch):
    """Rollouts, evaluation and reference by the server; the updates reach it."""
    model = toys.setup(Reinforce()).model
    start = modules.policy(model, modules.config(model, tokenizers.byte_level()), 0)
    server = serve(start)
    generation = Generation(max_new_tokens=6, decoding="vllm", server=server.url)
    trainer = toys.trainer(toys.setup(Reinforce(), generation=generation), tmp_path / "run")
    trainer.train()
    assert trainer.state.global_step == 3
    for name, weight in server.module.named_parameters():
        assert torch.equal(weight, dict(trainer.trained.policy.named_parameters())[name])
    moved = [float((a - b).detach().norm()) for a, b in zip(server.module.parameters(), start.parameters(), strict=True)]
    assert max(moved) > 1e-3
    rollouts = [body for body in server.requests if body["n"] == 2]
    assert len(rollouts) == 3 * 4 and all(body["allowed_token_ids"] == list(range(2, 10)) for body in rollouts)


# --- what can go wrong ---


def test_what_a_machine_lacks(monkeypatch):
    from trl.generation import vllm_client

    how, algorithm = Generation(decoding="vllm"), Reinforce()
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *_, **__: False)
    with pytest.raises(
        UserError, match=r"^generation\.decoding=vllm needs vLLM, which is not installed: pip install 'alignzoo\[vllm\]'$"
    ):
        checks.check_decoding("rloo", algorithm, how, VLLM())
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *_, **__: True)
    monkeypatch.setattr(vllm_loop, "_has_cuda", lambda: False)
    with pytest.raises(UserError, match=r"sends weights from one GPU to another, and there is none: take auto$"):
        checks.check_decoding("rloo", algorithm, how, VLLM())
    monkeypatch.setattr(vllm_loop, "_has_cuda", lambda: True)
    checks.check_decoding("rloo", algorithm, how, VLLM())
    monkeypatch.delattr(vllm_client.VLLMClient, "update_named_params")
    with pytest.raises(UserError, match=r"needs trl 1\.16 or newer"):
        checks.check_decoding("rloo", algorithm, how, VLLM())
    checks.check_decoding("rloo", algorithm, Generation(), backends.ours()["auto"])


def test_the_check_comes_before_any_work(tmp_path, monkeypatch):
    from alignzoo.engine.build import Builder

    monkeypatch.setattr(vllm_loop, "_has_cuda", lambda: False)
    built = Builder(toys.setup(Reinforce(), generation=Generation(decoding="vllm")), tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"generation\.decoding=vllm"):
        built.check(ranks=1)


def test_a_trainer_that_samples_by_itself():
    from alignzoo_plugins.trl.rloo import TRLRLOO

    with pytest.raises(
        UserError, match=r"trl_rloo samples by itself, and generation\.decoding=vllm would do nothing: leave it out"
    ):
        checks.check_decoding("trl_rloo", TRLRLOO(), Generation(decoding="vllm"), VLLM())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"decoding": "vllm", "server": "gpu:8000"},
            r"^generation\.server=gpu:8000 .* a URL, such as http://localhost:8000$",
        ),
        ({"decoding": "vllm", "temperature": 0.001}, r"^generation\.temperature=0\.001 .*vLLM takes 0\.01"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        VLLM().check(Generation(**settings))


def test_a_server_that_nobody_asks():
    with pytest.raises(UserError, match=r"^generation\.server=http://gpu:8000 is only used with generation\.decoding=vllm$"):
        config.instantiate(config.compose(["algorithm=rloo", "generation.server=http://gpu:8000"]))


def test_networks_that_vllm_does_not_know(policy):
    for network, name in ((policy("t5").module, "T5ForConditionalGeneration"), (nn.Linear(2, 2), "Linear")):
        with pytest.raises(
            UserError, match=rf"decoding=vllm can't sample from {name}, which is no decoder of transformers': take"
        ):
            VLLM().generate(DecodingRequest(network, PROMPTS, Sampling(), torch.rand(4, 64), ENDS, lambda logits: logits))


def test_a_network_that_is_on_no_gpu():
    with pytest.raises(UserError, match=r"the network is on the cpu: take auto"):
        vllm_loop._device(made())


def test_nobody_answers(serve, tmp_path):
    own = made()
    server = serve(own)
    nowhere = Generation(decoding="vllm", server="http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"^generation\.server=http://127\.0\.0\.1:9 can't be reached: start it with\nVLLM_SERVER_DEV"
    ):
        toys.trainer(toys.setup(Reinforce(), generation=nowhere), tmp_path / "run")
    server.missing = {"/health"}
    with pytest.raises(UserError, match=r"answers 404, so no vLLM server is well there"):
        vllm_loop.connected(server.url)
    server.missing = set()


def lacks(path: str) -> Any:
    return lambda server: server.missing.add(path)


def has(**values: Any) -> Any:
    return lambda server: vars(server).update(values)


def describes(hf_config: Any) -> Any:
    return lambda server: server.model_config.update(hf_config=hf_config)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lacks("/server_info"), r"Restart it with `VLLM_SERVER_DEV_MODE=1`"),
        (has(transfer=None), r"Restart it with `--weight-transfer-config"),
        (has(longest=10), r"Request failed: 400.*maximum context length is 10 tokens"),
        (has(cap=3), r"stopped after 3 tokens, and generation\.max_new_tokens=8:\nstart it with --max-model-len 20 or more"),
        (describes('LlamaConfig {"hidden_size": 32}'), r"of hidden_size=32, and LlamaForCausalLM has 16:\nstart it with VLLM_"),
        (describes({"num_hidden_layers": 5}), r"serves a model of num_hidden_layers=5, and LlamaForCausalLM has 2:"),
    ],
)
def test_a_server_that_can_not(broken, message, serve):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared())
    broken(server)
    with pytest.raises(UserError, match=rf"(?s)^generation\.server={server.url}.*{message}"):
        drawn(network, sampling(server).greedy())


def test_a_server_of_another_precision_is_warned_of_once(serve, caplog):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared())
    server.model_config["dtype"] = "torch.bfloat16"
    with caplog.at_level("WARNING", "alignzoo"):
        for _ in range(2):
            drawn(network, sampling(server))
    (line,) = [record.message for record in caplog.records if "computes" in record.message]
    assert line == f"{server.url} computes in bfloat16 and the network in float32: start it with --dtype float32"


def test_logits_can_not_be_changed_there(serve):
    own = made()
    network, how = PolicyNetwork(own, shared()), sampling(serve(own))

    def adjust(scores: Tensor) -> Tensor:
        return scores

    with pytest.raises(UserError, match=r"can't change the logits.*take generation\.decoding=auto"):
        network.generate(PROMPTS, how, adjust)
    vllm_loop.connected(how.server)


def test_ctrl_c_does_not_wait_for_answers(serve):
    own = made()
    server, network = serve(own), PolicyNetwork(own, shared())
    server.waits = True
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        server.asked.wait()
        signal.pthread_kill(main, signal.SIGINT)

    presser = threading.Thread(target=press, daemon=True)  # where nothing is asked of the server, nobody may be interrupted
    presser.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    try:
        with pytest.raises(KeyboardInterrupt):
            drawn(network, sampling(server))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not server.released.is_set()
    presser.join()


# --- what is not drawn by the server ---


def test_what_is_made_and_sampled_afterwards_is_drawn_here():
    served = Sampling(decoding="vllm", server="http://gpu:8000", samples=3, temperature=0.5)
    assert served.in_process() == Sampling(samples=3, temperature=0.5)
    plain = Sampling(decoding="plain")
    assert plain.in_process() is plain
