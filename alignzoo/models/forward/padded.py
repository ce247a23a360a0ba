"""The plain padded forward: from a record to the logits or hidden states at its completions' tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts

CACHE_NAMES = ("cache", "past_key_values")  # of keys and values, with transformers since 5.24 and before, in and out


def logits(module: Any, c: Completions) -> Tensor:
    """(B, T, V): entry t holds the logits of completion token t given the prompt and the tokens before it."""
    rows, c = len(c), some(c)
    width = c.ids.shape[1]
    if is_encoder_decoder(module):
        return module(**_encoder_decoder_inputs(module, c)).logits[:rows]
    inputs = _causal_inputs(module, c)
    if "logits_to_keep" in _parameters(module):
        inputs["logits_to_keep"] = width + 1
    return module(**inputs).logits[:rows, -width - 1 : -1]


def hidden(module: Any, c: Completions) -> Tensor:
    """(B, T + 1, H): last hidden states; entry t is the state before token t, entry T the state after the last."""
    rows, c = len(c), some(c)
    inputs = _encoder_decoder_inputs(module, c, final=True) if is_encoder_decoder(module) else _causal_inputs(module, c)
    states = _last_hidden(module(**inputs, output_hidden_states=True))
    return states[:rows, -c.ids.shape[1] - 1 :]


def embedded(module: Any, c: Completions) -> tuple[Tensor, Tensor]:
    """The embeddings of a decoder's completions, (B, T, H), as they enter the network, and its states, (B, T + 1, H), as
    `hidden` gives them."""
    inputs, width = _causal_inputs(module, c), c.ids.shape[1]
    table = module.get_input_embeddings()
    prompts, own = (table(ids) for ids in (inputs["input_ids"][:, :-width], inputs.pop("input_ids")[:, -width:]))
    states = _last_hidden(module(inputs_embeds=torch.cat([prompts, own], 1), **inputs, output_hidden_states=True))
    return own, states[:, -width - 1 :]


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


def is_encoder_decoder(module: Any) -> bool:
    return bool(getattr(module.config, "is_encoder_decoder", False))


def positions(attended: Tensor) -> Tensor:
    """(B, L): position ids that count attended tokens only, so that left padding changes nothing."""
    return (attended.long().cumsum(1) - 1).clamp(min=0)


def accepts(module: Any, **arguments: Any) -> dict[str, Any]:
    """Those of `arguments` that the module's forward takes (GPT-2 and Llama take position ids, T5 does not)."""
    return {name: value for name, value in arguments.items() if name in _parameters(module)}


def cache_name(module: Any) -> str:
    """What the module's forward calls its cache of keys and values, as an argument and in its output."""
    return next((name for name in CACHE_NAMES if name in _parameters(module)), CACHE_NAMES[-1])


def decoder_start(module: Any) -> int:
    start = module.config.decoder_start_token_id
    return module.config.pad_token_id if start is None else start


def repeated(prompts: Prompts, prompt_of: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt ids and mask, one row a completion."""
    return prompts.ids[prompt_of], prompts.attended[prompt_of]


def _causal_inputs(module: Any, c: Completions) -> dict[str, Any]:
    ids, attended = repeated(c.prompts, c.prompt_of)
    attended = torch.cat([attended, c.attended], 1)
    inputs = {"input_ids": torch.cat([ids, c.ids], 1), "attention_mask": attended.long()}
    return inputs | accepts(module, position_ids=positions(attended), use_cache=False)


def _encoder_decoder_inputs(module: Any, c: Completions, final: bool = False) -> dict[str, Any]:
    ids, attended = repeated(c.prompts, c.prompt_of)
    start = torch.full_like(c.ids[:, :1], decoder_start(module))
    shifted = torch.cat([start, c.ids if final else c.ids[:, :-1]], 1)
    first = torch.ones_like(c.attended[:, :1])
    mask = torch.cat([first, c.attended if final else c.attended[:, :-1]], 1)
    return {
        "input_ids": ids,
        "attention_mask": attended.long(),
        "decoder_input_ids": shifted,
        "decoder_attention_mask": mask.long(),
        "use_cache": False,
    }


def _last_hidden(output: Any) -> Tensor:
    if getattr(output, "last_hidden_state", None) is not None:
        return output.last_hidden_state
    states = getattr(output, "decoder_hidden_states", None) or output.hidden_states
    return states[-1]


def _parameters(module: Any) -> frozenset[str]:
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    return _signature(type(inner).forward)


@lru_cache
def _signature(method: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(method).parameters)
