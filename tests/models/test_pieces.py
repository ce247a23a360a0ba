"""Attention in pieces: which pairs of a query and a key are computed, and that masks and padding are where they must be."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.models.forward import flat, pieces
from alignzoo.models.forward.layout import layout
from alignzoo.models.networks import PolicyNetwork
from alignzoo.settings import Forward
from tests.models.test_flat import BATCHES, assert_equal, module, norm, records, run, shared


def test_only_what_is_read_is_looked_for_in_the_last_layer() -> None:
    """A prompt of 200 with completions of 60 and 50, whose last tokens nothing asks for."""
    c = records([200], [(0, 60), (0, 50)])
    c.scored.copy_(c.attended)
    made = layout(c, flat.before_scored(c))
    assert pieces.of(made, False, torch.float32).entries == 259**2 + 49**2 + 49 * 200
    assert pieces.of(made, True, torch.float32).entries == 2 * 60**2 + 60 * 199 + 49 * 200, "both padded to 60"
    assert all(call.mask is None for call in pieces.of(made, True, torch.float32).calls)


def test_single_completions_need_no_mask_and_short_groups_one() -> None:
    alone, several = records([7, 30, 8], [(0, 5), (1, 20), (2, 6)]), BATCHES["groups"]
    calls = pieces.of(layout(alone, flat.before_scored(alone)), False, torch.float32).calls
    assert all(call.causal and call.mask is None for call in calls)
    calls = pieces.of(layout(several, flat.before_scored(several)), False, torch.float32).calls
    assert [call.mask is None for call in calls] == [False, False], "groups too unlike for one call"


def brute_force(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    scores = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
def test_against_one_masked_square(batch: str, pruned: bool) -> None:
    """Outputs and gradients, at what is read, with scores so large that a wrongly scaled sum would overflow."""
    c = BATCHES[batch]
    made = layout(c, flat.before_scored(c))
    if not len(made.ids):
        return
    source = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, len(made.ids), 4, generator=source, dtype=torch.float64) * size for size in (9, 9, 1)]
    given = torch.randn(len(made.rows), 2, 4, generator=source, dtype=torch.float64)
    group = torch.cat([torch.full((p + sum(n for _, n in b),), g) for g, (_, p, b) in enumerate(made.groups)])
    same = group[:, None] == group
    branch = (made.branch[None] == 0) | (made.branch[:, None] == made.branch)
    visible = same & branch & (made.positions[None] <= made.positions[:, None])
    found = []
    for attend in (
        lambda q, k, v: brute_force(q, k, v, visible),
        lambda q, k, v: pieces.PiecewiseAttention.apply(q, k, v, pieces.of(made, pruned, torch.float64), None),
    ):
        copies = [x.clone().requires_grad_() for x in inputs]
        out = attend(*copies)[made.rows]
        (out * given).sum().backward()
        found.append((out.detach(), *(x.grad for x in copies)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_where_the_kernel_is_not(family: str, monkeypatch: Any) -> None:
    """Other devices and dropout take masked rectangles."""
    monkeypatch.setattr(pieces, "able", lambda *_: False)
    made = module(family)
    for c in (BATCHES["pairs"], BATCHES["long"]):
        for mode in (Forward.tree, Forward.auto):
            assert_equal(lambda network, c=c: network.logprobs(c), made, mode)


def test_the_kernel_is_for_processors_and_without_dropout() -> None:
    x = torch.zeros(1, 2, 3, 4)
    assert pieces.able(x, x, x, 0.0)
    assert not pieces.able(x, x, x, 0.1)
    assert not pieces.able(x, x, x.double(), 0.0)
    assert not pieces.able(*[x.to("meta")] * 3, 0.0)


def test_two_networks_read_one_layout(monkeypatch: Any) -> None:
    made, other, c, found = module("llama"), module("llama", seed=1), deepcopy(BATCHES["groups"]), []
    monkeypatch.setattr(flat, "layout", lambda *rest: found.append(rest) or layout(*rest))
    policy, reference = (PolicyNetwork(m, shared(Forward.auto)) for m in (made, other))
    flat.unpadded(made, Forward.auto), flat.unpadded(other, Forward.auto)
    found.clear()
    first, second = (run(n, lambda network: network.logprobs(c))[0] for n in (policy, reference))
    assert len(found) == 1 and norm(first - second) > 0.1
    policy.shared.forward = Forward.flat
    policy.logprobs(c)
    assert len(found) == 2, "prompts are no longer shared"
    c.scored[1] = False
    try:
        assert policy.logprobs(c)[1].abs().sum() == 0 and len(found) == 3, "other states are asked for"
    finally:
        c.scored[1] = c.attended[1]
    policy.logprobs(c)
    c.ids[1] += 1
    try:
        expected = PolicyNetwork(made, shared(Forward.padded)).logprobs(c)
        torch.testing.assert_close(policy.logprobs(c), expected, rtol=0, atol=1e-10)  # what was written into them is read
    finally:
        c.ids[1] -= 1
