"""Sampling: a plain decoding loop with a key-value cache, one uniform a position, the token by inverse CDF."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Prompts
from alignzoo.models.forward import padded
from alignzoo.settings import Sampling

Finished = Callable[[Tensor], bool]


@torch.no_grad()
def generate(
    module: Any,
    prompts: Prompts,
    sampling: Sampling,
    uniforms: Tensor,
    ends: Collection[int],
    shape: Callable[[Tensor], Tensor],
    adjust: Callable[[Tensor], Tensor] | None = None,
    finished: Finished | None = None,
) -> Completions:
    """`sampling.samples` completions of every prompt, a prompt's together, each ending with one of `ends` or cut at
    `max_new_tokens`.

    uniforms (B, max_new_tokens) decide the tokens, so a row's text depends neither on its neighbours nor on the rank.
    `shape` maps raw logits (B, V) to those of the sampling distribution, whose log-probs are returned; `adjust` then changes
    what is sampled, not what is reported. `finished` replaces "all rows have ended" where ranks must stop together.
    """
    drawing = Drawing(prompts, sampling, uniforms, ends, shape, adjust, finished)
    state = _start(module, prompts, sampling.samples)
    while True:
        token = drawing.draw(state.logits)
        if drawing.over:
            return drawing.completions()
        _advance(module, state, token)


class Drawing:
    """The tokens drawn so far from logits that some loop computes for all rows, one position after the other."""

    def __init__(
        self,
        prompts: Prompts,
        sampling: Sampling,
        uniforms: Tensor,
        ends: Collection[int],
        shape: Callable[[Tensor], Tensor],
        adjust: Callable[[Tensor], Tensor] | None,
        finished: Finished | None,
    ) -> None:
        device = prompts.ids.device
        self.prompts, self.sampling, self.shape, self.adjust, self.finished = prompts, sampling, shape, adjust, finished
        self.prompt_of = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples)
        self.uniforms, self.ends = uniforms.to(device), torch.tensor(sorted(ends), device=device)
        self.done = torch.zeros(len(self.prompt_of), dtype=torch.bool, device=device)
        self.columns: list[tuple[Tensor, Tensor, Tensor]] = []
        self.over = False

    def draw(self, logits: Tensor) -> Tensor:
        """(B, V) raw logits -> the next token (B,) of every row, whether it has ended or not. `over` if it was the last."""
        scores, t = self.shape(logits), len(self.columns)
        token = choose(self.adjust(scores) if self.adjust else scores, self.sampling, self.uniforms[:, t])
        logprob = scores.gather(1, token[:, None])[:, 0] - scores.logsumexp(1)
        self.columns.append((token.masked_fill(self.done, 0), ~self.done, logprob.masked_fill(self.done, 0)))
        self.done = self.done | torch.isin(token, self.ends)
        ended = self.finished(self.done) if self.finished else bool(self.done.all())
        self.over = ended or t + 1 == self.sampling.max_new_tokens
        return token

    def completions(self) -> Completions:
        ids, written, logprobs = (torch.stack(column, 1) for column in zip(*self.columns, strict=True))
        return Completions(
            prompts=self.prompts, prompt_of=self.prompt_of, ids=ids, attended=written, scored=written,
            truncated=~self.done, row=self.prompts.row[self.prompt_of], logprobs=logprobs,
        )  # fmt: skip


def unpadded(prompts: Prompts) -> list[list[int]]:
    """The tokens of each prompt; of one of nothing its last token of padding, since a completion needs something to follow."""
    both = zip(prompts.ids, prompts.attended, strict=True)
    return [(ids[there] if there.any() else ids[-1:]).tolist() for ids, there in both]


def recorded(
    prompts: Prompts, sampling: Sampling, rows: list[list[int]], ends: Collection[int], logprobs: Tensor | None = None
) -> Completions:
    """The completions of these tokens, at least one in each of the rows, a prompt's together. logprobs (B, >= longest)."""
    device = prompts.ids.device
    prompt_of = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples)
    ids = pad_sequence([torch.tensor(row, device=device) for row in rows], batch_first=True)
    written = torch.arange(ids.shape[1], device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    return Completions(
        prompts=prompts, prompt_of=prompt_of, ids=ids, attended=written, scored=written,
        truncated=torch.tensor([row[-1] not in ends for row in rows], device=device), row=prompts.row[prompt_of],
        logprobs=None if logprobs is None else logprobs[:, : ids.shape[1]].masked_fill(~written, 0),
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

    logits: Tensor  # (B, V), of the next token
    cache: Any
    attended: Tensor  # (B, L): the prompt, and for decoder-only models everything since
    encoded: Any = None


def _start(module: Any, prompts: Prompts, samples: int) -> _State:
    if padded.is_encoder_decoder(module):
        return _start_encoder_decoder(module, prompts, samples)
    inputs = padded.accepts(module, position_ids=padded.positions(prompts.attended), logits_to_keep=1)
    output = module(input_ids=prompts.ids, attention_mask=prompts.attended.long(), use_cache=True, **inputs)
    cache = getattr(output, padded.cache_name(module))
    if samples > 1:
        cache.batch_repeat_interleave(samples)
    logits, attended = (x.repeat_interleave(samples, 0) for x in (output.logits[:, -1], prompts.attended))
    return _State(logits, cache, attended)


def _start_encoder_decoder(module: Any, prompts: Prompts, samples: int) -> _State:
    encoded = module.get_encoder()(input_ids=prompts.ids, attention_mask=prompts.attended.long())
    encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(samples, 0)
    attended = prompts.attended.repeat_interleave(samples, 0)
    state = _State(torch.empty(0), None, attended, encoded)
    _advance(module, state, torch.full((len(attended),), padded.decoder_start(module), device=attended.device))
    return state


def _advance(module: Any, state: _State, token: Tensor) -> None:
    cache = padded.cache_name(module)
    if state.encoded is not None:
        output = module(
            encoder_outputs=state.encoded, attention_mask=state.attended.long(), decoder_input_ids=token[:, None],
            use_cache=True, **{cache: state.cache},
        )  # fmt: skip
    else:
        state.attended = torch.cat([state.attended, torch.ones_like(state.attended[:, :1])], 1)
        inputs = padded.accepts(module, position_ids=state.attended.sum(1, keepdim=True) - 1)
        output = module(
            input_ids=token[:, None],
            attention_mask=state.attended.long(),
            use_cache=True,
            **inputs,
            **{cache: state.cache},
        )
    state.cache, state.logits = getattr(output, cache), output.logits[:, -1]
