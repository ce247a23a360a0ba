"""What a sampler promises: the completions asked for, whole, and likely under the network that it samples from."""

from __future__ import annotations

from dataclasses import replace

import torch

from alignzoo.batch import Completions
from alignzoo.common.noise import Noise
from alignzoo.contracts import Sampler
from alignzoo.models import modules, tokenizers
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.settings import Model, Sampling
from alignzoo.testing import toys
from alignzoo.testing.expect import expect
from alignzoo.testing.subject import Part

SUPPORT = torch.isin(torch.arange(259), torch.arange(2, 10))
ASKED = Sampling(samples=3, max_new_tokens=6)


def records(part: Part[Sampler]) -> None:
    """As many completions as asked for, a prompt's together, each to its end or to the length limit, of tokens allowed."""
    if part.instance.by_server:
        return
    c = _drawn(part, ASKED)
    rows, written = torch.arange(4).repeat_interleave(ASKED.samples), c.ids[c.attended]
    expect(torch.equal(c.prompt_of, rows), f"prompt_of {rows.tolist()}", f"{c.prompt_of.tolist()}", "rows in another order")
    expect(bool(SUPPORT[written].all()), "tokens of the support", "others", "`request.shape` is not used")
    whole = [row[-1] == toys.EOS or (len(row) == ASKED.max_new_tokens) for row in _tokens(c)]
    expect(all(whole), "completions that end, or reach the limit", "shorter ones", "a limit of the sampler's own")
    ends = torch.tensor([row[-1] != toys.EOS for row in _tokens(c)])
    expect(torch.equal(c.truncated, ends), f"truncated {ends.tolist()}", f"{c.truncated.tolist()}", "an end is no truncation")


def logprobs(part: Part[Sampler]) -> None:
    """Log-probs, where it gives some, are those of a forward; greedy tokens are the likeliest."""
    if part.instance.by_server:
        return
    c, network = _drawn(part, ASKED), _network(part)
    assert c.logprobs is not None
    off = (c.logprobs - network.logprobs(replace(c, stamp=None))).abs().max().item()
    expect(off <= 1e-4, "the log-probs of a forward", f"a difference of {off:.1e}", "other weights, or another temperature")
    greedy = [_tokens(_drawn(sampler, ASKED.greedy())) for sampler in (part, None)]
    expect(greedy[0] == greedy[1], f"{greedy[1]}", f"{greedy[0]}", "temperature 0 is not greedy, or the weights are others")


def _network(part: Part[Sampler] | None) -> PolicyNetwork:
    model = Model(config=dict(toys.LLAMA))
    module = modules.policy(model, modules.config(model, tokenizers.byte_level()), 0)
    shared = Shared(Noise(0), {toys.EOS}, support=SUPPORT)
    shared.samplers = {**shared.samplers, **({"auto": part.fresh()} if part else {})}
    return PolicyNetwork(module, shared)


@torch.no_grad()
def _drawn(part: Part[Sampler] | None, sampling: Sampling) -> Completions:
    network = _network(part)
    network.shared.samplers["auto"].connect(sampling)
    with network.shared.noise.during("rollout", 0):
        return network.generate(toys.completions(range(4)).prompts, sampling)


def _tokens(c: Completions) -> list[list[int]]:
    return [ids[there].tolist() for ids, there in zip(c.ids, c.attended, strict=True)]


CHECKS = (records, logprobs)
