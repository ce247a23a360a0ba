"""What a reference promises: what it offers, of the completion's own tokens, and no gradient."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.contracts import Kind
from alignzoo.engine.checks import METHODS
from alignzoo.functional import selective_log_softmax
from alignzoo.settings import Peft
from alignzoo.testing import reshape
from alignzoo.testing.part import Part
from alignzoo.testing.placement import Yardstick
from alignzoo.testing.subject import Subject, expect


def offers(part: Part) -> None:
    """`offers` names what references can offer, and a run with it can be built."""
    known = METHODS[Kind.POLICY]
    expect(part.made.offers <= known, f"offers among {sorted(known)}", f"{sorted(part.made.offers)}", "a misspelt offer")
    if part.made.offers:
        expect(_reference(part) is not None, "a network from `build`", "None", "`offers` promises something")


def logprobs(part: Part) -> None:
    """Log-probs are finite, at most 0, and 0 where nothing is scored."""
    if "logprobs" not in part.made.offers:
        return
    c = _records(part)
    found = _reference(part).logprobs(c)
    expect(found.shape == c.ids.shape, f"shape {tuple(c.ids.shape)}", f"{tuple(found.shape)}", "sums instead of tokens")
    expect(bool(found.isfinite().all()) and bool((found <= 1e-6).all()), "finite log-probs below 0", "others", "logits")
    expect(not bool(found[~c.scored].any()), "0 where nothing is scored", "others", "`c.scored` is not used")


def padding(part: Part) -> None:
    """More padding changes no log-prob."""
    if "logprobs" not in part.made.offers:
        return
    c, reference = _records(part), _reference(part)
    plain, padded = c.sum(reference.logprobs(c)), reshape.padded(c)
    off = (padded.sum(reference.logprobs(padded)) - plain).abs().max().item()
    expect(off <= 1e-5, "the same log-probs when padding is added", f"a change of {off:.1e}", "a mask is missing")


def tokens(part: Part) -> None:
    """`tokens` gives the distributions that `logprobs` is read from."""
    if not {"tokens", "logprobs"} <= part.made.offers:
        return
    c, reference = _records(part), _reference(part)
    off = (reference.tokens(c, selective_log_softmax, c.ids) - reference.logprobs(c)).abs().max().item()
    expect(
        off <= 1e-5, "the log-probs of `tokens` in `logprobs`", f"a difference of {off:.1e}", "two networks, or tokens shifted"
    )


def frozen(part: Part) -> None:
    """No gradient flows into or through it."""
    if "logprobs" not in part.made.offers:
        return
    with torch.enable_grad():
        found = _reference(part).logprobs(_records(part))
    expect(
        not found.requires_grad,
        "log-probs without gradient",
        "a gradient",
        "torch.no_grad is missing, or the module is not frozen",
    )


def _lab(part: Part) -> Any:
    if "lab" not in vars(part):
        adapted = type(part.made).__name__ == "AdapterOff" or getattr(part.made, "needs_adapter", False)
        lora = Peft(enabled=True, rank=2) if adapted else Peft()
        subject = Subject("dpo", _Alone() if not part.made.offers else Yardstick(), part.folder)
        part.lab = subject.build(still=True, reference=part.fresh(), peft=lora)
    return part.lab


class _Alone(Yardstick):
    """An algorithm that wants no reference."""

    def roles(self) -> Any:
        return {"policy": super().roles()["policy"]}


def _reference(part: Part) -> Any:
    return _lab(part).trainer.views[""].networks.get("reference")


def _records(part: Part) -> Any:
    return _lab(part).records.both


CHECKS = (offers, logprobs, padding, tokens, frozen)
