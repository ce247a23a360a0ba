"""FLOPs as they are executed, forward and backward, by role: hooks on whatever multiplies matrices in a network.

A product of (m, k) and (k, n) is 2 m k n, as everywhere in the literature; all else (norms, softmax, optimizers) is left out.
Attention counts its whole rectangle of queries and keys, whatever its mask hides.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from alignzoo.common.account import Account, Tally
from alignzoo.models.forward.padded import inner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("alignzoo")
FUSED_BACKWARD = 2.5  # of the forward: four products for the gradients, and the scores once more
PLAIN_BACKWARD = 2.0
WIDTHS = ("head_dim", "head_size", "attention_head_size", "key_value_proj_dim")  # what families call a head's
_watched: WeakKeyDictionary[nn.Module, tuple[Account, str]] = WeakKeyDictionary()


def watch(module: nn.Module, account: Account, role: str) -> None:
    """Count what this network does from now on. Parts that are watched already, such as a shared trunk, keep their role."""
    new = [part for part in module.modules() if part not in _watched or _watched[part][0] is not account]
    if not new:
        return
    tally, unknown, trunk = account.tally(role), set(), body(module)
    _count_attention()
    for part in new:
        _watched[part] = (account, role)
        hook = _hook_for(part, tally)
        if hook is not None:
            part.register_forward_hook(hook)
        elif _multiplies(part):
            unknown.add(type(part).__name__)
    if trunk in new:
        trunk.register_forward_hook(lambda part, inputs, output: tally.note_pass(_first_tensor(output)))
    if unknown:
        logger.warning("FLOPs of the %s leave out %s: what they compute isn't known", role, ", ".join(sorted(unknown)))


@contextmanager
def uncounted(module: nn.Module) -> Iterator[None]:
    """What this network does inside, without gradient, is not counted."""
    account = _watched[module][0] if module in _watched else Account()
    with account.aside():
        yield


@contextmanager
def counted_as(module: nn.Module, role: str) -> Iterator[None]:
    """What this network does inside, without gradient, is counted for another role."""
    if module not in _watched:
        yield
        return
    account, usual = _watched[module]
    with account.aside() as inside:
        yield
    for name, tally in inside().items():
        account.add_flops(role if name == usual else name, tally)


def note(part: nn.Module, output: Tensor, forward: int, backward: float) -> None:
    """Count, for a part that is watched, `forward` FLOPs now and `backward` times as many once a gradient arrives at what it
    gave, if one ever does."""
    if part in _watched:
        account, role = _watched[part]
        account.tallies[role].note(output, forward, int(forward * backward))


def head_product(module: PreTrainedModel, output: Tensor, rows: int) -> None:
    """Count the product of so many states with a network's output embedding, made outside of it."""
    head = module.get_output_embeddings()
    note(head, output, 2 * rows * head.weight.numel(), 1 + head.weight.requires_grad)


def attention(
    owner: nn.Module, output: Tensor, query: Tensor, key: Tensor, value: Tensor, entries: int, backward: float = FUSED_BACKWARD
) -> None:
    """Count softmax(q k) v for query (B, heads, L, d) over `entries` pairs of a query and a key, each in every head."""
    note(owner, output, 2 * query.shape[1] * entries * (key.shape[-1] + value.shape[-1]), backward)


# --- which part computes what ---


def _hook_for(part: nn.Module, tally: Tally) -> Callable[..., None] | None:
    """What counts a call of this part, None where it multiplies nothing or nobody knows."""
    weight = getattr(part, "weight", None)
    if isinstance(part, nn.Linear):
        return partial(_count_rows, tally, part.in_features)
    if type(part).__name__ == "Conv1D" and isinstance(weight, Tensor):  # GPT-2's transposed linear layer
        return partial(_count_rows, tally, weight.shape[0])
    if "Router" in type(part).__name__ and isinstance(weight, Tensor) and weight.dim() == 2:
        return partial(_count_router, tally)
    if any(parameter.dim() == 3 for parameter in part.parameters(recurse=False)) and "Experts" in type(part).__name__:
        return partial(_count_experts, tally)
    return partial(_count_eager, tally) if "Attention" in type(part).__name__ else None


def _multiplies(part: nn.Module) -> bool:
    wide = any(parameter.dim() > 1 for parameter in part.parameters(recurse=False))
    return wide and not isinstance(part, nn.Embedding)


def _count_rows(tally: Tally, width: int, part: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """output (..., n) of rows (..., width)."""
    once = 2 * output.numel() * width
    # gradients by the rows, by the weight, or both
    ways = inputs[0].requires_grad + part.weight.requires_grad if output.requires_grad else 0
    tally.note(output, once, once * ways)


def _count_router(tally: Tally, part: nn.Linear, inputs: tuple[Tensor, ...], output: object) -> None:
    rows, scores = inputs[0], _first_tensor(output)
    once = 2 * rows.numel() * part.weight.shape[0]
    if scores is not None:
        tally.note(scores, once, once * (rows.requires_grad + part.weight.requires_grad))


def _count_experts(tally: Tally, part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Experts as one weight (experts, out, in) a product; inputs are rows and the experts (rows, k) that each goes to."""
    rows, chosen = inputs[0], inputs[1]
    weights = [parameter for parameter in part.parameters(recurse=False) if parameter.dim() == 3]
    once = 2 * chosen.numel() * sum(weight[0].numel() for weight in weights)
    tally.note(output, once, once * (rows.requires_grad + weights[0].requires_grad))


def _count_eager(tally: Tally, part: nn.Module, inputs: object, output: object) -> None:
    """Attention that `transformers` does by plain products returns its weights (B, heads, L, keys)."""
    weights = output[-1] if isinstance(output, tuple) and len(output) > 1 else None
    width = next((size for name in WIDTHS if (size := getattr(part, name, None))), None)
    if isinstance(output, tuple) and isinstance(weights, Tensor) and weights.dim() == 4 and width:
        once = 4 * weights.numel() * width
        tally.note(output[0], once, int(once * PLAIN_BACKWARD))


def _count_attention() -> None:
    """Every attention function that `transformers` hands to its networks counts, from now on, for the networks watched."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name in ALL_ATTENTION_FUNCTIONS.valid_keys():
        function = ALL_ATTENTION_FUNCTIONS[name]
        if not hasattr(function, "counts") and "eager" not in name:
            ALL_ATTENTION_FUNCTIONS.register(name, _counting(function))


def _counting(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    @functools.wraps(function)
    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: object, **keywords: object
    ) -> tuple[Tensor, ...]:
        output = function(module, query, key, value, *rest, **keywords)
        backward = PLAIN_BACKWARD if keywords.get("dropout") else FUSED_BACKWARD
        attention(module, output[0], query, key, value, query.shape[0] * query.shape[2] * key.shape[2], backward)
        return output

    attend.counts = True  # type: ignore[attr-defined]
    return attend


def body(module: nn.Module) -> nn.Module:
    """The part that every call of the network runs once: without its head, which may be left out or run in chunks."""
    network = inner(module)
    trunk = getattr(network, "trunk", None) or getattr(network, "base_model", None) or network
    return getattr(trunk, "base_model", None) or trunk


def _first_tensor(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return next((value for value in values if isinstance(value, Tensor)), None)
