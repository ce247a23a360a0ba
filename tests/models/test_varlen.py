"""Attention over a layout by the kernel of GPUs. There is none here: another computes plainly what that one is documented to
compute, from the same arguments, and torch's own shapes stand for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from alignzoo.models.forward import attention, flat, varlen
from alignzoo.models.forward.layout import Layout, layout, trees
from alignzoo.models.networks import PolicyNetwork
from alignzoo.settings import Forward
from tests.models.test_flat import BATCHES, FAMILIES, PACKED, SIZES, assert_equal, module, norm, records, shared

PLACES = {
    **BATCHES,
    "one-token prompts": records([1, 1, 1], [(0, 40), (0, 1), (0, 3), (1, 2), (2, 1), (2, 1)]),
    "one prompt": records([70], [(0, 9), (0, 1), (0, 30)]),
    "many": records([3, 60, 1, 17, 8], [(p, 1 + (7 * p + 5 * k) % 23) for p in (4, 0, 3, 1, 2) for k in range(p + 1)]),
}


def weights(
    query: Tensor, key: Tensor, cum_seq_q: Tensor, cum_seq_k: Tensor, max_q: int, max_k: int, causal: bool, scale: float | None,
    left: int, right: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Scaled scores (heads, n, m) and which of them are seen (n, m), for arguments that the kernel would take."""
    for starts, rows, longest in ((cum_seq_q, query, max_q), (cum_seq_k, key, max_k)):
        assert starts.dtype == torch.int32 and starts.is_contiguous() and starts[0] == 0 and starts[-1] == len(rows)
        assert type(longest) is int and longest == starts.diff().max() and starts.diff().min() > 0
        assert rows.stride(-1) == 1 and rows.shape[-1] % 8 == 0
    assert len(cum_seq_q) == len(cum_seq_k) and query.shape[1] % key.shape[1] == 0
    assert causal == ((left, right) == (-1, 0)), "as torch.nn.attention.varlen says it"
    seen = torch.zeros(len(query), len(key), dtype=torch.bool)
    ends = zip(*(starts.unfold(0, 2, 1).tolist() for starts in (cum_seq_q, cum_seq_k)), strict=True)
    for (q, q_stop), (k, k_stop) in ends:
        ahead = torch.arange(k_stop - k) - (torch.arange(q_stop - q) + (k_stop - k) - (q_stop - q))[:, None]
        near = torch.ones_like(ahead, dtype=torch.bool)
        near &= (ahead <= right) if right >= 0 else near
        near &= (-ahead <= left) if left >= 0 else near
        seen[q:q_stop, k:k_stop] = near
    spread = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    return torch.einsum("qhd,khd->hqk", query, spread) * (query.shape[-1] ** -0.5 if scale is None else scale), seen


def plain_forward(
    query: Tensor, key: Tensor, value: Tensor, cum_seq_q: Tensor, cum_seq_k: Tensor, max_q: int, max_k: int,
    dropout_p: float, is_causal: bool, return_debug_mask: bool, *, scale: float | None = None, window_size_left: int,
    window_size_right: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    assert dropout_p == 0 and return_debug_mask is False and value.shape == key.shape and value.stride(-1) == 1
    scores, seen = weights(
        query, key, cum_seq_q, cum_seq_k, max_q, max_k, is_causal, scale, window_size_left, window_size_right
    )
    scores = scores.masked_fill(~seen, -torch.inf)
    spread = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), spread), scores.logsumexp(-1), *[query.new_empty(0)] * 3


