"""Sampling without useless work: a prompt's keys and values are stored and read once for all its samples, rows that have ended
are dropped, and nothing is copied to grow the cache. Tokens and log-probs are those of `generation.generate`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions, Prompts
from alignzoo.models.forward import flat, pieces
from alignzoo.models.forward.layout import layout
from alignzoo.models.sampling.generation import Finished, choose
from alignzoo.models.sampling.trial import differs
from alignzoo.settings import Decoding, Forward, Sampling

logger = logging.getLogger("alignzoo")
_known: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # why a network needs the plain loop; empty where it does not
SHRINK = 0.85  # rows are dropped once at most this share of them goes on
ROOM = 32  # tokens of each completion that the cache has room for at first; doubled when full


class Memory:
    """Keys and values: of the prompts (G, heads, P, d), padded on the right, and of what each row has written so far.

    group (B,) is the prompt of each row; rows of a prompt stand together.
    """

    def __init__(self, lengths: Tensor) -> None:
        self.lengths, self.time = lengths, 0
        self.sizes = lengths.tolist()  # once for all layers: on a GPU it waits for all that is under way
        self.prompts: dict[int, tuple[Tensor, Tensor]] = {}
        self.written: dict[int, tuple[Tensor, Tensor]] = {}
        self.room = ROOM
        self.padding: Tensor | None = None
        self.spread(torch.arange(len(lengths), device=lengths.device))

    def spread(self, group: Tensor) -> None:
        """From now on there is a row for each entry of `group`."""
        self.group, self.padding = group, None
        counts = group.bincount(minlength=len(self.lengths))
        self.most = int(counts.max())
        first = counts.cumsum(0) - counts
        self.place = group * self.most + torch.arange(len(group), device=group.device) - first[group]
        self.even = len(group) == len(self.lengths) * self.most

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, and with the prompts they have."""
        groups, group = self.group[rows].unique(return_inverse=True)
        if len(groups) < len(self.lengths):
            self.lengths = self.lengths[groups]
            width = int(self.lengths.max())
            self.prompts = {i: (k[groups, :, :width], v[groups, :, :width]) for i, (k, v) in self.prompts.items()}
        self.written = {i: (k[rows], v[rows]) for i, (k, v) in self.written.items()}
        self.spread(group)

    def store_prompts(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """keys, values (heads, N, d): those of all prompts, one after the other."""
        parts = [x.transpose(0, 1).split(self.sizes) for x in (keys, values)]
        padded = [torch.nn.utils.rnn.pad_sequence(list(x), batch_first=True).transpose(1, 2).contiguous() for x in parts]
        self.prompts[layer] = (padded[0], padded[1])

    def store(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """key, value (B, heads, 1, d) of the token just read -> those of all tokens of each row."""
        if layer not in self.written:
            shape = (*key.shape[:2], self.room, key.shape[3])
            self.written[layer] = (key.new_empty(shape), value.new_empty((*shape[:3], value.shape[3])))
        keys, values = self.written[layer]
        if self.time >= keys.shape[2]:
            more = max(keys.shape[2], ROOM)
            keys, values = (torch.cat([x, x.new_empty(*x.shape[:2], more, x.shape[3])], 2) for x in (keys, values))
            self.written[layer] = (keys, values)
        keys[:, :, self.time] = key[:, :, 0]
        values[:, :, self.time] = value[:, :, 0]
        return keys[:, :, : self.time + 1], values[:, :, : self.time + 1]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """query (B, heads, 1, d), key and value (B, key heads, 1, d) of the newest token -> (B, 1, heads, d)."""
        keys, values = self.store(layer, key, value)
        prompt_keys, prompt_values = self.prompts[layer]
        rows, heads, size = len(query), key.shape[1], query.shape[3]
        query = query.reshape(rows, heads, -1, size)
        if window is None and pieces.able(query, keys, values, 0.0):
            return self._merged(query, keys, values, (prompt_keys, prompt_values), scaling)
        query = query * (size**-0.5 if scaling is None else scaling)
        start = max(0, self.time + 1 - window) if window else 0
        own = query @ keys[:, :, start:].transpose(2, 3)  # (B, key heads, repeats, t)
        shared = self._by_row(self._by_prompt(query) @ prompt_keys.transpose(2, 3), query.shape[2])
        shared = shared + self._hidden(prompt_keys.shape[2], window, query)[self.group]
        weights = torch.cat([shared, own], 3).softmax(3, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
        width = shared.shape[3]
        found = self._by_row(self._by_prompt(weights[..., :width]) @ prompt_values, query.shape[2])
        return (found + weights[..., width:] @ values[:, :, start:]).reshape(rows, 1, -1, values.shape[3])

    def _merged(self, query: Tensor, keys: Tensor, values: Tensor, prompts: tuple[Tensor, Tensor], scaling: Any) -> Tensor:
        """Over the prompt's keys for all rows of a prompt at once, over what each row has written, and both made one."""
        rows, repeats = len(query), query.shape[2]
        out, logs = pieces.flash(query, keys, values, 0.0, False, scale=scaling)
        hidden = self._hidden(prompts[0].shape[2], None, query)
        found, more = pieces.flash(self._by_prompt(query), *prompts, 0.0, False, attn_mask=hidden, scale=scaling)
        share = (self._by_row(more[..., None], repeats) - logs[..., None]).sigmoid_().to(out.dtype)  # of the prompt's keys
        return torch.lerp(out, self._by_row(found, repeats), share).reshape(rows, 1, -1, values.shape[3])

    def entries(self, window: int | None) -> int:
        """Pairs of a query and a key that the last `attend` has computed, hidden ones included."""
        width = next(iter(self.prompts.values()))[0].shape[2]
        own = min(self.time + 1, window) if window else self.time + 1
        return len(self.lengths) * self.most * width + len(self.group) * own

    def _hidden(self, width: int, window: int | None, like: Tensor) -> Tensor:
        """(G, 1, 1, P): -inf for prompt tokens that are padding, or out of the window; else 0."""
        if window or self.padding is None:
            place = torch.arange(width, device=self.lengths.device)
            hidden = place >= self.lengths[:, None]
            hidden = hidden | (self.lengths[:, None] + self.time - place >= window) if window else hidden
            bias = like.new_zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None, None]
            if window:
                return bias
            self.padding = bias
        return self.padding

    def _by_prompt(self, x: Tensor) -> Tensor:
        """(B, heads, repeats, n) -> (G, heads, rows * repeats, n)."""
        if not self.even:
            x = x.new_zeros(len(self.lengths) * self.most, *x.shape[1:]).index_copy(0, self.place, x)
        return x.unflatten(0, (len(self.lengths), self.most)).transpose(1, 2).flatten(2, 3)

    def _by_row(self, x: Tensor, repeats: int) -> Tensor:
        x = x.unflatten(2, (self.most, repeats)).transpose(1, 2).flatten(0, 1)
        return x if self.even else x.index_select(0, self.place)


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
    """What `generation.generate` gives for the same uniforms."""
    device, total, length = prompts.ids.device, len(prompts) * sampling.samples, sampling.max_new_tokens
    body, head = flat.backbone(module), flat.head(module)
    memory, states = _read_prompts(body, prompts)
    prompt_of = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples)
    memory.spread(prompt_of)
    states = states[prompt_of]
    ids, written = (
        torch.zeros(total, length, dtype=torch.long, device=device),
        torch.zeros(total, length, dtype=torch.bool, device=device),
    )
    logprobs: Tensor | None = None
    done = torch.zeros(total, dtype=torch.bool, device=device)
    rows, end_ids, uniforms = torch.arange(total, device=device), torch.tensor(sorted(ends), device=device), uniforms.to(device)
    for t in range(length):
        scores = shape(head(states))
        token = choose(adjust(scores) if adjust else scores, sampling, uniforms[rows, t])
        going = ~done[rows]
        logprob = scores.gather(1, token[:, None])[:, 0] - scores.logsumexp(1)
        logprobs = scores.new_zeros(total, length) if logprobs is None else logprobs
        ids[rows, t], written[rows, t], logprobs[rows, t] = token * going, going, logprob.masked_fill(~going, 0)
        done[rows] |= torch.isin(token, end_ids)
        if (finished(done) if finished else bool(done.all())) or t + 1 == length:
            break
        alive = ~done[rows]
        if adjust is None and 0 < int(alive.sum()) <= SHRINK * len(rows):  # `adjust` may know rows by their place
            rows, token = rows[alive], token[alive]
            memory.keep(alive.nonzero()[:, 0])
        states = _read(body, memory, token)
    used = t + 1
    assert logprobs is not None
    return Completions(
        prompts=prompts, prompt_of=prompt_of, ids=ids[:, :used], attended=written[:, :used], scored=written[:, :used],
        truncated=~done, row=prompts.row[prompt_of], logprobs=logprobs[:, :used],
    )  # fmt: skip


def _read_prompts(body: Any, prompts: Prompts) -> tuple[Memory, Tensor]:
    """All prompts in one row: their keys and values, and the state (G, H) after each."""
    made = layout(*_ends(prompts))
    memory = Memory(torch.tensor([length for _, length, _ in made.groups], device=made.ids.device))
    output = flat.run(body, made.ids[None], made.positions[None], layout=made, memory=memory)
    return memory, output.last_hidden_state[0].index_select(0, made.read)


def _ends(prompts: Prompts) -> tuple[Completions, Tensor]:
    """Completions of nothing, whose first state is wanted."""
    count, device = len(prompts), prompts.ids.device
    nothing = torch.zeros(count, 0, dtype=torch.bool, device=device)
    c = Completions(
        prompts=prompts, prompt_of=torch.arange(count, device=device), ids=nothing.long(), attended=nothing, scored=nothing,
        truncated=nothing.any(1), row=prompts.row,
    )  # fmt: skip
    return c, torch.ones(count, 1, dtype=torch.bool, device=device)


def _read(body: Any, memory: Memory, token: Tensor) -> Tensor:
    """token (B,) -> the state (B, H) after it."""
    positions = memory.lengths[memory.group] + memory.time
    output = flat.run(body, token[:, None], positions[:, None], memory=memory)
    memory.time += 1
    return output.last_hidden_state[:, -1]


def able(module: Any, decoding: Decoding) -> bool:
    """Whether this loop can sample from this network under this setting. Says so once where it can't."""
    if decoding is Decoding.plain or not flat.unpadded(module, Forward.auto):
        return False
    if module not in _known:
        _known[module] = differs(module, generate) or ""
        if _known[module]:
            name = type(flat._inner(module)).__name__
            logger.warning("%s is sampled from by the plain loop, which is slower: %s", name, _known[module])
    return not _known[module]
