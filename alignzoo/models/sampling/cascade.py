"""Sampling without useless work: a prompt's keys and values are stored and read once for all its samples, rows that have ended
are dropped, and nothing is copied to grow the cache. Tokens and log-probs are those of `generation.generate`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import DecodingRequest
from alignzoo.models.forward import flat, padded, pieces
from alignzoo.models.forward.layout import layout
from alignzoo.models.sampling.generation import Drawing

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
        recent = query @ keys[:, :, start:].transpose(2, 3)  # (B, key heads, repeats, t)
        shared = self._by_row(self._by_prompt(query) @ prompt_keys.transpose(2, 3), query.shape[2])
        shared = shared + self._hidden(prompt_keys.shape[2], window, query)[self.group]
        weights = (
            torch.cat([shared, recent], 3).softmax(3, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
        )
        width = shared.shape[3]
        out = self._by_row(self._by_prompt(weights[..., :width]) @ prompt_values, query.shape[2])
        return (out + weights[..., width:] @ values[:, :, start:]).reshape(rows, 1, -1, values.shape[3])

    def _merged(
        self, query: Tensor, keys: Tensor, values: Tensor, prompts: tuple[Tensor, Tensor], scaling: float | None
    ) -> Tensor:
        """Over the prompt's keys for all rows of a prompt at once, over what each row has written, and both made one."""
        rows, repeats = len(query), query.shape[2]
        out, logs = pieces.flash(query, keys, values, 0.0, False, scale=scaling)
        hidden = self._hidden(prompts[0].shape[2], None, query)
        of_prompts, more = pieces.flash(self._by_prompt(query), *prompts, 0.0, False, attn_mask=hidden, scale=scaling)
        share = (self._by_row(more[..., None], repeats) - logs[..., None]).sigmoid_().to(out.dtype)  # of the prompt's keys
        return torch.lerp(out, self._by_row(of_prompts, repeats), share).reshape(rows, 1, -1, values.shape[3])

    def entries(self, window: int | None) -> int:
        """Pairs of a query and a key that the last `attend` has computed, hidden ones included."""
        width = next(iter(self.prompts.values()))[0].shape[2]
        recent = min(self.time + 1, window) if window else self.time + 1
        return len(self.lengths) * self.most * width + len(self.group) * recent

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
def generate(request: DecodingRequest) -> Completions:
    """What `generation.generate` gives for the same request."""
    body, head = padded.inner(request.module).base_model, flat.head(request.module)
    drawing = Drawing(request)
    memory, states = _read_prompts(body, request.prompts)
    memory.spread(drawing.prompt_of)
    states = states[drawing.prompt_of]
    while True:
        token = drawing.draw(head(states))
        if drawing.over:
            return drawing.completions()
        alive = ~drawing.done[drawing.rows]
        # `adjust` may know rows by their place
        if request.adjust is None and 0 < int(alive.sum()) <= SHRINK * len(alive):
            drawing.rows, token = drawing.rows[alive], token[alive]
            memory.keep(alive.nonzero()[:, 0])
        states = _read(body, memory, token)


def _read_prompts(body: nn.Module, prompts: Prompts) -> tuple[Memory, Tensor]:
    """All prompts in one row: their keys and values, and the state (G, H) after each."""
    count, device = len(prompts), prompts.ids.device
    nothing = torch.zeros(count, 0, dtype=torch.bool, device=device)
    c = Completions(
        prompts=prompts, prompt_of=torch.arange(count, device=device), ids=nothing.long(), attended=nothing, scored=nothing,
        truncated=nothing.any(1), row=prompts.row,
    )  # fmt: skip
    rows = layout(c, torch.ones(count, 1, dtype=torch.bool, device=device))
    memory = Memory(torch.tensor([length for _, length, _ in rows.groups], device=device))
    states = flat.run(body, rows.ids[None], rows.positions[None], layout=rows, memory=memory)
    return memory, states[0].index_select(0, rows.read)


def _read(body: nn.Module, memory: Memory, token: Tensor) -> Tensor:
    """token (B,) -> the state (B, H) after it."""
    positions = memory.lengths[memory.group] + memory.time
    states = flat.run(body, token[:, None], positions[:, None], memory=memory)
    memory.time += 1
    return states[:, -1]
