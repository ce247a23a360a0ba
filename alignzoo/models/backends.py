"""Which loop samples from a network: three that draw the same tokens, behind one signature."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.models import cascade, flat, forward, generation, transformers_loop
from alignzoo.settings import Decoding, Forward, Sampling, UserError

logger = logging.getLogger("alignzoo")
Loop = Callable[..., Completions]  # the signature of `generation.generate`
_known: WeakKeyDictionary[nn.Module, Decoding] = WeakKeyDictionary()  # what samples where the cascade can't


def loop(module: Any, decoding: Decoding) -> Loop:
    """The loop for this setting, or another one that the network needs; a warning says so, once.

    Raises UserError if `transformers` is asked for and can't.
    """
    if decoding is Decoding.transformers:
        if not transformers_loop.able(module):
            raise UserError(
                f"generation.decoding=transformers can't sample from {_name(module)}, which has no `generate` of theirs: "
                "take auto, plain or cascade"
            )
        return transformers_loop.generate
    if cascade.able(module, decoding):
        return cascade.generate
    if decoding is not Decoding.plain and transformers_loop.able(module):
        if module not in _known:
            _known[module] = _fallback(module)
        decoding = _known[module]
    return transformers_loop.generate if decoding is Decoding.transformers else generation.generate


def _fallback(module: Any) -> Decoding:
    """The plain loop, or that of transformers where it alone works. Says which."""
    plainly = _differs(module, generation.generate)
    if plainly is None:
        if not flat.unpadded(module, Forward.auto):  # else the cascade has said what is wrong with it
            logger.warning("%s is sampled from by the plain loop, which is slower: it is run with padding", _name(module))
        return Decoding.plain
    theirs = _differs(module, transformers_loop.generate)
    if theirs is None:
        logger.warning(
            "%s is sampled from by transformers' generate, which is slower: the plain loop doesn't know it, %s",
            _name(module), plainly,
        )  # fmt: skip
        return Decoding.transformers
    logger.warning(
        "%s is sampled from by the plain loop, though %s; by transformers' generate, %s", _name(module), plainly, theirs
    )
    return Decoding.plain


@torch.no_grad()
def _differs(module: Any, sample: Loop) -> str | None:
    """What goes wrong when a few tokens are drawn by this loop, or None where their log-probs are those of a forward."""
    prompts = flat._sample(module).prompts
    uniforms = torch.linspace(0.1, 0.9, 24, dtype=torch.float64, device=prompts.ids.device).view(6, 4)
    with flat.trying(module):
        try:
            drawn = sample(module, prompts, Sampling(samples=3, max_new_tokens=4), uniforms, set(), _exact)
        except Exception as error:  # whatever a foreign architecture raises, another loop may work
            return flat._raised(error)
        expected = _exact(forward.logits(module, drawn)[drawn.scored]).log_softmax(1)
    expected = expected.gather(1, drawn.ids[drawn.scored][:, None])[:, 0]
    assert drawn.logprobs is not None
    distance = (drawn.logprobs[drawn.scored] - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return None if distance <= flat._tolerance(module) else f"its log-probs differ by {distance:.1e} from those of a forward"


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _name(module: Any) -> str:
    return type(flat._inner(module)).__name__
