"""Where the tokens of a batch stand when nothing is padded and every prompt is written once.

All tokens stand in one row: a prompt, then the completions that branch from it, then the next prompt. A completion's tokens
see their prompt and what stands before them in the same completion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignzoo.batch import Completions

T = TypeVar("T")
Range = tuple[int, int]
Ranges = list[Range]
Group = tuple[int, int, list[tuple[int, int]]]
TINY = 160  # tokens: a group this short is one masked square, cheaper than several calls
SQUARE = 512 * 512  # entries of a mask above which nothing is gained by putting several into one call
FULL = 0.7  # a call takes in what fills at least this share of its rows


@dataclass(frozen=True)
class Rectangle:
    """One call of attention over several pieces of like size, padded to the largest.

    queries (S, Lq) and keys (S, Lk) index the row; mask (S, 1, Lq, Lk) bool says who sees whom; used (n,) are the entries of
    the flattened (S * Lq) that are no padding.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor
    used: Tensor


@dataclass(frozen=True)
class Plan:
    """All calls of attention for one layout: causal slices [start, stop) of the row, and rectangles; `place` (N,) brings their
    outputs, slices first, back into the row's order.
    """

    slices: list[tuple[int, int]]
    rectangles: list[Rectangle]
    place: Tensor | None

    @cached_property
    def entries(self) -> int:
        """Pairs of a query and a key that are computed, hidden ones included."""
        squares = sum((stop - start) ** 2 for start, stop in self.slices)
        return squares + sum(r.queries.numel() * r.keys.shape[1] for r in self.rectangles)


