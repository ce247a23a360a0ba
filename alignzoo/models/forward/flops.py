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
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

logger = logging.getLogger("alignzoo")
FUSED_BACKWARD = 2.5  # of the forward: four products for the gradients, and the scores once more
PLAIN_BACKWARD = 2.0
WIDTHS = ("head_dim", "head_size", "attention_head_size", "key_value_proj_dim")  # what families call a head's


class Tally:
    """One role's FLOPs, and the calls of its network: a step of decoding is one."""

    __slots__ = ("backward", "backward_passes", "forward", "forward_passes")

    def __init__(self) -> None:
        self.load([0, 0, 0, 0])

    def state(self) -> list[int]:
        return [self.forward, self.backward, self.forward_passes, self.backward_passes]

    def load(self, state: list[int]) -> None:
        self.forward, self.backward, self.forward_passes, self.backward_passes = state

    def add(self, state: list[int]) -> None:
        self.load([a + b for a, b in zip(self.state(), state, strict=True)])

    def note(self, output: Tensor, forward: int, backward: int) -> None:
        """`forward` now, and `backward` once a gradient arrives at `output`, if one ever does."""
        self.forward += forward
        if backward and output.requires_grad:
            output.register_hook(partial(self._note_backward, backward))

    def _note_backward(self, amount: int, gradient: Tensor) -> None:
        self.backward += amount

    def note_pass(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.forward_passes += 1
        states = _first_tensor(output)
        if states is not None and states.requires_grad:
            states.register_hook(self._note_backward_pass)

    def _note_backward_pass(self, gradient: Tensor) -> None:
        self.backward_passes += 1


class Account:
    """The tallies of a run's roles."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}

    def tally(self, role: str) -> Tally:
        return self.tallies.setdefault(role, Tally())

    def total(self) -> int:
        return sum(tally.forward + tally.backward for tally in self.tallies.values())

    def state_dict(self) -> dict[str, list[int]]:
        return {role: tally.state() for role, tally in self.tallies.items()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        for role in {**self.tallies, **state}:
            self.tally(role).load(list(state.get(role, [0, 0, 0, 0])))

    @contextmanager
    def aside(self) -> Iterator[Callable[[], dict[str, list[int]]]]:
        """What is counted inside is not in the account afterwards; the function yielded then tells it, by role."""
        before, found = self.state_dict(), dict[str, list[int]]()
        try:
            yield lambda: found
        finally:
            for role, state in self.state_dict().items():
                found[role] = [a - b for a, b in zip(state, before.get(role, [0, 0, 0, 0]), strict=True)]
            self.load_state_dict(before)


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
        trunk.register_forward_hook(tally.note_pass)
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
    account, own = _watched[module]
    with account.aside() as found:
        yield
    for name, state in found().items():
        account.tally(role if name == own else name).add(state)


def product(owner: nn.Module, output: Tensor, rows: Tensor, weight: Tensor, width: int, again: bool = False) -> None:
    """Count rows (n, H) times `width` of the weight's rows (V, H); `again`: once more in the backward pass."""
    if owner in _watched:
        once = 2 * rows.numel() * width
        _tally(owner).note(output, once, once * (rows.requires_grad + weight.requires_grad + again))


def head_product(module: Any, output: Tensor, rows: int) -> None:
    """Count the product of so many states with a network's output embedding, made outside of it."""
    head = module.get_output_embeddings()
    if head in _watched:
        once = 2 * rows * head.weight.numel()
        _tally(head).note(output, once, once * (1 + head.weight.requires_grad))


def attention(
    owner: nn.Module, output: Tensor, query: Tensor, key: Tensor, value: Tensor, entries: int, backward: float = FUSED_BACKWARD
) -> None:
    """Count softmax(q k) v for query (B, heads, L, d) over `entries` pairs of a query and a key, each in every head."""
    if owner in _watched:
        once = 2 * query.shape[1] * entries * (key.shape[-1] + value.shape[-1])
        _tally(owner).note(output, once, int(once * backward))


def _tally(module: nn.Module) -> Tally:
    account, role = _watched[module]
    return account.tally(role)


# --- which part computes what ---


def _hook_for(part: nn.Module, tally: Tally) -> Callable[..., None] | None:
    """What counts a call of this part, None where it multiplies nothing or nobody knows."""
    if isinstance(part, nn.Linear):
        return partial(_count_rows, tally, part.in_features)
    weight = getattr(part, "weight", None)
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


def _count_rows(tally: Tally, width: int, part: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """output (..., n) of rows (..., width)."""
    once = 2 * output.numel() * width
    tally.forward += once
    if output.requires_grad:
        # gradients by the rows, by the weight, or both
        tally.note(output, 0, once * (inputs[0].requires_grad + part.weight.requires_grad))


def _count_router(tally: Tally, part: Any, inputs: tuple[Any, ...], output: Any) -> None:
    rows, scores = inputs[0], _first_tensor(output)
    once = 2 * rows.numel() * part.weight.shape[0]
    if scores is not None:
        tally.note(scores, once, once * (rows.requires_grad + part.weight.requires_grad))


def _count_experts(tally: Tally, part: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Experts as one weight (experts, out, in) a product; inputs are rows and the experts (rows, k) that each goes to."""
    rows, chosen = inputs[0], inputs[1]
    weights = [parameter for parameter in part.parameters(recurse=False) if parameter.dim() == 3]
    once = 2 * chosen.numel() * sum(weight[0].numel() for weight in weights)
    tally.note(output, once, once * (rows.requires_grad + weights[0].requires_grad))


def _count_eager(tally: Tally, part: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Attention that `transformers` does by plain products returns its weights (B, heads, L, keys)."""
    weights = output[-1] if isinstance(output, tuple) and len(output) > 1 else None
    width = next((found for name in WIDTHS if (found := getattr(part, name, None))), None)
    if isinstance(weights, Tensor) and weights.dim() == 4 and width:
        once = 4 * weights.numel() * width
        tally.note(output[0], once, int(once * PLAIN_BACKWARD))


def _count_attention() -> None:
    """Every attention function that `transformers` hands to its networks counts, from now on, for the networks watched."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name in ALL_ATTENTION_FUNCTIONS.valid_keys():
        function = ALL_ATTENTION_FUNCTIONS[name]
        if not hasattr(function, "counts") and "eager" not in name:
            ALL_ATTENTION_FUNCTIONS.register(name, _counting(function))


def _counting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **keywords: Any) -> Any:
        output = function(module, query, key, value, *rest, **keywords)
        if module in _watched:
            backward = PLAIN_BACKWARD if keywords.get("dropout") else FUSED_BACKWARD
            attention(module, output[0], query, key, value, query.shape[0] * query.shape[2] * key.shape[2], backward)
        return output

    attend.counts = True  # type: ignore[attr-defined]
    return attend


def body(module: Any) -> nn.Module:
    """The part that every call of the network runs once: without its head, which may be left out or run in chunks."""
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    found = getattr(inner, "trunk", None) or getattr(inner, "base_model", None) or inner
    return getattr(found, "base_model", None) or found


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return next((value for value in values if isinstance(value, Tensor)), None)
