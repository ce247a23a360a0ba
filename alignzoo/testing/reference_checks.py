"""What a reference promises: what it offers, of the completion's own tokens, and no gradient."""

from __future__ import annotations

from functools import lru_cache

import torch

from alignzoo.batch import Completions, Pairs
from alignzoo.contracts import Kind, Policy, Reference
from alignzoo.engine.checks import METHODS
from alignzoo.functional import selective_log_softmax
from alignzoo.settings import Peft
from alignzoo.testing import reshape, toys
from alignzoo.testing.expect import expect
from alignzoo.testing.lab import Lab
from alignzoo.testing.subject import Part, Subject


def offers(part: Part[Reference]) -> None:
    """`offers` names what references can offer, and a run with it can be built."""
    methods, offered = METHODS[Kind.POLICY], part.instance.offers
    expect(offered <= methods, f"offers among {sorted(methods)}", f"{sorted(offered)}", "a misspelt offer")
    if offered:
        network = _lab(part).trainer.views[""].networks.get("reference")
        expect(network is not None, "a network from `build`", "None", "`offers` promises something")


def logprobs(part: Part[Reference]) -> None:
    """Log-probs are finite, at most 0, and 0 where nothing is scored."""
    if "logprobs" not in part.instance.offers:
        return
    reference, c = _asked(part)
    values = reference.logprobs(c)
    expect(values.shape == c.ids.shape, f"shape {tuple(c.ids.shape)}", f"{tuple(values.shape)}", "sums instead of tokens")
    right = values.isfinite().all() and (values <= 1e-6).all()
    expect(right, "finite log-probs below 0", "others", "logits")
    expect(not values[~c.scored].any(), "0 where nothing is scored", "others", "`c.scored` is not used")


def padding(part: Part[Reference]) -> None:
    """More padding changes no log-prob."""
    if "logprobs" not in part.instance.offers:
        return
    reference, c = _asked(part)
    plain, padded = c.sum(reference.logprobs(c)), reshape.padded(c)
    off = (padded.sum(reference.logprobs(padded)) - plain).abs().max().item()
    expect(off <= 1e-5, "the same log-probs when padding is added", f"a change of {off:.1e}", "a mask is missing")


def tokens(part: Part[Reference]) -> None:
    """`tokens` gives the distributions that `logprobs` is read from."""
    if not {"tokens", "logprobs"} <= part.instance.offers:
        return
    reference, c = _asked(part)
    off = (reference.tokens(c, selective_log_softmax, c.ids) - reference.logprobs(c)).abs().max().item()
    cause = "two networks, or tokens shifted"
    expect(off <= 1e-5, "the log-probs of `tokens` in `logprobs`", f"a difference of {off:.1e}", cause)


def frozen(part: Part[Reference]) -> None:
    """No gradient flows into or through it."""
    if "logprobs" not in part.instance.offers:
        return
    reference, c = _asked(part)
    with torch.enable_grad():
        values = reference.logprobs(c)
    cause = "torch.no_grad is missing, or the module is not frozen"
    expect(not values.requires_grad, "log-probs without gradient", "a gradient", cause)


@lru_cache(maxsize=1)
def _lab(part: Part[Reference]) -> Lab:
    adapted = type(part.instance).__name__ == "AdapterOff" or part.instance.needs_adapter
    peft = Peft(enabled=True, rank=2) if adapted else Peft()
    return Subject("dpo", toys.ToyDPO(), part.folder).build(still=True, reference=part.fresh(), peft=peft)


def _asked(part: Part[Reference]) -> tuple[Policy, Completions]:
    """The network, and completions to ask it of."""
    lab = _lab(part)
    assert isinstance(lab.records, Pairs)
    return lab.trainer.views[""].reference, lab.records.both


CHECKS = (offers, logprobs, padding, tokens, frozen)
