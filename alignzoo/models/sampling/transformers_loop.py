"""Sampling by the `generate` of transformers, for networks whose cache is known to nobody else. It runs the network; the tokens
are chosen as in `generation.generate`, and are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.models.forward import flat, padded
from alignzoo.models.sampling.generation import Drawing, Finished
from alignzoo.settings import Sampling


@torch.no_grad()
def generate(
    module: Any,
    prompts: Prompts,
    sampling: Sampling,
    uniforms: Tensor,
    ends: Collection[int],
    shape: Callable[[Tensor], Tensor],
    adjust: Callable[[Tensor], Tensor] | None = None,
    finished: Finished | None = None,
) -> Completions:
    """What `generation.generate` gives for the same uniforms. A prompt is read once for each of its samples."""
    from transformers import GenerationConfig

    network = flat._inner(module)
    drawing = Drawing(prompts, sampling, uniforms, ends, shape, adjust, finished)
    ids, attended = padded.repeated(prompts, drawing.prompt_of)
    start = {"decoder_start_token_id": padded.decoder_start(module)} if padded.is_encoder_decoder(module) else {}
    settings = GenerationConfig(max_new_tokens=sampling.max_new_tokens, do_sample=False, num_beams=1, **start)

    def only_the_drawn(_: Tensor, scores: Tensor) -> Tensor:
        """Greedy decoding then takes it."""
        return torch.full_like(scores, -torch.inf).scatter(1, drawing.draw(last())[:, None], 0.0)

    def over(written: Tensor, _: Any, **options: Any) -> Tensor:
        """For all rows together: one that has ended is left out of the record, not of the network's input."""
        return torch.full((len(written),), drawing.over, device=written.device)

    with _without_settings_of_its_own(network), _last_logits(network) as last:
        network.generate(
            input_ids=ids, attention_mask=attended.long(), generation_config=settings, synced_gpus=False,
            logits_processor=[only_the_drawn], stopping_criteria=[over],
        )  # fmt: skip
    return drawing.completions()


def able(module: Any) -> bool:
    """Whether this is a network that transformers can sample from."""
    from transformers import GenerationMixin

    return isinstance(flat._inner(module), GenerationMixin)


@contextmanager
def _last_logits(network: Any) -> Iterator[Callable[[], Tensor]]:
    """The logits (B, V) that the network gave last, in its own precision: `generate` makes them float32."""
    seen: list[Tensor] = []

    def note(part: Any, inputs: Any, output: Any) -> None:
        seen[:] = [output.logits[:, -1]]

    hook = network.register_forward_hook(note)
    try:
        yield lambda: seen[0]
    finally:
        hook.remove()


@contextmanager
def _without_settings_of_its_own(network: Any) -> Iterator[None]:
    """Penalties, ends and caches that came with the weights are no part of the policy."""
    from transformers import GenerationConfig

    before, network.generation_config = network.generation_config, GenerationConfig()
    try:
        yield
    finally:
        network.generation_config = before
