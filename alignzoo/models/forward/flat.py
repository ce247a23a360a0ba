"""Forwards without padding: the states asked for, and no others, through any decoder of `transformers`.

Whether a network can is found out by trying (`refusal`): a few made-up tokens must give the same logits as with padding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions, Prompts
from alignzoo.models.forward import attention, flops, padded
from alignzoo.models.forward.layout import Layout, layout
from alignzoo.models.forward.prune import pruned
from alignzoo.settings import Forward

logger = logging.getLogger("alignzoo")
LAYERS = {"full_attention", "sliding_attention"}
WINDOW = 4  # tokens, in the trial
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}  # of the largest logit; wrong attention is off by far more
_known: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # why a network needs padding; empty where it does not


@dataclass(frozen=True)
class Head:
    """From last hidden states (n, H) to raw logits (n, V): the output embedding, then what the architecture does to logits."""

    linear: Any
    after: Callable[[Tensor], Tensor] | None

    def __call__(self, states: Tensor) -> Tensor:
        logits = self.linear(states)
        return logits if self.after is None else self.after(logits)

    @property
    def width(self) -> int:
        return int(self.linear.weight.shape[0])


def unpadded(module: Any, mode: Forward) -> bool:
    """Whether this network runs without padding under this setting. Says so once where it must not."""
    if mode is Forward.padded:
        return False
    if module not in _known:
        _known[module] = refusal(module) or ""
        if _known[module] and isinstance(module, nn.Module) and hasattr(module.config, "model_type"):
            logger.warning("%s is run with padding, which is slower: %s", type(_inner(module)).__name__, _known[module])
    return not _known[module]


def states(module: Any, c: Completions, needed: Tensor, mode: Forward) -> Tensor:
    """(n, H): the last hidden states where `needed` (B, T + 1) is set, in its row-major order."""
    if not unpadded(module, mode):
        return padded.hidden(module, c)[needed]
    return _states(module, c, needed, mode)


def _states(module: Any, c: Completions, needed: Tensor, mode: Forward) -> Tensor:
    found = needed.any()
    if not found:  # networks can't run on nothing, and sharded ones must run on every rank
        c = padded.some(c)
        needed = torch.zeros(len(c), c.ids.shape[1] + 1, dtype=torch.bool, device=c.ids.device)
        needed[0, 0] = True
    made = _layout(c, needed, share=mode is not Forward.flat)
    body = backbone(module)
    pruning = pruned(body, made.rows, len(made.ids)) if mode is Forward.auto else nullcontext()
    with pruning as made.pruned:
        output = run(body, made.ids[None], made.positions[None], layout=made)
    return output.last_hidden_state[0].index_select(0, made.read if found else made.read[:0])


# of each record the layout last asked for, with what it was made from
_layouts: WeakKeyDictionary[Completions, tuple[Tensor, tuple[bool | int, ...], Layout]] = WeakKeyDictionary()


def _layout(c: Completions, needed: Tensor, share: bool) -> Layout:
    """The layout, found once where several networks read the same records, and anew where a tensor was written into."""
    tensors = (c.ids, c.attended, c.prompt_of, c.prompts.ids, c.prompts.attended)
    key = (share, *(tensor._version for tensor in tensors))
    if c in _layouts:
        before, same, made = _layouts[c]
        if same == key and torch.equal(before, needed):
            return made
    _layouts[c] = needed, key, layout(c, needed, share)
    return _layouts[c][2]


def run(body: Any, ids: Tensor, positions: Tensor, **given: Any) -> Any:
    """The network's own forward; what is `given` reaches our attention, which needs no mask."""
    mask = attention.NO_MASK.to(ids.device)
    return body(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, **given)


def before_scored(c: Completions) -> Tensor:
    """(B, T + 1) bool: the states that predict scored tokens."""
    return torch.nn.functional.pad(c.scored, (0, 1))


def backbone(module: Any) -> Any:
    """The network without its head."""
    return _inner(module).base_model


def head(module: Any) -> Head:
    inner = _inner(module)
    return Head(inner.get_output_embeddings(), _after(inner.config))


def adapted_ties(module: Any) -> bool:
    """Whether the embeddings of input and output are one tensor, and an adapter is on either: the two compute other things."""
    layers = [module.get_input_embeddings(), module.get_output_embeddings()]
    shared = layers[0] is not None and getattr(layers[0], "weight", None) is getattr(layers[1], "weight", layers)
    return shared and any(hasattr(layer, "base_layer") for layer in layers)


