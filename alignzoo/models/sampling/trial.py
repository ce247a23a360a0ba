"""Does a loop that samples know a network? It is tried on a few tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.models.forward import flat, padded
from alignzoo.settings import Sampling


@torch.no_grad()
def differs(module: Any, sample: Callable[..., Completions]) -> str | None:
    """What goes wrong when a few tokens are drawn by this loop (the signature of `generation.generate`), or None where their
    log-probs are those of a forward."""
    prompts = flat._sample(module).prompts
    uniforms = torch.linspace(0.1, 0.9, 24, dtype=torch.float64, device=prompts.ids.device).view(6, 4)
    with flat.trying(module):
        try:
            drawn = sample(module, prompts, Sampling(samples=3, max_new_tokens=4), uniforms, set(), _exact)
        except Exception as error:  # whatever a foreign architecture raises, another loop may work
            return flat._raised(error)
        expected = _exact(padded.logits(module, drawn)[drawn.scored]).log_softmax(1)
    expected = expected.gather(1, drawn.ids[drawn.scored][:, None])[:, 0]
    assert drawn.logprobs is not None
    distance = (drawn.logprobs[drawn.scored] - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return None if distance <= flat._tolerance(module) else f"its log-probs differ by {distance:.1e} from those of a forward"


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