@dataclass(eq=False)
class Layout:
    """ids, positions, branch (N,): branch is 0 in a prompt, else which of its completions. read (n,): the place of the state
    asked for, in the row-major order of the mask that asked. groups: start, prompt length and the (start, length) of branches.
    """

    ids: Tensor
    positions: Tensor
    branch: Tensor
    read: Tensor
    groups: list[Group]
    pruned: nn.Module | None = None  # the attention of which only the outputs at `read` are needed
    calls: dict[object, object] = field(default_factory=dict)  # of attention, by what computes them

    @cached_property
    def rows(self) -> Tensor:
        """The places that are read, each once, in order."""
        return self.read.unique()

    @property
    def longest(self) -> int:
        return max(prompt + max((length for _, length in branches), default=0) for _, prompt, branches in self.groups)

    def effective(self, window: int | None) -> int | None:
        """None where the window hides nothing."""
        return window if window and window < self.longest else None

    def plan(self, window: int | None = None) -> Plan:
        """The calls of attention where a token sees the last `window` positions, or all of them."""
        window = self.effective(window)
        return self.once(window, lambda: _plan(self, window))

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once for all layers."""
        if key not in self.calls:
            self.calls[key] = make()
        return cast(T, self.calls[key])


def layout(c: Completions, needed: Tensor, share: bool = True) -> Layout:
    """The layout of the tokens on which the needed states depend.

    needed (B, T + 1) bool: entry t is the state before completion token t, entry T the one after the last. What comes after a
    completion's last needed state is left out, and so is what nothing needs. `share` writes a prompt once for all its
    completions, else once for each.
    """
    width, device = c.ids.shape[1], c.ids.device
    rows = needed.any(1).nonzero()[:, 0]
    group = c.prompt_of[rows] if share else torch.arange(len(rows), device=device)
    order = group.argsort(stable=True)
    rows = rows[order]
    used, group = group[order].unique(return_inverse=True)
    prompts = used if share else c.prompt_of[rows]

    ends = torch.where(needed[rows], torch.arange(width + 1, device=device), 0).amax(1)
    kept = c.attended[rows] & (torch.arange(width, device=device) < ends[:, None])
    begun = c.prompts.attended[prompts].clone()
    begun[:, -1] |= ~begun.any(1)  # a prompt of nothing still needs a state to start from
    sizes, prompt_sizes = kept.sum(1), begun.sum(1)

    prompt_before = prompt_sizes.cumsum(0) - prompt_sizes
    branch_before = sizes.cumsum(0) - sizes
    first = torch.searchsorted(group, torch.arange(len(prompts), device=device))
    starts = prompt_before + branch_before[first]
    branch_starts = prompt_before[group] + prompt_sizes[group] + branch_before

    total = int(prompt_sizes.sum() + sizes.sum())
    ids, positions, branch = (torch.zeros(total, dtype=torch.long, device=device) for _ in range(3))
    offset = begun.cumsum(1)[begun] - 1
    there = starts.repeat_interleave(prompt_sizes) + offset
    ids[there], positions[there] = c.prompts.ids[prompts][begun], offset
    offset = kept.cumsum(1)[kept] - 1
    there = branch_starts.repeat_interleave(sizes) + offset
    ids[there], positions[there] = c.ids[rows][kept], prompt_sizes[group].repeat_interleave(sizes) + offset
    branch[there] = (torch.arange(len(rows), device=device) - first[group] + 1).repeat_interleave(sizes)

    seen = F.pad(kept.cumsum(1), (1, 0))  # (R, T + 1): the tokens of the completion before each state
    places = torch.where(seen == 0, (starts + prompt_sizes - 1)[group][:, None], branch_starts[:, None] + seen - 1)
    read = torch.zeros(needed.shape, dtype=torch.long, device=device).index_put((rows,), places)[needed]
    groups: list[Group] = [(start, size, []) for start, size in zip(starts.tolist(), prompt_sizes.tolist(), strict=True)]
    for g, start, size in zip(group.tolist(), branch_starts.tolist(), sizes.tolist(), strict=True):
        if size:
            groups[g][2].append((start, size))
    return Layout(ids, positions, branch, read, groups)


@dataclass(frozen=True)
class Tree:
    """A prompt and its branches as ranges [start, stop) of the row. trunk: the prompt and its first branch, one causal
    sequence, of which the outputs from `first` on are needed. further: the other branches, one after the other up to `stop`.
    """

    prompt: Range
    trunk: Range
    further: Ranges
    first: int
    stop: int


def trees(layout: Layout, read: Tensor | None = None) -> Iterator[Tree]:
    """The groups of a layout; `read` (n,): the places of which outputs are needed, in order, else all. The last token of every
    branch is read, or it would not be there, and so is the end of a prompt that has no branch: `first` is in the trunk.
    """
    firsts = [start for start, _, _ in layout.groups]
    if read is not None:
        firsts = read[torch.searchsorted(read, torch.tensor(firsts, device=read.device))].tolist()
    for (start, length, branches), first in zip(layout.groups, firsts, strict=True):
        ranges = [(begin, begin + size) for begin, size in branches]
        prompt = (start, start + length)
        trunk = (start, ranges[0][1] if ranges else prompt[1])
        yield Tree(prompt, trunk, ranges[1:], first, ranges[-1][1] if ranges else prompt[1])


def _plan(layout: Layout, window: int | None) -> Plan:
    slices: Ranges = []
    pieces: list[tuple[Ranges, Ranges]] = []  # of the row: those that look, those looked at
    for tree in trees(layout):
        whole = (tree.trunk[0], tree.stop)
        if tree.stop - tree.trunk[0] <= TINY:
            pieces.append(([whole], [whole]))
            continue
        if window:
            pieces.append(([tree.trunk], [tree.trunk]))
        else:
            slices.append(tree.trunk)
        pieces += [([branch], [tree.prompt, branch]) for branch in tree.further]
    rectangles = [_rectangle(layout, bucket, window) for bucket in buckets(pieces)]
    device = layout.ids.device
    written = [torch.arange(start, stop, device=device) for start, stop in slices]
    order = torch.cat([*written, *(rectangle.queries.flatten()[rectangle.used] for rectangle in rectangles)])
    identity = torch.arange(len(order), device=device)
    in_order = torch.equal(order, identity)
    return Plan(slices, rectangles, None if in_order else torch.empty_like(order).index_put((order,), identity))


def _size(ranges: Ranges) -> int:
    return sum(stop - start for start, stop in ranges)


def buckets(pieces: list[tuple[Ranges, Ranges]]) -> list[list[tuple[Ranges, Ranges]]]:
    """Pieces of like size together, so that little of a call is padding."""
    buckets: list[list[tuple[Ranges, Ranges]]] = []
    for piece in sorted(pieces, key=lambda piece: (_size(piece[1]), _size(piece[0])), reverse=True):
        queries, keys = _size(piece[0]), _size(piece[1])
        for bucket in buckets[-4:]:
            most_queries, most_keys = max(_size(p[0]) for p in bucket[:1]), _size(bucket[0][1])
            like = FULL * most_queries <= queries <= most_queries and keys >= FULL * most_keys
            if like and most_queries * most_keys * (len(bucket) + 1) <= 16 * SQUARE and queries * keys <= SQUARE:
                bucket.append(piece)
                break
        else:
            buckets.append([piece])
    return buckets


def _rectangle(layout: Layout, bucket: list[tuple[Ranges, Ranges]], window: int | None) -> Rectangle:
    device = layout.ids.device
    queries, query_mask = padded([piece[0] for piece in bucket], device)
    keys, key_mask = padded([piece[1] for piece in bucket], device)
    mask = visible(layout, queries, keys, window) & key_mask[:, None]
    return Rectangle(queries, keys, mask[:, None], query_mask.flatten().nonzero()[:, 0])


def visible(layout: Layout, queries: Tensor, keys: Tensor, window: int | None = None) -> Tensor:
    """(S, Lq, Lk) bool: who sees whom, for places (S, Lq) and (S, Lk) within groups."""
    near, far = layout.positions[queries][:, :, None], layout.positions[keys][:, None]
    looking, seen = layout.branch[queries][:, :, None], layout.branch[keys][:, None]
    mask = ((seen == 0) | (seen == looking)) & (far <= near)
    return mask & (near - far < window) if window else mask


def padded(pieces: list[Ranges], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """(S, L) places and which of them are no padding; padding repeats the last place, which sees what the piece sees."""
    rows = [[place for start, stop in ranges for place in range(start, stop)] for ranges in pieces]
    width = max(map(len, rows))
    places = torch.tensor([row + row[-1:] * (width - len(row)) for row in rows], device=device)
    mask = torch.arange(width, device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    return places, mask
