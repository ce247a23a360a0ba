"""Sampling: a plain decoding loop with a key-value cache, one uniform a position, the token by inverse CDF."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import DecodingRequest, Sampler
from alignzoo.models.forward import padded
from alignzoo.settings import Sampling

Loop = Callable[[DecodingRequest], Completions]


@dataclass(kw_only=True)
class Plain(Sampler):
    """Every row by itself, to the end of the longest."""

    knows_beside: ClassVar[bool] = True

    def generate(self, request: DecodingRequest) -> Completions:
        return generate(request)


@torch.no_grad()
def generate(request: DecodingRequest) -> Completions:
    """The completions asked for, with the log-probs of `request.shape`."""
    drawing = Drawing(request)
    state = _start(request.module, request.prompts, request.sampling.samples)
    while True:
        token = drawing.draw(state.logits)
        if drawing.over:
            return drawing.completions()
        _advance(request.module, state, token)


def steps(
    module: nn.Module, prompts: Prompts, samples: int, shape: Callable[[Tensor], Tensor],
    around: Callable[[], AbstractContextManager[None]], hidden: bool = False,
) -> Generator[Tensor, Tensor, None]:  # fmt: skip
    """The shaped logits (B, V) of a network that follows what another one draws: it is sent the tokens (B,). With `hidden` what
    is shaped are its last hidden states (B, H)."""
    with around():
        state = _start(module, prompts, samples, hidden)
    while True:
        token = yield shape(state.logits)
        with around():
            _advance(module, state, token)


class Drawing:
    """The tokens drawn so far from logits that some loop computes for all rows, or those of `rows` that go on, one position
    after the other."""

    def __init__(self, request: DecodingRequest) -> None:
        device, sampling = request.prompts.ids.device, request.sampling
        self.request, self.uniforms = request, request.uniforms.to(device)
        self.prompt_of = torch.arange(len(request.prompts), device=device).repeat_interleave(sampling.samples)
        total, self.time = len(self.prompt_of), 0
        self.ends = torch.tensor(sorted(request.ends), device=device)
        self.ids = torch.zeros(total, sampling.max_new_tokens, dtype=torch.long, device=device)
        self.written = torch.zeros_like(self.ids, dtype=torch.bool)
        self.logprobs = torch.zeros(0)  # in the precision of the logits
        self.done = torch.zeros(total, dtype=torch.bool, device=device)
        self.rows = torch.arange(total, device=device)
        self.over = False
        self.others = [next(steps) for steps in request.beside]

    def draw(self, logits: Tensor) -> Tensor:
        """(n, V) raw logits of `rows` -> the next token (n,) of each, ended or not. `over` if it was the last."""
        request, rows, t = self.request, self.rows, self.time
        scores = request.shape(logits)
        adjusted = request.adjust(scores, *self.others) if request.adjust else scores
        token = choose(adjusted, request.sampling, self.uniforms[rows, t])
        logprob = scores.gather(1, token[:, None])[:, 0] - scores.logsumexp(1)
        if t == 0:
            self.logprobs = scores.new_zeros(self.ids.shape)
        going = ~self.done[rows]
        self.ids[rows, t], self.written[rows, t], self.logprobs[rows, t] = token * going, going, logprob.masked_fill(~going, 0)
        self.done[rows] |= torch.isin(token, self.ends)
        ended = request.finished(self.done) if request.finished else bool(self.done.all())
        self.time += 1
        self.over = ended or self.time == request.sampling.max_new_tokens
        self.others = [] if self.over else [steps.send(token) for steps in request.beside]
        return token

    def completions(self) -> Completions:
        prompts, (ids, written, logprobs) = (
            self.request.prompts,
            (x[:, : self.time] for x in (self.ids, self.written, self.logprobs)),
        )
        return Completions(
            prompts=prompts, prompt_of=self.prompt_of, ids=ids, attended=written, scored=written,
            truncated=~self.done, row=prompts.row[self.prompt_of], logprobs=logprobs,
        )  # fmt: skip


def unpadded(prompts: Prompts) -> list[list[int]]:
    """The tokens of each prompt; of one of nothing its last token of padding, since a completion needs something to follow."""
    both = zip(prompts.ids, prompts.attended, strict=True)
    return [(ids[there] if there.any() else ids[-1:]).tolist() for ids, there in both]


def recorded(prompts: Prompts, sampling: Sampling, rows: list[list[int]], ends: Collection[int]) -> Completions:
    """The completions of these tokens, at least one in each of the rows, a prompt's together, without log-probs."""
    device = prompts.ids.device
    prompt_of = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples)
    ids = pad_sequence([torch.tensor(row, device=device) for row in rows], batch_first=True)
    written = torch.arange(ids.shape[1], device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    return Completions(
        prompts=prompts, prompt_of=prompt_of, ids=ids, attended=written, scored=written,
        truncated=torch.tensor([row[-1] not in ends for row in rows], device=device), row=prompts.row[prompt_of],
    )  # fmt: skip


def choose(scores: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """(B, V) scores -> (B,) tokens: the likeliest at temperature 0, else the inverse CDF at `uniform` (B,) of the kept
    tokens.
    """
    if sampling.temperature == 0:
        return scores.argmax(1)
    # float64: over 150 thousand tokens a float32 cumulative sum is off by more than rare tokens weigh
    probs = _truncate(scores.double().softmax(1), sampling)
    mass = probs.cumsum(1)
    token = torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True)[:, 0]
    return token.clamp(max=scores.shape[1] - 1)


def _truncate(probs: Tensor, sampling: Sampling) -> Tensor:
    """Zero what top-k, nucleus and min-p sampling drop, in that order (that of transformers), each relative to what is left.

    The likeliest always stays.
    """
    if sampling.top_k:
        kth = probs.topk(min(sampling.top_k, probs.shape[1]), 1).values[:, -1:]
        probs = probs * (probs >= kth)
    if sampling.top_p < 1:
        ordered, order = probs.sort(dim=1, descending=True, stable=True)
        before = ordered.cumsum(1) - ordered
        kept = ordered * (before < sampling.top_p * ordered.sum(1, keepdim=True))
        probs = torch.zeros_like(probs).scatter(1, order, kept)
    if sampling.min_p:
        probs = probs * (probs >= sampling.min_p * probs.amax(1, keepdim=True))
    return probs


@dataclass
class _State:
    """What decoding carries from token to token."""

    logits: Tensor  # (B, V), of the next token, or the hidden states (B, H) that they are made of
    cache: object
    attended: Tensor  # (B, L): the prompt, and for decoder-only models everything since
    encoded: object = None
    hidden: bool = False

    def read(self, output: Any) -> Tensor:
        return (padded.last_hidden(output) if self.hidden else output.logits)[:, -1]


def _start(module: nn.Module, prompts: Prompts, samples: int, hidden: bool = False) -> _State:
    attended = prompts.attended.repeat_interleave(samples, 0)
    if padded.is_encoder_decoder(module):
        encoded = padded.inner(module).get_encoder()(input_ids=prompts.ids, attention_mask=prompts.attended.long())
        encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(samples, 0)
        state = _State(torch.empty(0), None, attended, encoded, hidden)
        _advance(module, state, torch.full((len(attended),), padded.decoder_start(module), device=attended.device))
        return state
    state = _State(torch.empty(0), None, attended, hidden=hidden)
    inputs = padded.accepts(module, position_ids=padded.positions(prompts.attended), logits_to_keep=1)
    output = module(input_ids=prompts.ids, attention_mask=prompts.attended.long(), use_cache=True, **inputs)
    cache = getattr(output, padded.cache_name(module))
    if samples > 1:
        cache.batch_repeat_interleave(samples)
    state.logits, state.cache = state.read(output).repeat_interleave(samples, 0), cache
    return state


def _advance(module: nn.Module, state: _State, token: Tensor) -> None:
    cache = padded.cache_name(module)
    if state.encoded is not None:
        inputs: dict[str, object] = {"encoder_outputs": state.encoded, "decoder_input_ids": token[:, None]}
    else:
        state.attended = torch.cat([state.attended, torch.ones_like(state.attended[:, :1])], 1)
        positions = padded.accepts(module, position_ids=state.attended.sum(1, keepdim=True) - 1)
        inputs = {"input_ids": token[:, None], **positions}
    more = {"output_hidden_states": True} if state.hidden else {}
    output = module(attention_mask=state.attended.long(), use_cache=True, **inputs, **more, **{cache: state.cache})
    state.cache, state.logits = getattr(output, cache), state.read(output)