def _inner(module: Any) -> Any:
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def _after(config: Any) -> Callable[[Tensor], Tensor] | None:
    """What this family does to its logits: Gemma caps, Cohere multiplies, Granite divides."""
    cap, factor, divisor = (getattr(config, n, None) for n in ("final_logit_softcapping", "logit_scale", "logits_scaling"))
    if cap:
        return lambda logits: torch.tanh(logits / cap) * cap
    if factor:
        return lambda logits: logits * factor
    return (lambda logits: logits / divisor) if divisor else None


# --- can it? ---


def refusal(module: Any) -> str | None:
    """Why this network needs padding, or None. Sets its attention to one that knows layouts."""
    inner = _inner(module)
    config = getattr(inner, "config", None)
    if not hasattr(inner, "get_output_embeddings") or config is None:
        return "it is no network of transformers"
    if padded.is_encoder_decoder(inner):
        return "it is an encoder-decoder"
    if getattr(config, "_attn_implementation", None) not in ("sdpa", attention.NAME):
        remedy = "; sdpa does" if getattr(inner, "_supports_sdpa", False) else ""
        return f"model.attention={config._attn_implementation} takes no other layout than rows{remedy}"
    other = sorted(set(getattr(config, "layer_types", None) or []) - LAYERS)
    if other:
        return f"it has layers of {', '.join(other)}"
    if "position_ids" not in padded._parameters(backbone(module)):
        return "its forward takes no position ids"
    before = config._attn_implementation
    attention.install(config)
    problem = _differs(module)
    if problem:
        config._attn_implementation = before
    return problem


@torch.no_grad()
def _differs(module: Any) -> str | None:
    """What goes wrong when a few tokens run without padding, or None where all is as with padding."""
    sample = _sample(module)
    with trying(module), _narrow(module):
        expected = _read(module, sample, None)
        try:
            found = _read(module, sample, Forward.auto)
        except Exception as error:  # whatever a foreign architecture raises, padding still works
            return _raised(error)
    distance = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return None if distance <= _tolerance(module) else f"its logits differ by {distance:.1e} without"


def _tolerance(module: Any) -> float:
    weight = next(module.parameters())
    return 0.1 if torch.is_autocast_enabled(weight.device.type) else TOLERANCE.get(weight.dtype, 0.1)


def _raised(error: Exception) -> str:
    """One line about what a network's own code raised."""
    return f"it fails otherwise with {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _read(module: Any, c: Completions, mode: Forward | None) -> Tensor:
    """Logits, or hidden states where there is no head, at the scored tokens."""
    if _inner(module).get_output_embeddings() is None:
        return padded.hidden(module, c)[before_scored(c)] if mode is None else _states(module, c, before_scored(c), mode)
    return padded.logits(module, c)[c.scored] if mode is None else head(module)(_states(module, c, before_scored(c), mode))


def _sample(module: Any) -> Completions:
    """Two prompts of unequal length with three completions of unequal length."""
    device, size = next(module.parameters()).device, int(_inner(module).config.vocab_size)
    ids = (torch.arange(30, device=device) * 7 + 1) % size
    attended = torch.ones(2, 5, dtype=torch.bool, device=device)
    attended[0, :2] = False
    written = torch.ones(3, 4, dtype=torch.bool, device=device)
    written[1, 2:] = False
    row = torch.arange(3, device=device)
    prompts = Prompts(ids=ids[:10].view(2, 5), attended=attended, row=row[:2])
    return Completions(
        prompts=prompts, prompt_of=torch.tensor([0, 0, 1], device=device), ids=ids[10:22].view(3, 4), attended=written,
        scored=written, truncated=torch.zeros(3, dtype=torch.bool, device=device), row=row,
    )  # fmt: skip


@contextmanager
def _narrow(module: nn.Module) -> Iterator[None]:
    """Sliding windows of a few tokens, which the sample reaches beyond."""
    windowed = [
        part for part in [_inner(module).config.get_text_config(), *module.modules()] if getattr(part, "sliding_window", None)
    ]
    before = [part.sliding_window for part in windowed]
    for part in windowed:
        part.sliding_window = min(WINDOW, part.sliding_window)
    try:
        yield
    finally:
        for part, window in zip(windowed, before, strict=True):
            part.sliding_window = window


@contextmanager
def trying(module: nn.Module) -> Iterator[None]:
    """Without dropout, and on nobody's account."""
    with evaluating(module), flops.uncounted(module):
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, every part back to its own mode afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
