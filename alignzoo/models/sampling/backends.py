"""Which loop samples from a network, behind one signature: four that draw the same tokens, and a vLLM server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from alignzoo.batch import Completions
from alignzoo.errors import UserError
from alignzoo.models.forward import flat
from alignzoo.models.sampling import cascade, generation, transformers_loop, vllm_loop
from alignzoo.models.sampling.trial import differs
from alignzoo.settings import Decoding, Forward

logger = logging.getLogger("alignzoo")
Loop = Callable[..., Completions]  # the signature of `generation.generate`
_known: WeakKeyDictionary[nn.Module, Decoding] = WeakKeyDictionary()  # what samples where the cascade can't


def loop(module: Any, decoding: Decoding) -> Loop:
    """The loop for this setting, or another one that the network needs; a warning says so, once.

    Raises UserError if `transformers`, `continuous` or `vllm` is asked for and can't.
    """
    if decoding is Decoding.vllm:
        if not vllm_loop.able(module):
            raise UserError(
                f"generation.decoding=vllm can't sample from {_name(module)}, which is no decoder of transformers': take auto"
            )
        return vllm_loop.generate
    if decoding in (Decoding.transformers, Decoding.continuous):
        if not transformers_loop.able(module):
            raise UserError(
                f"generation.decoding={decoding.value} can't sample from {_name(module)}, which has no `generate` of theirs: "
                "take auto, plain or cascade"
            )
        return transformers_loop.generate if decoding is Decoding.transformers else _continuous
    if cascade.able(module, decoding):
        return cascade.generate
    if decoding is not Decoding.plain and transformers_loop.able(module):
        if module not in _known:
            _known[module] = _fallback(module)
        decoding = _known[module]
    return transformers_loop.generate if decoding is Decoding.transformers else generation.generate


def _continuous(*arguments: Any) -> Completions:
    try:
        from alignzoo.models.sampling import continuous_loop  # its imports take a second
    except ImportError as error:
        raise UserError(f"generation.decoding=continuous needs transformers 5.23 or newer: {error}") from error
    return continuous_loop.generate(*arguments)


def _fallback(module: Any) -> Decoding:
    """The plain loop, or that of transformers where it alone works. Says which."""
    plainly = differs(module, generation.generate)
    if plainly is None:
        if not flat.unpadded(module, Forward.auto):  # else the cascade has said what is wrong with it
            logger.warning("%s is sampled from by the plain loop, which is slower: it is run with padding", _name(module))
        return Decoding.plain
    theirs = differs(module, transformers_loop.generate)
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


def _name(module: Any) -> str:
    return type(flat._inner(module)).__name__