def plain_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, cum_seq_q: Tensor,
    cum_seq_k: Tensor, max_q: int, max_k: int, dropout_p: float, is_causal: bool, rng_state: Tensor, unused: Tensor, *,
    scale: float | None = None, window_size_left: int, window_size_right: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Algorithm 4 of FlashAttention (Dao et al. 2022): weights from the log-sum-exps given, whatever keys those are over."""
    assert dropout_p == 0 and rng_state.dtype == torch.uint64 and rng_state.shape == (2,) and isinstance(unused, Tensor)
    assert grad_out.shape == out.shape == query.shape and value.shape == key.shape
    assert logsumexp.is_contiguous() and logsumexp.shape == (query.shape[1], len(query)), "read as it lies in memory"
    scores, seen = weights(
        query, key, cum_seq_q, cum_seq_k, max_q, max_k, is_causal, scale, window_size_left, window_size_right
    )
    shares = (scores - logsumexp[..., None]).exp() * seen
    repeats = query.shape[1] // key.shape[1]
    by_share = torch.einsum("qhd,khd->hqk", grad_out, value.repeat_interleave(repeats, 1))
    by_score = shares * (by_share - (grad_out * out).sum(-1).t()[..., None])
    by_score = by_score * (query.shape[-1] ** -0.5 if scale is None else scale)
    by_query = torch.einsum("hqk,khd->qhd", by_score, key.repeat_interleave(repeats, 1))
    by_key, by_value = torch.einsum("hqk,qhd->khd", by_score, query), torch.einsum("hqk,qhd->khd", shares, grad_out)
    return by_query, *(x.unflatten(1, (-1, repeats)).sum(2) for x in (by_key, by_value))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The other kernel in the place of the GPU's; yields the queries of each call of it."""
    seen: list[Tensor] = []
    monkeypatch.setattr(varlen, "able", lambda query, key, value, dropout: not dropout)
    monkeypatch.setattr(varlen, "flash", lambda q, *rest, **named: seen.append(q) or plain_forward(q, *rest, **named))
    monkeypatch.setattr(varlen, "flash_backward", plain_backward)
    attention._right.cache_clear()
    monkeypatch.setattr(attention, "TOLERANCE", 1e-10)
    return seen


def drawn(heads: tuple[int, int], count: int, size: int = 8) -> list[Tensor]:
    """Queries, keys and values (heads, N, d), whose rows lie as a projection leaves them."""
    source = torch.Generator().manual_seed(0)
    shapes = [(count, number, size) for number in (heads[0], heads[1], heads[1])]
    return [torch.randn(shape, generator=source, dtype=torch.float64).mul(3).transpose(0, 1) for shape in shapes]


def by_rectangles(query: Tensor, key: Tensor, value: Tensor, made: Layout, window: int | None = None) -> Tensor:
    keys, values = (attention._spread(x, len(query)) for x in (key, value))
    return attention.tree_attention(query, keys, values, made.plan(window), 0.0, 0.3)


def with_gradients(attend: Callable[..., Tensor], inputs: list[Tensor], rows: Tensor) -> tuple[Tensor, ...]:
    """Outputs at these rows, and the gradients of a fixed combination of them."""
    copies = [x.detach().requires_grad_() for x in inputs]
    out = attend(*copies).index_select(0, rows)
    given = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view(out.shape)
    return out.detach(), *torch.autograd.grad((out * given).sum(), copies)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
