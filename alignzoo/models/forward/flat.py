"""Forwards without padding: the states asked for, and no others, through any decoder of `transformers`.

Whether a network can is found out by trying (`refusal`): a few made-up tokens must give the same logits as with padding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.models.forward import attention, padded, trial
from alignzoo.models.forward.layout import Layout, layout
from alignzoo.models.forward.padded import inner
from alignzoo.models.forward.prune import pruned
from alignzoo.settings import Forward

logger = logging.getLogger("alignzoo")
LAYERS = {"full_attention", "sliding_attention"}
_known: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # why a network needs padding; empty where it does not


@dataclass(frozen=True)
class Head:
    """From last hidden states (n, H) to raw logits (n, V): the output embedding, then what the architecture does to logits."""

    linear: nn.Linear
    after: Callable[[Tensor], Tensor] | None

    def __call__(self, states: Tensor) -> Tensor:
        logits: Tensor = self.linear(states)
        return logits if self.after is None else self.after(logits)


def unpadded(module: nn.Module, mode: Forward) -> bool:
    """Whether this network runs without padding under this setting. Says so once where it must not."""
    if mode is Forward.padded:
        return False
    if module not in _known:
        _known[module] = refusal(module) or ""
        if _known[module] and hasattr(getattr(module, "config", None), "model_type"):
            logger.warning("%s is run with padding, which is slower: %s", type(inner(module)).__name__, _known[module])
    return not _known[module]


# of each record the layout last asked for, with what it was made from
_layouts: WeakKeyDictionary[Completions, tuple[Tensor, tuple[bool | int, ...], Layout]] = WeakKeyDictionary()


def states(module: nn.Module, c: Completions, needed: Tensor, mode: Forward) -> Tensor:
    """(n, H): the last hidden states where `needed` (B, T + 1) is set, in its row-major order."""
    if not unpadded(module, mode):
        return padded.hidden(module, c)[needed]
    anything = bool(needed.any())
    if not anything:  # networks can't run on nothing, and sharded ones must run on every rank
        c = padded.some(c)
        needed = torch.zeros(len(c), c.ids.shape[1] + 1, dtype=torch.bool, device=c.ids.device)
        needed[0, 0] = True
    # found once where several networks read the same records, and anew where a tensor was written into
    tensors = (c.ids, c.attended, c.prompt_of, c.prompts.ids, c.prompts.attended)
    share = mode is not Forward.flat
    key = (share, *(tensor._version for tensor in tensors))
    last, same, row = _layouts.get(c, (None, None, None))
    if row is None or last is None or same != key or not torch.equal(last, needed):
        row = layout(c, needed, share)
        _layouts[c] = needed, key, row
    body = inner(module).base_model
    with pruned(body, row.rows, len(row.ids)) if mode is Forward.auto else nullcontext() as row.pruned:
        last_states = run(body, row.ids[None], row.positions[None], layout=row)
    return last_states[0].index_select(0, row.read if anything else row.read[:0])


def run(body: nn.Module, ids: Tensor, positions: Tensor, **options: object) -> Tensor:
    """(B, L, H): the network's own forward; the options reach our attention, which needs no mask."""
    mask = attention.NO_MASK.to(ids.device)
    last: Tensor = body(
        input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, **options
    ).last_hidden_state
    return last


def before_scored(c: Completions) -> Tensor:
    """(B, T + 1) bool: the states that predict scored tokens."""
    return torch.nn.functional.pad(c.scored, (0, 1))


def head(module: nn.Module) -> Head:
    """The network's output embedding, and what its family does to logits: Gemma caps, Cohere multiplies, Granite divides."""
    network = inner(module)
    linear, names = network.get_output_embeddings(), ("final_logit_softcapping", "logit_scale", "logits_scaling")
    cap, factor, divisor = (getattr(network.config, name, None) for name in names)
    if cap:
        return Head(linear, lambda logits: torch.tanh(logits / cap) * cap)
    if factor:
        return Head(linear, lambda logits: logits * factor)
    return Head(linear, (lambda logits: logits / divisor) if divisor else None)


def adapted_ties(module: nn.Module) -> bool:
    """Whether the embeddings of input and output are one tensor, and an adapter is on either: the two compute other things."""
    network = inner(module)
    layers = [network.get_input_embeddings(), network.get_output_embeddings()]
    shared = layers[0] is not None and getattr(layers[0], "weight", None) is getattr(layers[1], "weight", layers)
    return shared and any(hasattr(layer, "base_layer") for layer in layers)


# --- can it? ---


def refusal(module: nn.Module) -> str | None:
    """Why this network needs padding, or None. Sets its attention to one that knows layouts."""
    network = inner(module)
    config = getattr(network, "config", None)
    if not hasattr(network, "get_output_embeddings") or config is None:
        return "it is no network of transformers"
    if padded.is_encoder_decoder(network):
        return "it is an encoder-decoder"
    if getattr(config, "_attn_implementation", None) not in ("sdpa", attention.NAME):
        remedy = "; sdpa does" if getattr(network, "_supports_sdpa", False) else ""
        return f"model.attention={config._attn_implementation} takes no other layout than rows{remedy}"
    unknown = sorted(set(getattr(config, "layer_types", None) or []) - LAYERS)
    if unknown:
        return f"it has layers of {', '.join(unknown)}"
    if "position_ids" not in padded.parameters(network.base_model):
        return "its forward takes no position ids"
    before = config._attn_implementation
    attention.install(config)
    problem = _differs(module)
    if problem:
        config._attn_implementation = before
    return problem


@torch.no_grad()
def _differs(module: nn.Module) -> str | None:
    """What goes wrong when a few tokens run without padding, or None where all is as with padding."""
    c, headless = trial.records(module), inner(module).get_output_embeddings() is None
    with trial.trying(module), trial.narrow(module):
        expected = padded.hidden(module, c)[before_scored(c)] if headless else padded.logits(module, c)[c.scored]
        _known[module] = ""  # as if it could
        try:
            outputs = states(module, c, before_scored(c), Forward.auto)
            outputs = outputs if headless else head(module)(outputs)
        except Exception as error:  # whatever a foreign architecture raises, padding still works
            return trial.failure(error)
    off = trial.distance(module, outputs, expected)
    return f"its logits differ by {off:.1e} without" if off else None
