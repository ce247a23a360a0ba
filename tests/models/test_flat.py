"""Forwards without padding equal those with it: log-probs, distributions, values, scores, embeddings and gradients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise
from alignzoo.contracts import Kind, Role
from alignzoo.functional import forward_kl
from alignzoo.models import modules, networks, tokenizers
from alignzoo.models.forward import flat, head, layout
from alignzoo.models.networks import AdapterOffNetwork, HeadedNetwork, PolicyNetwork, Shared
from alignzoo.settings import Dtype, Forward, Model, Peft
from alignzoo.testing import toys

SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
FAMILIES = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2, "tie_word_embeddings": False, **SIZES},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 1, "tie_word_embeddings": True, **SIZES},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8, **SIZES},
    "gemma3": {"model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 5,
               "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 8.0, **SIZES},
    "cohere": {"model_type": "cohere", "num_key_value_heads": 2, **SIZES},
    "granite": {"model_type": "granite", "num_key_value_heads": 2, "logits_scaling": 3.0, **SIZES},
    "gpt_neox": {"model_type": "gpt_neox", **SIZES},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512},
}  # fmt: skip
PACKED = [Forward.flat, Forward.tree, Forward.auto]


def module(family: str, dtype: Dtype = Dtype.float64, seed: int = 0, **settings: Any) -> nn.Module:
    """Weights far enough from zero that every token that is seen matters."""
    model = Model(config=dict(FAMILIES[family]), dtype=dtype, **settings)
    made = modules.policy(model, modules.config(model, tokenizers.byte_level()), seed)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=source).to(weight.dtype))
    return in_double_throughout(made) if dtype is Dtype.float64 else made


def in_double_throughout(made: nn.Module) -> nn.Module:
    """Most families compute their norms in float32 whatever the weights are; gradients would then agree to 1e-7 only."""
    for part in made.modules():
        kind = type(part).__name__
        if kind.endswith(("RMSNorm", "CohereLayerNorm")):
            part.forward = partial(norm_in_double, part, "Cohere" in kind, "Gemma" in kind)
    return made


def norm_in_double(part: Any, centred: bool, around_one: bool, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True) if centred else x
    epsilon = getattr(part, "variance_epsilon", None) or part.eps
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * (part.weight + around_one)


def records(prompts: list[int], completions: list[tuple[int, int]], seed: int = 0) -> Completions:
    """Prompts of these lengths; completions as (prompt, length), some begun by two tokens that are not scored."""
    random = torch.Generator().manual_seed(seed)
    left, right = max(prompts), max([length for _, length in completions] + [1])
    draw = lambda *shape: torch.randint(3, 250, shape, generator=random)  # noqa: E731
    lengths = torch.tensor([length for _, length in completions])
    attended = torch.arange(right) < lengths[:, None]
    scored = attended.clone()
    scored[::3, :2] &= lengths[::3, None] <= 2
    rows = torch.arange(len(completions))
    return Completions(
        prompts=Prompts(
            ids=draw(len(prompts), left), attended=torch.arange(left) >= left - torch.tensor(prompts)[:, None],
            row=torch.arange(len(prompts)),
        ),
        prompt_of=torch.tensor([prompt for prompt, _ in completions]), ids=draw(len(completions), right), attended=attended,
        scored=scored, truncated=torch.zeros(len(completions), dtype=torch.bool), row=rows,
    )  # fmt: skip


BATCHES = {
    "pairs": records([7, 1, 4], [(0, 5), (1, 3), (2, 9), (0, 2), (1, 8), (2, 1)]),
    "groups": records([1, 12], [(p, 1 + (p + 3 * k) % 9) for p in (0, 1) for k in range(5)]),
    "empty and unused": records([3, 2, 5], [(0, 0), (0, 4), (2, 0), (2, 3), (2, 0)]),
    "alone": records([1], [(0, 1)], seed=1),
    "long": records([130, 90, 20], [(0, 60), (0, 55), (0, 4), (1, 100), (1, 90), (2, 30), (2, 7)]),
}


def shared(mode: Forward, **settings: Any) -> Shared:
    return Shared(Noise(0), ends={toys.EOS}, forward=mode, **settings)


def run(network: Any, measure: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
    """What is measured, and the gradient of a fixed combination of it with respect to every parameter."""
    network.module.zero_grad()
    found = measure(network)
    weights = torch.linspace(-1, 1, found.numel()).to(found.dtype).reshape(found.shape)
    (found * weights).sum().backward()
    gradients = [p.grad.flatten() for p in network.module.parameters() if p.grad is not None]
    return found.detach(), torch.cat(gradients)


def norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(x).item()


def assert_equal(
    measure: Callable[[Any], Tensor], made: nn.Module, mode: Forward, kind: Any = PolicyNetwork, **options: Any
) -> None:
    expected, expected_gradient = run(kind(made, shared(Forward.padded, **options)), measure)
    assert norm(expected) > 0 and norm(expected_gradient) > 0
    found, gradient = run(kind(made, shared(mode, **options)), measure)
    assert not flat._known[made], flat._known[made]
    exact = expected.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 if exact else 2e-6)
    assert abs(float(found.sum() - expected.sum())) < (1e-10 if exact else 1e-5) * float(expected.abs().sum())
    assert norm(gradient - expected_gradient) < (1e-10 if exact else 1e-5) * norm(expected_gradient)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"cohere"}))  # which turns in float32
def test_logprobs_in_double_precision(family, batch):
    c, made = BATCHES[batch], module(family)
    for mode in PACKED:
        assert_equal(lambda network: network.logprobs(c), made, mode)


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_in_single_precision(family):
    made = module(family, Dtype.float32)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(0.3)  # log-probs around -5: an ulp of larger ones alone is half the tolerance
    for c in BATCHES.values():
        assert_equal(lambda network, c=c: network.logprobs(c), made, Forward.tree)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.7}, {"support": torch.arange(259) % 2 == 0}], ids=["temperature", "support"]
)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_the_sampling_distribution(family, options):
    c, made = BATCHES["pairs"], module(family)
    if "support" in options:
        c.ids.copy_(c.ids // 2 * 2)
    assert_equal(lambda network: network.logprobs(c), made, Forward.tree, **options)
    assert_equal(lambda network: network.entropy(c), made, Forward.tree, **options)


@pytest.mark.parametrize("bytes_", [0, 2**20])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}])
def test_logits_kept_and_logits_computed_again(bytes_, options, monkeypatch):
    monkeypatch.setattr(head, "KEPT_BYTES", bytes_)
    monkeypatch.setattr(head, "ROWS", 4)
    assert_equal(lambda network: network.logprobs(BATCHES["pairs"]), module("llama"), Forward.tree, **options)


@pytest.mark.parametrize("budget", [None, 5 * 259 * 8])
def test_distributions_of_two_networks(budget, monkeypatch):
    c, made, teacher = BATCHES["groups"], module("gemma3"), module("gpt2", seed=1)
    if budget:
        monkeypatch.setattr(networks, "CHUNK_BYTES", budget)
    for mode in PACKED:
        measure = lambda n: n.tokens(c, forward_kl, beside=[PolicyNetwork(teacher, n.shared, frozen=True)])  # noqa: E731
        assert_equal(measure, made, mode)


@pytest.mark.parametrize("kind", [Kind.VALUE, Kind.SCORER, Kind.EMBEDDER])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_heads(kind, family):
    c, trunk = BATCHES["empty and unused"], module(family)
    made = modules.role_module("head", Role(kind=kind, trained=True), trunk, None, Model()).double()
    nn.init.normal_(made.head.weight)
    measure = {
        Kind.VALUE: lambda network: network.values(c),
        Kind.SCORER: lambda network: network.scores(c),
        Kind.EMBEDDER: lambda network: network.embed(c),
    }[kind]
    expected, expected_gradient = run(HeadedNetwork(made, shared(Forward.padded)), measure)
    for mode in PACKED:
        found, gradient = run(HeadedNetwork(made, shared(mode)), measure)
        assert flat._known[made.trunk] == ""
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        assert norm(gradient - expected_gradient) < 1e-10 * norm(expected_gradient)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft's own
@pytest.mark.parametrize("targets", ["all-linear", "q_proj,lm_head"])
def test_adapters(targets):
    c = BATCHES["pairs"]
    adapted = modules.adapted(module("llama"), Peft(enabled=True, rank=2, target_modules=targets), seed=0).double()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.5)
    assert_equal(lambda network: network.logprobs(c), adapted, Forward.tree)
    plain, packed = (AdapterOffNetwork(adapted, shared(mode), frozen=True) for mode in (Forward.padded, Forward.tree))
    torch.testing.assert_close(packed.logprobs(c), plain.logprobs(c), rtol=0, atol=1e-10)
    assert norm(plain.logprobs(c) - PolicyNetwork(adapted, shared(Forward.tree)).logprobs(c).detach()) > 0.1


def test_gradient_checkpointing():
    made = module("llama", gradient_checkpointing=True).train()
    assert_equal(lambda network: network.logprobs(BATCHES["groups"]), made, Forward.tree)


def test_nothing_to_score():
    made, c = module("llama"), BATCHES["pairs"]
    network = PolicyNetwork(made, shared(Forward.tree))
    for none in (c.blank(), c.take([])):
        found = network.logprobs(none)
        assert found.shape == none.ids.shape and found.abs().sum() == 0
        found.sum().backward()
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in made.parameters())


# --- only what is useful is computed ---


def rows_through(made: nn.Module, part: Any, run: Callable[[], Any]) -> list[int]:
    seen: list[int] = []
    hook = part.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[:-1].numel()))
    run()
    hook.remove()
    return seen


def test_every_useful_token_is_encoded_once_and_only_scored_ones_reach_the_head():
    made = module("gemma3")  # its head runs as a module; where it is a matrix product alone, `head_logprobs` gets the rows
    c = BATCHES["groups"]
    network = PolicyNetwork(made, shared(Forward.tree))
    flat.unpadded(made, Forward.tree)
    n, body = int(c.scored.sum()), made.model.layers[0].mlp
    assert rows_through(made, made.lm_head, lambda: network.logprobs(c)) == [n]
    # each prompt once; of each completion all but its last token, whose state predicts nothing
    useful = 1 + 12 + int(c.attended.sum()) - len(c)
    assert rows_through(made, body, lambda: network.logprobs(c)) == [useful]
    network.shared.forward = Forward.auto
    first = len(c.prompt_of[c.scored[:, 0]].unique())  # a prompt's last state predicts the first token of all its completions
    read = first + int(c.scored[:, 1:].sum())
    assert rows_through(made, made.model.layers[-1].mlp.up_proj, lambda: network.logprobs(c)) == [read]
    network.shared.forward = Forward.flat
    repeated = sum([1, 12][p] for p in c.prompt_of.tolist())
    assert rows_through(made, body, lambda: network.logprobs(c)) == [repeated + int(c.attended.sum()) - len(c)]


def test_log_probs_from_states_take_scored_rows_alone(monkeypatch):
    made, c, seen = module("llama"), BATCHES["groups"], []
    network = PolicyNetwork(made, shared(Forward.tree))
    flat.unpadded(made, Forward.tree)
    monkeypatch.setattr(
        networks, "head_logprobs", lambda rows, *rest: seen.append(len(rows)) or head.head_logprobs(rows, *rest)
    )
    assert rows_through(made, made.lm_head, lambda: network.logprobs(c)) == []
    assert seen == [int(c.scored.sum())]


def test_nothing_is_padded_in_attention_calls_of_unlike_pieces():
    """The entries of all masks and slices are at most twice those that are looked at."""
    c = BATCHES["long"]
    made = layout.layout(c, flat.before_scored(c))
    plan = made.plan()
    computed = sum(r.mask.numel() for r in plan.rectangles) + sum((stop - start) ** 2 for start, stop in plan.slices)
    seen = sum(int(r.mask.sum()) for r in plan.rectangles) + sum((stop - start) ** 2 / 2 for start, stop in plan.slices)
    assert plan.slices and plan.rectangles and computed < 2.5 * seen


# --- falling back ---


def test_a_network_that_needs_padding_says_why_once(caplog):
    c = records([4, 4], [(0, 5), (1, 3)])
    for made, why in (
        (module("llama", attention="eager"), "attention=eager"),
        (recurrent(), "layers of"),
        (foreign_head(), "logits differ by"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "alignzoo"):
            found = PolicyNetwork(made, shared(Forward.auto)).logprobs(c)
            PolicyNetwork(made, shared(Forward.auto)).logprobs(c)
        (line,) = [record.message for record in caplog.records]
        assert why in line and "padding" in line
        torch.testing.assert_close(found, PolicyNetwork(made, shared(Forward.padded)).logprobs(c), rtol=0, atol=0)


def recurrent() -> nn.Module:
    made = module("llama")
    made.config.layer_types = ["linear_attention", "full_attention"]
    return made


def foreign_head() -> nn.Module:
    """An architecture that does something of its own to its logits."""
    made = module("llama")
    plain = made.forward

    def forward(*arguments: Any, **keywords: Any) -> Any:
        output = plain(*arguments, **keywords)
        output.logits = output.logits.sin() * 3
        return output

    made.forward = forward
    return made


def test_sampling_and_padded_forwards_are_untouched_by_the_attention_that_knows_layouts():
    made, c = module("llama"), BATCHES["pairs"]
    before = PolicyNetwork(made, shared(Forward.padded)).logprobs(c)
    PolicyNetwork(made, shared(Forward.tree)).logprobs(c)
    assert torch.equal(PolicyNetwork(made, shared(Forward.padded)).logprobs(c), before)