@pytest.mark.parametrize("batch", PLACES)
def test_as_by_masked_rectangles(batch: str, heads: tuple[int, int], pruned: bool, kernel: list[Tensor]) -> None:
    """Outputs and gradients at what is read, with scores so large that a wrongly scaled sum would overflow."""
    made = asked(PLACES[batch])
    inputs, calls = drawn(heads, len(made.ids)), varlen.of(made, pruned, None)
    assert calls is not None
    expected = with_gradients(lambda *x: by_rectangles(*x, made), inputs, made.rows)
    found = with_gradients(lambda *x: varlen.attention(*x, calls, 0.3), inputs, made.rows)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10 * max(1.0, float(theirs.abs().max())))
    assert len(kernel) == 2 - (calls.crossing is None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
@pytest.mark.parametrize("batch", ["many", "long", "one-token prompts"])
def test_on_a_gpu(batch: str, heads: tuple[int, int], pruned: bool) -> None:
    """The kernel itself, in bfloat16, against masked rectangles in float64."""
    made = asked(PLACES[batch])
    inputs, calls = [(x / 3).bfloat16() for x in drawn(heads, len(made.ids), 64)], varlen.of(made, pruned, None)
    assert calls is not None
    there = moved(calls, lambda x: x.cuda())
    expected = with_gradients(lambda *x: by_rectangles(*x, made), [x.double() for x in inputs], made.rows)
    on_gpu = [x.cuda() for x in inputs]
    assert varlen.able(*(x[None] for x in on_gpu), 0.0)
    found = with_gradients(lambda *x: varlen.attention(*x, there, 0.3), on_gpu, made.rows.cuda())
    for mine, theirs in zip(found, expected, strict=True):
        assert norm(mine.cpu().double() - theirs) < 0.03 * norm(theirs)


def asked(c: Any) -> Layout:
    return layout(c, flat.before_scored(c))


def test_calls() -> None:
    """Two groups: a prompt of 200 with completions of 60 and 50, one of 5 with 4, whose last tokens nothing asks for."""
    c = records([200, 5], [(0, 60), (0, 50), (1, 4)])
    c.scored.copy_(c.attended)
    calls = varlen.of(asked(c), False, None)
    assert calls is not None and calls.crossing is not None and calls.rows is None
    assert calls.entries == 259**2 + 49**2 + 8**2 + 49 * 200
    assert [starts.tolist() for starts in calls.stretches.starts] == [[0, 259, 308, 316]] * 2
    assert [starts.tolist() for starts in calls.crossing.starts] == [[0, 49], [0, 200]]
    assert torch.equal(calls.queries, torch.arange(259, 308)) and torch.equal(calls.keys, torch.arange(200))
    calls = varlen.of(asked(c), True, None)
    assert calls is not None and calls.crossing is not None and calls.rows is not None
    assert calls.entries == 60 * 259 + 49**2 + 4 * 8 + 49 * 200, "from the last token of each prompt on"
    assert calls.rows.tolist() == [*range(199, 308), *range(312, 316)]
    assert torch.equal(calls.queries, torch.arange(60, 109)), "among the queries that are left"


@pytest.mark.parametrize("batch", PLACES)
def test_a_first_read_place_is_in_its_trunk(batch: str) -> None:
    made = asked(PLACES[batch])
    for tree in trees(made, made.rows):
        assert tree.trunk[0] <= tree.first < tree.trunk[1] <= tree.stop and tree.first in made.rows


def test_calls_are_found_once_for_all_layers() -> None:
    made = asked(BATCHES["groups"])
    assert varlen.of(made, True, None) is varlen.of(made, True, None) is not varlen.of(made, False, None)


@pytest.mark.parametrize("pruned", [False, True])
def test_windows(pruned: bool, kernel: list[Tensor]) -> None:
    """They are the kernel's own, but for prompts that several branches look back to."""
    assert varlen.of(asked(PLACES["many"]), pruned, 7) is None
    alone = asked(records([30, 4, 9], [(0, 12), (1, 3), (2, 25)]))
    calls, inputs = varlen.of(alone, pruned, 7), drawn((4, 2), len(alone.ids))
    assert calls is not None
    expected = with_gradients(lambda *x: by_rectangles(*x, alone, 7), inputs, alone.rows)
    found = with_gradients(lambda *x: varlen.attention(*x, calls, 0.3), inputs, alone.rows)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


WIDER = {**SIZES, "hidden_size": 32}  # heads of eight
NETWORKS = {
    "llama": {**FAMILIES["llama"], **WIDER},
    "qwen2": {**FAMILIES["qwen2"], **WIDER},
    "gemma3": FAMILIES["gemma3"],
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", NETWORKS)
def test_networks(family: str, checkpointing: bool, kernel: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probs and gradients as with padding."""
    monkeypatch.setitem(FAMILIES, family, NETWORKS[family])
    made = module(family, gradient_checkpointing=checkpointing)
    made.train(checkpointing)
    for batch in ("groups", "long", "empty and unused"):
        for mode in PACKED:
            kernel.clear()
            assert_equal(lambda network, c=PLACES[batch]: network.logprobs(c), made, mode)
            assert kernel, "a kernel that nobody calls is right"


def test_a_pruned_layer_has_fewer_queries(kernel: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "llama", NETWORKS["llama"])
    made, c = module("llama"), PLACES["long"]
    network = PolicyNetwork(made, shared(Forward.auto))
    flat.unpadded(made, Forward.auto)
    kernel.clear()
    network.logprobs(c)
    first, _, last, _ = (len(query) for query in kernel)
    assert last < first == len(asked(c).ids), "two layers of two calls"


@pytest.mark.parametrize("wrong", ["outputs", "gradients", "pruned", "fails"])
def test_a_kernel_that_is_wrong_is_not_used(wrong, kernel: list[Tensor], monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It is tried once, and says so once; what is computed then is right."""

    def fail(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("no kernel image is available\nfor execution")

    def shifted(q: Tensor, k: Tensor, *rest: Any, **named: Any) -> Any:
        """As a kernel whose causal mask starts at the first key would."""
        out = plain_forward(q, k, *rest, **named)
        return (out[0] + (len(q) != len(k) and named["window_size_right"] == 0), *out[1:])

    forward, backward = {
        "outputs": (lambda *a, **k: tuple(x * 1.01 for x in plain_forward(*a, **k)), plain_backward),
        "gradients": (plain_forward, lambda *a, **k: tuple(x * 1.01 for x in plain_backward(*a, **k))),
        "pruned": (shifted, plain_backward),
        "fails": (fail, plain_backward),
    }[wrong]
    monkeypatch.setattr(varlen, "flash", forward)
    monkeypatch.setattr(varlen, "flash_backward", backward)
    monkeypatch.setitem(FAMILIES, "llama", NETWORKS["llama"])
    made, before = module("llama"), torch.get_rng_state()
    with caplog.at_level("WARNING", "alignzoo"):
        assert_equal(lambda network: network.logprobs(PLACES["groups"]), made, Forward.auto)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("attention on cpu is computed with masks, which is slower: the kernel for sequences ")
    assert ("fails: no kernel image is available" if wrong == "fails" else "is off by ") in line
    assert torch.equal(before, torch.get_rng_state())


# --- what torch says of the kernel itself ---


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_takes_these_arguments(dtype: torch.dtype, pruned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its schema accepts them, and what comes back has the shapes expected; nothing is computed."""

    def merge(out: Tensor, total: Tensor, found: Tensor, logs: Tensor) -> None:  # which copies: not without CUDA, even so
        assert out.shape == found.shape == (*total.shape, 64) and total.shape == logs.shape and total.dtype == logs.dtype

    monkeypatch.setattr(varlen, "merge", merge)
    made = asked(PLACES["many"])
    here = varlen.of(made, pruned, None)
    assert here is not None
    with FakeTensorMode(), torch.no_grad():
        calls = moved(here, lambda x: torch.empty(x.shape, dtype=x.dtype, device="cuda"))
        count = len(made.ids) if here.rows is None else len(here.rows)
        make = lambda *shape: torch.empty(*shape, dtype=dtype, device="cuda")  # noqa: E731
        query, key, value = make(count, 6, 64), make(len(made.ids), 2, 64), make(len(made.ids), 2, 64)
        out, total = varlen.computed(query, key, value, calls, None)
        assert out.shape == query.shape and out.dtype == dtype
        assert total.shape == (6, count) and total.dtype == torch.float32
        found = varlen.gradients(out, query, key, value, out, total, calls, 0.1)
        assert [x.shape for x in found] == [x.shape for x in (query, key, value)] and {x.device.type for x in found} == {"cuda"}


def moved(calls: varlen.Calls, move: Callable[[Tensor], Tensor]) -> varlen.Calls:
    def sequences(found: varlen.Sequences) -> varlen.Sequences:
        return replace(found, starts=tuple(map(move, found.starts)))

    return replace(
        calls, rows=None if calls.rows is None else move(calls.rows), stretches=sequences(calls.stretches),
        crossing=sequences(calls.crossing) if calls.crossing else None, queries=move(calls.queries), keys=move(calls.keys),
    )  # fmt: skip


def test_which_tensors_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says for causal attention of theirs, without dropout, for heads of a multiple of eight, on CUDA alone."""
    said: list[Any] = []

    def takes(heads: int, key_heads: int, size: int, dropout: float = 0.0, device: str = "cuda") -> bool:
        query, key = (torch.empty(1, n, 5, size, dtype=torch.bfloat16, device=device) for n in (heads, key_heads))
        return varlen.able(query, key, key, dropout)

    with FakeTensorMode():
        assert torch.cuda.is_available() or not takes(6, 2, 64), "a torch without CUDA says no, and doesn't fail"
        monkeypatch.setattr(varlen, "can_use_flash_attention", lambda asked: said.append(asked) or True)
        assert takes(6, 2, 64) and takes(4, 4, 128)
        assert [(asked.enable_gqa, asked.is_causal, asked.dropout) for asked in said] == [(True, True, 0), (False, True, 0)]
        assert not takes(6, 2, 20) and not takes(6, 2, 64, dropout=0.1) and not takes(6, 2, 64, device="cpu")
        monkeypatch.setattr(varlen, "can_use_flash_attention", lambda asked: False)
        assert not takes(6, 2, 64)
        monkeypatch.setattr(varlen, "can_use_flash_attention", lambda asked: True)
        for owner, name, value in ((torch.version, "hip", "6.0"), (varlen, "DOCUMENTED", False)):
            with monkeypatch.context() as changed:
                changed.setattr(owner, name, value)
                assert not takes(6, 2, 64)


def test_autocast() -> None:
    """Rotary embeddings leave queries and keys in float32, values come in bfloat16."""
    mixed = torch.ones(2), torch.ones(2), torch.ones(2).bfloat16()
    assert varlen.lowered(*mixed) == mixed
    with torch.autocast("cpu", torch.bfloat16):
        assert [x.dtype for x in varlen.lowered(*mixed)] == [torch.bfloat16] * 3
