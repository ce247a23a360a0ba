"""Sampling by the `generate` of transformers, for networks whose cache is known to nobody else. It runs the network; the tokens
are chosen as in `generation.generate`, and are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.contracts import DecodingRequest, Sampler
from alignzoo.errors import UserError
from alignzoo.models.forward import padded
from alignzoo.models.sampling.generation import Drawing

if TYPE_CHECKING:
    from transformers import GenerationMixin, PreTrainedModel


@dataclass(kw_only=True)
class Transformers(Sampler):
    """Their own `generate`: slower, for networks whose cache our loops don't know."""

    knows_beside: ClassVar[bool] = True

    def generate(self, request: DecodingRequest) -> Completions:
        if not able(request.module):
            name = type(padded.inner(request.module)).__name__
            raise UserError(
                f"generation.decoding=transformers can't sample from {name}, which has no `generate` of theirs: "
                "take auto, plain or cascade"
            )
        return generate(request)


@torch.no_grad()
def generate(request: DecodingRequest) -> Completions:
    """What `generation.generate` gives for the same request. A prompt is read once for each of its samples."""
    from transformers import GenerationConfig

    module, network = request.module, padded.inner(request.module)
    drawing = Drawing(request)
    ids, attended = padded.repeated(request.prompts, drawing.prompt_of)
    start = {"decoder_start_token_id": padded.decoder_start(module)} if padded.is_encoder_decoder(module) else {}
    settings = GenerationConfig(max_new_tokens=request.sampling.max_new_tokens, do_sample=False, num_beams=1, **start)

    def only_the_drawn(_: Tensor, scores: Tensor) -> Tensor:
        """Greedy decoding then takes it."""
        return torch.full_like(scores, -torch.inf).scatter(1, drawing.draw(last())[:, None], 0.0)

    def over(written: Tensor, scores: object, **options: object) -> Tensor:
        """For all rows together: one that has ended is left out of the record, not of the network's input."""
        return torch.full((len(written),), drawing.over, device=written.device)

    # penalties, ends and caches that came with the weights are no part of the policy
    before, network.generation_config = network.generation_config, GenerationConfig()
    try:
        with _last_logits(network) as last:
            cast("GenerationMixin", network).generate(
                input_ids=ids, attention_mask=attended.long(), generation_config=settings, synced_gpus=False,
                logits_processor=[only_the_drawn], stopping_criteria=[over],
            )  # fmt: skip
    finally:
        network.generation_config = before
    return drawing.completions()


def able(module: nn.Module) -> bool:
    """Whether this is a network that transformers can sample from."""
    from transformers import GenerationMixin

    return isinstance(padded.inner(module), GenerationMixin)


@contextmanager
def _last_logits(network: PreTrainedModel) -> Iterator[Callable[[], Tensor]]:
    """The logits (B, V) that the network gave last, in its own precision: `generate` makes them float32."""
    last: list[Tensor] = []
    hook = network.register_forward_hook(lambda part, inputs, output: last.__setitem__(slice(None), [output.logits[:, -1]]))
    try:
        yield lambda: last[0]
    finally:
        hook.remove()
