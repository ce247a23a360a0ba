"""Networks as algorithms see them: modules behind the few methods of the contract, each able to run without gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.common.account import Account
from alignzoo.common.noise import Noise
from alignzoo.contracts import DecodingRequest, Sampler, TextTools
from alignzoo.errors import UserError
from alignzoo.functional.logprobs import entropy, selective_log_softmax
from alignzoo.models.forward import flat, flops, padded
from alignzoo.models.forward.head import head_logprobs, kept
from alignzoo.models.forward.rowwise import by_rows
from alignzoo.models.sampling import backends, generation
from alignzoo.settings import Forward, Sampling

CHUNK_BYTES = 256 * 2**20  # of logits made at once; more than one chunk is computed again in the backward pass
EXACT = (torch.float32, torch.float64)


@dataclass
class Shared:
    """What all networks of a run have in common: the sampling distribution, the noise, and where ranks must stop together."""

    noise: Noise
    ends: Collection[int]
    temperature: float = 1.0
    support: Tensor | None = None  # (V,) bool: the tokens completions may contain
    finished: Callable[[Tensor], bool] | None = None
    updates: int = 0  # optimizer steps so far: fused optimizers leave no trace in the weights' version counters
    forward: Forward = Forward.auto  # how tokens are laid out
    samplers: Mapping[str, Sampler] = field(default_factory=backends.ours)  # by name, what `generation.decoding` may be
    account: Account = field(default_factory=Account)  # hears of all completions sampled
    tokenizer: TextTools | None = None
    more: Callable[[int], Batch] | None = None  # the next records of the order, for a rollout in progress

    def allowed(self, scores: Tensor) -> Tensor:
        """(n, V) with -inf outside the support."""
        return scores if self.support is None else scores.masked_fill(~self.support.to(scores.device), -torch.inf)

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
        exact = padded.exact(logits)
        return self.allowed(exact if self.temperature == 1 else exact / self.temperature)


@dataclass(frozen=True)
class Readout:
    """Rows (n, H or V), and what makes shaped logits (n, V) of some of them: the head, where rows are hidden states. plain: the
    head, where it is a matrix product in the rows' own precision and nothing more."""

    rows: Tensor
    logits: Callable[[Tensor], Tensor]
    width: int
    plain: nn.Linear | None = None


class Network:
    """A module in a role. `frozen` runs it without gradient, and in evaluation mode. `trunk` is what its head sits on."""

    def __init__(self, module: nn.Module, shared: Shared, frozen: bool = False) -> None:
        self.module, self.shared, self.frozen, self.trunk = module, shared, frozen, module

    def gradient(self) -> AbstractContextManager[None]:
        return torch.no_grad() if self.frozen else nullcontext()

    def view(self, frozen: bool) -> Self:
        """The same network, with or without gradient."""
        network = copy.copy(self)
        network.frozen = frozen
        return network

    def readout(self, c: Completions, ran: dict[int, Tensor] | None = None) -> Readout:
        """What the scored tokens' logits, or what stands for them, come from, in the row-major order of `c.scored.nonzero()`;
        `ran` has the states of trunks that have run on these records."""
        raise NotImplementedError

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Any] = ()) -> Tensor:
        ran: dict[int, Tensor] = {}
        with self.gradient():
            return _on_scored(fn, [_readout(network, c, ran) for network in (self, *beside)], c, aligned)

    def _before_scored(self, c: Completions, ran: dict[int, Tensor] | None) -> Tensor:
        """(n, H): the trunk's states before scored tokens, those that it was run for if it was."""
        ran = {} if ran is None else ran
        rows = ran.get(id(self.trunk))
        if rows is None or (torch.is_grad_enabled() and not rows.requires_grad):
            rows = ran[id(self.trunk)] = flat.states(self.trunk, c, flat.before_scored(c), self.shared.forward)
        return rows if torch.is_grad_enabled() else rows.detach()


