"""The plain padded forward: from a record to the logits or hidden states at its completions' tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions, Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHE_NAMES = ("cache", "past_key_values")  # of keys and values, with transformers since 5.24 and before, in and out


def logits(module: nn.Module, c: Completions) -> Tensor:
    """(B, T, V): entry t holds the logits of completion token t given the prompt and the tokens before it."""
    rows, c = len(c), some(c)
    width = c.ids.shape[1]
    if is_encoder_decoder(module):
        return cast(Tensor, module(**_encoder_decoder_inputs(module, c)).logits)[:rows]
    ids, rest = _causal_inputs(module, c)
    output = module(input_ids=ids, **rest, **accepts(module, logits_to_keep=width + 1))
    return cast(Tensor, output.logits)[:rows, -width - 1 : -1]


def hidden(module: nn.Module, c: Completions) -> Tensor:
    """(B, T + 1, H): last hidden states; entry t is the state before token t, entry T the state after the last."""
    rows, c = len(c), some(c)
    if is_encoder_decoder(module):
        output = module(**_encoder_decoder_inputs(module, c, final=True), output_hidden_states=True)
    else:
        ids, rest = _causal_inputs(module, c)
        output = module(input_ids=ids, **rest, output_hidden_states=True)
    return last_hidden(output)[:rows, -c.ids.shape[1] - 1 :]


def embedded(module: nn.Module, c: Completions) -> tuple[Tensor, Tensor]:
    """The embeddings of a decoder's completions, (B, T, H), as they enter the network, and its states, (B, T + 1, H), as
    `hidden` gives them."""
    (ids, rest), width = _causal_inputs(module, c), c.ids.shape[1]
    table = inner(module).get_input_embeddings()
    prompts, written = table(ids[:, :-width]), table(ids[:, -width:])
    states = last_hidden(module(inputs_embeds=torch.cat([prompts, written], 1), **rest, output_hidden_states=True))
    return written, states[:, -width - 1 :]


def some(c: Completions) -> Completions:
    """`c`, or where it has no records, one of padding: networks can't run on none, and sharded ones must run on every rank."""
    return c if len(c) else Completions(
        prompts=some_prompts(c.prompts), prompt_of=c.prompt_of.new_zeros(1), ids=c.ids.new_zeros(1, c.ids.shape[1]),
        attended=c.attended.new_ones(1, c.ids.shape[1]), scored=c.scored.new_zeros(1, c.ids.shape[1]),
        truncated=c.truncated.new_zeros(1), row=c.row.new_zeros(1),
    )  # fmt: skip


def some_prompts(prompts: Prompts) -> Prompts:
    """`prompts`, or where there are none, one of a single padding token."""
    if len(prompts):
        return prompts
    return Prompts(
        ids=prompts.ids.new_zeros(1, 1), attended=prompts.attended.new_ones(1, 1), row=prompts.row.new_zeros(1),
        columns={name: [None] for name in prompts.columns}, decode=prompts.decode,
    )  # fmt: skip


def exact(x: Tensor) -> Tensor:
    """In float32, or float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()


def inner(module: nn.Module) -> PreTrainedModel:
    """The network of transformers itself, where an adapter is around it."""
    return cast("PreTrainedModel", module.get_base_model() if hasattr(module, "get_base_model") else module)  # type: ignore[operator]


def is_encoder_decoder(module: nn.Module) -> bool:
    return bool(getattr(module.config, "is_encoder_decoder", False))


def positions(attended: Tensor) -> Tensor:
    """(B, L): position ids that count attended tokens only, so that left padding changes nothing."""
    return (attended.long().cumsum(1) - 1).clamp(min=0)


def parameters(module: nn.Module) -> frozenset[str]:
    """Of its forward, by name."""
    return _signature(type(inner(module)).forward)


def accepts(module: nn.Module, **arguments: object) -> dict[str, object]:
    """Those of `arguments` that the module's forward takes (GPT-2 and Llama take position ids, T5 does not)."""
    return {name: value for name, value in arguments.items() if name in parameters(module)}


def cache_name(module: nn.Module) -> str:
    """What the module's forward calls its cache of keys and values, as an argument and in its output."""
    return next((name for name in CACHE_NAMES if name in parameters(module)), CACHE_NAMES[-1])


def decoder_start(module: nn.Module) -> int:
    config = inner(module).config
    return int(config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id)


def repeated(prompts: Prompts, prompt_of: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt ids and mask, one row a completion."""
    return prompts.ids[prompt_of], prompts.attended[prompt_of]


def _causal_inputs(module: nn.Module, c: Completions) -> tuple[Tensor, dict[str, object]]:
    """The ids of prompts and completions, one row each, and what else the forward takes."""
    ids, attended = repeated(c.prompts, c.prompt_of)
    attended = torch.cat([attended, c.attended], 1)
    rest = accepts(module, position_ids=positions(attended), use_cache=False)
    return torch.cat([ids, c.ids], 1), {"attention_mask": attended.long(), **rest}


def _encoder_decoder_inputs(module: nn.Module, c: Completions, final: bool = False) -> dict[str, object]:
    ids, attended = repeated(c.prompts, c.prompt_of)
    start = torch.full_like(c.ids[:, :1], decoder_start(module))
    first = torch.ones_like(c.attended[:, :1])
    mask = torch.cat([first, c.attended if final else c.attended[:, :-1]], 1)
    return {
        "input_ids": ids, "attention_mask": attended.long(), "decoder_attention_mask": mask.long(), "use_cache": False,
        "decoder_input_ids": torch.cat([start, c.ids if final else c.ids[:, :-1]], 1),
    }  # fmt: skip


def last_hidden(output: object) -> Tensor:
    """(B, L, H), of an output of a trunk, or of a whole network asked for `output_hidden_states`."""
    last: Tensor | None = getattr(output, "last_hidden_state", None)
    if last is not None:
        return last
    states: tuple[Tensor, ...] | None = getattr(output, "decoder_hidden_states", None) or getattr(output, "hidden_states", None)
    assert states, "asked for by output_hidden_states"
    return states[-1]


@lru_cache
def _signature(method: Callable[..., object]) -> frozenset[str]:
    return frozenset(inspect.signature(method).parameters)
