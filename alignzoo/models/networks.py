"""Networks as algorithms see them: modules behind the few methods of the contract, each able to run without gradient."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise
from alignzoo.functional.logprobs import entropy, selective_log_softmax
from alignzoo.models.forward import flat, flops, padded
from alignzoo.models.forward.head import head_logprobs, kept
from alignzoo.models.forward.rowwise import by_rows
from alignzoo.models.sampling import backends, generation
from alignzoo.settings import Forward, Sampling

CHUNK_BYTES = 256 * 2**20  # of logits made at once; more than one chunk is computed again in the backward pass


@dataclass
class Shared:
    """What all networks of a run have in common: the sampling distribution, the noise, and where ranks must stop together."""

    noise: Noise
    ends: Collection[int]
    temperature: float = 1.0
    support: Tensor | None = None  # (V,) bool: the tokens completions may contain
    finished: generation.Finished | None = None
    updates: int = 0  # optimizer steps so far: fused optimizers leave no trace in the weights' version counters
    forward: Forward = Forward.auto  # how tokens are laid out
    drawn: Callable[[Completions], None] | None = None  # hears of all completions sampled

    @contextmanager
    def at(self, temperature: float) -> Iterator[None]:
        """Log-probs inside are those at this temperature (greedy counts as 1)."""
        before, self.temperature = self.temperature, temperature or 1.0
        try:
            yield
        finally:
            self.temperature = before

    @cached_property
    def supported(self) -> int | None:
        """How many tokens completions may contain; None: all."""
        return None if self.support is None else int(self.support.sum())

    def shape(self, logits: Tensor) -> Tensor:
        """Raw logits (n, V) to those of the sampling distribution: at least float32, divided by the temperature, -inf
        outside the support.
        """
        exact = logits if logits.dtype == torch.float64 else logits.float()
        scaled = exact if self.temperature == 1 else exact / self.temperature
        return scaled if self.support is None else scaled.masked_fill(~self.support.to(logits.device), -torch.inf)


@dataclass(frozen=True)
class Readout:
    """Rows (n, H or V), and what makes shaped logits (n, V) of some of them: the head, where rows are hidden states."""

    rows: Tensor
    logits: Callable[[Tensor], Tensor]
    width: int
    head: flat.Head | None = None

    def plain_weight(self) -> Tensor | None:
        """The head's weight (V, H) where it is a matrix product in the rows' own precision and nothing more."""
        if self.head is None or self.head.after is not None or type(self.head.linear) is not nn.Linear:
            return None
        linear: Any = self.head.linear
        weight, exact = linear.weight, self.rows.dtype in (torch.float32, torch.float64)
        plain = type(weight) is nn.Parameter and linear.bias is None and weight.dtype == self.rows.dtype
        return weight if plain and exact and not _autocast(self.rows.device) else None


class Network:
    """A module in a role. `frozen` runs it without gradient, and in evaluation mode."""

    def __init__(self, module: nn.Module, shared: Shared, frozen: bool = False) -> None:
        self.module, self.shared, self.frozen = module, shared, frozen

    def gradient(self) -> AbstractContextManager[Any]:
        return torch.no_grad() if self.frozen else nullcontext()

    def view(self, frozen: bool) -> Any:
        """The same network, with or without gradient."""
        return type(self)(self.module, self.shared, frozen)


class PolicyNetwork(Network):
    """A language model: `contracts.Policy`."""

    def readout(self, c: Completions) -> Readout:
        """What the scored tokens' shaped logits come from, in the row-major order of `c.scored.nonzero()`."""
        with self.gradient():
            if not flat.unpadded(self.module, self.shared.forward):
                logits = padded.logits(self.module, c)[c.scored]
                return Readout(logits, self.shared.shape, logits.shape[1])
            head = flat.head(self.module)
            states = flat.states(self.module, c, flat.before_scored(c), self.shared.forward)
            return Readout(states, lambda rows: self._logits(head, rows), head.width, head)

    def _logits(self, head: flat.Head, states: Tensor) -> Tensor:
        with self.gradient():
            return self.shared.shape(head(states))

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Any] = ()) -> Tensor:
        with self.gradient():
            return _on_scored(fn, [network.readout(c) for network in (self, *beside)], c, aligned)

    def logprobs(self, c: Completions) -> Tensor:
        # the sampler's own are exact in float32; in lower precision decoding and training forwards differ by more than they may
        if c.logprobs is not None and c.stamp is not None and c.stamp == self.stamp() and not torch.is_grad_enabled():
            return torch.where(c.scored, c.logprobs, 0)
        with self.gradient():
            read = self.readout(c)
            weight = read.plain_weight()
            if weight is None or read.head is None:
                return _on_scored(selective_log_softmax, [read], c, (c.ids,))
            found = head_logprobs(read.rows, weight, c.ids[c.scored], 1 / self.shared.temperature, self.shared.support)
            width = self.shared.supported or len(weight)
            flops.product(read.head.linear, found, read.rows, weight, width, again=not kept(read.rows, width))
            return _scatter(found, c.scored)

    def entropy(self, c: Completions) -> Tensor:
        return self.tokens(c, entropy)

    def generate(self, prompts: Prompts, sampling: Sampling, adjust: Callable[[Tensor], Tensor] | None = None) -> Completions:
        some = padded.some_prompts(prompts)
        uniforms = self.shared.noise.positions(some.row, sampling.samples, sampling.max_new_tokens)
        loop = backends.loop(self.module, sampling.decoding)
        c = loop(self.module, some, sampling, uniforms, self.shared.ends, self.shared.shape, adjust, self.shared.finished)
        if c.logprobs is None:  # a server's would be those of its own numerics
            with torch.no_grad():
                c = replace(c, logprobs=self.logprobs(c))
        c = c if len(prompts) else c.take([])
        if self.shared.drawn:
            self.shared.drawn(c)
        return replace(c, stamp=self.stamp())

    def stamp(self) -> str | None:
        """Names the weights and numerics; None where decoding and training forwards differ by more than rounding."""
        parameters = list(self.module.parameters())
        exact = all(p.dtype in (torch.float32, torch.float64) for p in parameters) and not _autocast(parameters[0].device)
        version = sum(p._version for p in parameters)
        return f"{id(self.module)}:{version}:{self.shared.updates}:{self.shared.temperature}" if exact else None