class PolicyNetwork(Network):
    """A language model: `contracts.Policy`."""

    def readout(self, c: Completions, ran: dict[int, Tensor] | None = None) -> Readout:
        with self.gradient():
            if not flat.unpadded(self.module, self.shared.forward):
                logits = padded.logits(self.module, c)[c.scored]
                return Readout(logits, self.shared.shape, logits.shape[1])
            head = flat.head(self.module)
            rows = self._before_scored(c, ran)
            linear, weight = head.linear, head.linear.weight
            product = type(linear) is nn.Linear and type(weight) is nn.Parameter and getattr(linear, "bias", None) is None
            exact = weight.dtype == rows.dtype in EXACT and not torch.is_autocast_enabled(rows.device.type)
            plain = product and exact and head.after is None
            return Readout(rows, lambda states: self._logits(head, states), len(weight), linear if plain else None)

    def _logits(self, head: flat.Head, states: Tensor) -> Tensor:
        with self.gradient():
            return self.shared.shape(head(states))

    def logprobs(self, c: Completions) -> Tensor:
        # the sampler's own are exact in float32; in lower precision decoding and training forwards differ by more than they may
        if c.logprobs is not None and c.stamp is not None and c.stamp == self.stamp() and not torch.is_grad_enabled():
            return torch.where(c.scored, c.logprobs, 0)
        with self.gradient():
            read = self.readout(c)
            if read.plain is None:
                return _on_scored(selective_log_softmax, [read], c, (c.ids,))
            weight, support = read.plain.weight, self.shared.support
            logprobs = head_logprobs(read.rows, weight, c.ids[c.scored], 1 / self.shared.temperature, support)
            width = self.shared.supported or len(weight)
            ways = read.rows.requires_grad + weight.requires_grad + (not kept(read.rows, width))
            flops.note(read.plain, logprobs, 2 * read.rows.numel() * width, ways)
            return _scatter(logprobs, c.scored)

    def entropy(self, c: Completions) -> Tensor:
        return self.tokens(c, entropy)

    def generate(
        self, prompts: Prompts, sampling: Sampling, adjust: Callable[..., Tensor] | None = None,
        beside: Sequence[Any] = (), purpose: str = "",
    ) -> Completions:  # fmt: skip
        shared, drawn_for, sampler = self.shared, padded.some_prompts(prompts), self.shared.samplers[sampling.decoding]
        uniforms = shared.noise.positions(drawn_for.row, sampling.samples, sampling.max_new_tokens, purpose)
        if beside and not sampler.knows_beside:
            raise UserError(f"generation.decoding={sampling.decoding} can't sample beside another network: take auto")
        others = [network.steps(drawn_for, sampling.samples, self) for network in beside]
        c = sampler.generate(
            DecodingRequest(
                self.module, drawn_for, sampling, uniforms, shared.ends, shared.shape, adjust, shared.finished, others
            )
        )
        if c.logprobs is None:  # a server's would be those of its own numerics
            with torch.no_grad():
                c = replace(c, logprobs=self.logprobs(c))
        c = c if len(prompts) else c.take([])
        shared.account.drawn(c)
        return replace(c, stamp=self.stamp())

    def adjusted(self, adjust: Callable[..., Tensor], beside: Sequence[Any] = ()) -> AdjustedPolicy:
        return AdjustedPolicy(self, adjust, beside)

    def around(self) -> AbstractContextManager[None]:
        """What every forward of the module is within."""
        return nullcontext()

    def steps(self, prompts: Prompts, samples: int, leader: PolicyNetwork) -> Generator[Tensor, Tensor, None]:
        """Its shaped logits (B, V) token by token, as it is sent those that `leader` draws."""
        if leader.module is self.module and type(leader) is not PolicyNetwork:
            raise UserError("without its adapter the policy can't be sampled beside itself: sample from the policy, beside it")
        return generation.steps(self.module, prompts, samples, self.shared.shape, self.around)

    def stamp(self) -> str | None:
        """Names the weights and numerics; None where decoding and training forwards differ by more than rounding."""
        parameters = list(self.module.parameters())
        exact = all(p.dtype in EXACT for p in parameters) and not torch.is_autocast_enabled(parameters[0].device.type)
        version = sum(p._version for p in parameters)
        return f"{id(self.module)}:{version}:{self.shared.updates}:{self.shared.temperature}" if exact else None


class AdapterOffNetwork(PolicyNetwork):
    """The policy with its PEFT adapter switched off: a reference that costs no memory."""

    @contextmanager
    def around(self) -> Iterator[None]:
        with self.module.disable_adapter(), flops.counted_as(self.module, "reference"):  # type: ignore[operator]
            yield

    def readout(self, c: Completions, ran: dict[int, Tensor] | None = None) -> Readout:
        with self.around():
            return super().readout(c)

    def logprobs(self, c: Completions) -> Tensor:
        with flops.counted_as(self.module, "reference"):
            return super().logprobs(c)

    def _logits(self, head: flat.Head, states: Tensor) -> Tensor:
        with self.around():
            return super()._logits(head, states)

    def generate(self, *arguments: Any, **keywords: Any) -> Completions:
        with self.around():
            return super().generate(*arguments, **keywords)

    def stamp(self) -> str | None:
        stamp = super().stamp()
        return stamp and f"{stamp}:off"


