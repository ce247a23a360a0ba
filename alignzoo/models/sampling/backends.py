"""What samples from a network where nobody says: the fastest loop of ours that draws from what the network computes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from alignzoo.batch import Completions
from alignzoo.contracts import DecodingRequest, Sampler
from alignzoo.models.forward import flat, padded, trial
from alignzoo.models.sampling import cascade, generation, transformers_loop, vllm_loop
from alignzoo.models.sampling.generation import Loop
from alignzoo.settings import Forward, Sampling

logger = logging.getLogger("alignzoo")
_fastest: WeakKeyDictionary[nn.Module, Loop] = WeakKeyDictionary()  # that each network can be sampled from by


@dataclass(kw_only=True)
class Fastest(Sampler):
    """A prompt's cache for all its samples, rows that have ended dropped; for a network that can't: plain, or transformers."""

    knows_beside: ClassVar[bool] = True

    def generate(self, request: DecodingRequest) -> Completions:
        return fastest(request.module)(request)


def ours() -> dict[str, Sampler]:
    """The samplers that come with alignzoo, by name."""
    return {
        "auto": Fastest(), "cascade": Fastest(), "plain": generation.Plain(),
        "transformers": transformers_loop.Transformers(), "vllm": vllm_loop.VLLM(),
    }  # fmt: skip


def fastest(module: nn.Module) -> Loop:
    """The loop, tried once for each network; a warning says so where it isn't the cascade."""
    if module not in _fastest:
        _fastest[module] = _tried(module)
    return _fastest[module]


def _tried(module: nn.Module) -> Loop:
    unpadded = flat.unpadded(module, Forward.auto)
    by_cascade = _differs(module, cascade.generate) if unpadded else "it is run with padding"
    if by_cascade is None:
        return cascade.generate
    name, by_plain = type(padded.inner(module)).__name__, None
    if transformers_loop.able(module):
        by_plain = _differs(module, generation.generate)
    if by_plain is None:
        logger.warning("%s is sampled from by the plain loop, which is slower: %s", name, by_cascade)
        return generation.generate
    by_transformers = _differs(module, transformers_loop.generate)
    if by_transformers is None:
        logger.warning(
            "%s is sampled from by transformers' generate, which is slower: the plain loop doesn't know it, %s", name, by_plain
        )
        return transformers_loop.generate
    logger.warning(
        "%s is sampled from by the plain loop, though %s; by transformers' generate, %s", name, by_plain, by_transformers
    )
    return generation.generate


@torch.no_grad()
def _differs(module: nn.Module, sample: Loop) -> str | None:
    """What goes wrong when a few tokens are drawn by this loop, or None where their log-probs are those of a
    forward."""
    prompts = trial.records(module).prompts
    uniforms = torch.linspace(0.1, 0.9, 24, dtype=torch.float64, device=prompts.ids.device).view(6, 4)
    sampling = Sampling(samples=3, max_new_tokens=4)
    with trial.trying(module):
        try:
            drawn = sample(DecodingRequest(module, prompts, sampling, uniforms, set(), padded.exact))
        except Exception as error:  # whatever a foreign architecture raises, another loop may work
            return trial.failure(error)
        expected = padded.exact(padded.logits(module, drawn)[drawn.scored]).log_softmax(1)
    expected = expected.gather(1, drawn.ids[drawn.scored][:, None])[:, 0]
    assert drawn.logprobs is not None
    off = trial.distance(module, drawn.logprobs[drawn.scored], expected)
    return f"its log-probs differ by {off:.1e} from those of a forward" if off else None