class AdapterOffNetwork(PolicyNetwork):
    """The policy with its PEFT adapter switched off: a reference that costs no memory."""

    @contextmanager
    def _off(self) -> Iterator[None]:
        with self.module.disable_adapter(), flops.counted_as(self.module, "reference"):  # type: ignore[operator]
            yield

    def readout(self, c: Completions) -> Readout:
        with self._off():
            return super().readout(c)

    def logprobs(self, c: Completions) -> Tensor:
        with flops.counted_as(self.module, "reference"):
            return super().logprobs(c)

    def _logits(self, head: flat.Head, states: Tensor) -> Tensor:
        with self._off():
            return super()._logits(head, states)

    def generate(self, prompts: Prompts, sampling: Sampling, adjust: Callable[[Tensor], Tensor] | None = None) -> Completions:
        with self._off():
            return super().generate(prompts, sampling, adjust)

    def stamp(self) -> str | None:
        stamp = super().stamp()
        return stamp and f"{stamp}:off"


class Headed(nn.Module):
    """A linear head, zero at first, on a trunk's last hidden states; `trunk` None: on those of the network it shares."""

    def __init__(self, trunk: nn.Module | None, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, 1, dtype=dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class HeadedNetwork(Network):
    """VALUE, SCORER and EMBEDDER: three readings of the hidden states."""

    module: Headed

    def __init__(self, module: Headed, shared: Shared, frozen: bool = False, trunk: nn.Module | None = None) -> None:
        super().__init__(module, shared, frozen)
        trunk = module.trunk if module.trunk is not None else trunk
        assert trunk is not None, "a head without a trunk must share one"
        self.trunk = trunk

    def view(self, frozen: bool) -> HeadedNetwork:
        return HeadedNetwork(self.module, self.shared, frozen, self.trunk)

    def values(self, c: Completions) -> Tensor:
        """(B, T): V(s_t), read off the state before token t."""
        with self.gradient():
            return _scatter(self._head(self._states(c, flat.before_scored(c))), c.scored)

    def scores(self, c: Completions) -> Tensor:
        """(B,): read off the state after the last attended token."""
        with self.gradient():
            last = torch.zeros_like(flat.before_scored(c)).scatter(1, c.attended.sum(1, keepdim=True), True)
            return self._head(self._states(c, last))

    def embed(self, c: Completions) -> Tensor:
        """(B, H): the mean state over attended tokens."""
        with self.gradient():
            states = self._states(c, F.pad(c.attended, (1, 0))).float()
            summed = states.new_zeros(len(c), states.shape[1]).index_add(0, c.attended.nonzero()[:, 0], states)
            return summed / c.attended.sum(1, keepdim=True).clamp(min=1)

    def sensitivity(self, c: Completions) -> Tensor:
        """(B,): the squared norm of the score's gradient by the embeddings of the completion's attended tokens. It has a
        gradient itself, so it runs with padding and with the attention that can be differentiated twice."""
        last = c.attended.sum(1, keepdim=True)
        with self.gradient(), sdpa_kernel(SDPBackend.MATH):
            found, states = padded.embedded(self.trunk, c)
            scores = self._head(states.gather(1, last[..., None].expand(-1, -1, states.shape[-1])))
            slope = torch.autograd.grad(scores.sum(), found, create_graph=torch.is_grad_enabled())[0]
        slope = slope if slope.dtype == torch.float64 else slope.float()
        return (slope**2).sum((1, 2))  # padding stands after what is scored: its gradient is zero

    def _states(self, c: Completions, needed: Tensor) -> Tensor:
        return flat.states(self.trunk, c, needed, self.shared.forward)

    def _head(self, states: Tensor) -> Tensor:
        scores = self.module.head(states.to(self.module.head.weight.dtype))[..., 0]
        return scores if scores.dtype == torch.float64 else scores.float()


def _autocast(device: torch.device) -> bool:
    return torch.is_autocast_enabled(device.type)


def _on_scored(fn: Callable[..., Tensor], read: list[Readout], c: Completions, aligned: Sequence[Tensor]) -> Tensor:
    """(B, T, ...): fn(logits of each readout, aligned values) at the scored tokens."""

    def on_rows(*columns: Tensor) -> Tensor:
        logits = [r.logits(rows) for r, rows in zip(read, columns, strict=False)]
        return by_rows(fn, *logits, *columns[len(read) :])

    columns = [*(r.rows for r in read), *(x[c.scored] for x in aligned)]
    return _scatter(_chunked(on_rows, columns, read[0].width), c.scored)


def _chunked(fn: Callable[..., Tensor], columns: list[Tensor], width: int) -> Tensor:
    """fn over rows, so many at a time that their logits fit the budget."""
    rows = max(1, CHUNK_BYTES // (width * columns[0].element_size()))
    if len(columns[0]) <= rows:
        return fn(*columns)
    chunks = zip(*(column.split(rows) for column in columns), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([fn(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(fn, *chunk, use_reentrant=False) for chunk in chunks])


def _scatter(values: Tensor, scored: Tensor) -> Tensor:
    """(n, ...) values of the scored tokens -> (B, T, ...), 0 elsewhere."""
    return values.new_zeros(*scored.shape, *values.shape[1:]).index_put((scored,), values)