@dataclass(frozen=True)
class AdjustedPolicy:
    """`contracts.Policy.adjusted`: `policy`, but for `adjust`, which sees the logits of `beside`."""

    policy: PolicyNetwork
    adjust: Callable[..., Tensor]
    beside: Sequence[Any] = ()

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Any] = ()) -> Tensor:
        return self.policy.tokens(c, self._before(fn), *aligned, beside=[*self.beside, *beside])

    def logprobs(self, c: Completions) -> Tensor:
        return self.tokens(c, selective_log_softmax, c.ids)

    def entropy(self, c: Completions) -> Tensor:
        return self.tokens(c, entropy)

    def adjusted(self, adjust: Callable[..., Tensor], beside: Sequence[Any] = ()) -> AdjustedPolicy:
        return AdjustedPolicy(self.policy, self._before(adjust), [*self.beside, *beside])

    def generate(
        self, prompts: Prompts, sampling: Sampling, adjust: Callable[..., Tensor] | None = None,
        beside: Sequence[Any] = (), purpose: str = "",
    ) -> Completions:  # fmt: skip
        changed = self._before(adjust) if adjust else self.adjust
        c = self.policy.generate(prompts, sampling, changed, [*self.beside, *beside], purpose)
        with torch.no_grad():
            return replace(c, logprobs=self.logprobs(c), stamp=None)

    def _before(self, fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """fn of the adjusted logits, and of what stands behind `beside`."""
        own = len(self.beside)
        return lambda logits, *rest: fn(self.adjust(logits, *rest[:own]), *rest[own:])


class Headed(nn.Module):
    """A linear head on a trunk's last hidden states; `trunk` None: on those of the network it shares. Of one output it is zero
    at first; of more, so that no two heads are alike, small numbers drawn from torch's stream."""

    def __init__(self, trunk: nn.Module | None, width: int, dtype: torch.dtype, outputs: int = 1) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, outputs, dtype=dtype)
        nn.init.normal_(self.head.weight, std=0.02 if outputs > 1 else 0)
        nn.init.zeros_(self.head.bias)


class HeadedNetwork(Network):
    """VALUE, ACTION_VALUE, SCORER and EMBEDDER: readings of the hidden states."""

    module: Headed

    def __init__(self, module: Headed, shared: Shared, frozen: bool = False, trunk: nn.Module | None = None) -> None:
        super().__init__(module, shared, frozen)
        trunk = module.trunk if module.trunk is not None else trunk
        assert trunk is not None, "a head without a trunk must share one"
        self.trunk = trunk

    def readout(self, c: Completions, ran: dict[int, Tensor] | None = None) -> Readout:
        with self.gradient():
            return Readout(self._before_scored(c, ran), self._outputs, self.module.head.out_features)

    def steps(self, prompts: Prompts, samples: int, leader: PolicyNetwork) -> Generator[Tensor, Tensor, None]:
        """Its outputs (B, V), or (B, 1), token by token, as it is sent those that `leader` draws."""
        trunk = padded.inner(self.trunk).base_model
        return generation.steps(trunk, prompts, samples, self._outputs, nullcontext, hidden=True)

    def values(self, c: Completions) -> Tensor:
        """(B, T): V(s_t), read off the state before token t."""
        with self.gradient():
            return _scatter(self._head(self._before_scored(c, None)), c.scored)

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
            embeddings, states = padded.embedded(self.trunk, c)
            scores = self._head(states.gather(1, last[..., None].expand(-1, -1, states.shape[-1])))
            slope = torch.autograd.grad(scores.sum(), embeddings, create_graph=torch.is_grad_enabled())[0]
        slope = padded.exact(slope)
        return (slope**2).sum((1, 2))  # padding stands after what is scored: its gradient is zero

    def _states(self, c: Completions, needed: Tensor) -> Tensor:
        return flat.states(self.trunk, c, needed, self.shared.forward)

    def _head(self, states: Tensor) -> Tensor:
        return self._outputs(states)[..., 0]

    def _outputs(self, states: Tensor) -> Tensor:
        with self.gradient():
            outputs = padded.exact(self.module.head(states.to(self.module.head.weight.dtype)))
        return outputs if outputs.shape[-1] == 1 else self.shared.allowed(outputs)


def _readout(beside: Any, c: Completions, ran: dict[int, Tensor]) -> Readout:
    """Of a network on these records, or on those that stand with it in a pair."""
    network, records = beside if isinstance(beside, tuple) else (beside, c)
    readout: Readout = network.readout(records, ran if records is c else None)
    return readout


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
