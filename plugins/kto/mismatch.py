"""Completions under prompts they were not written for: what KTO's reference point is estimated from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions
from alignzoo.contracts import Models
from alignzoo.functional import mismatches


def mismatched(c: Completions, models: Models, choose: Callable[[Tensor], Tensor] = mismatches) -> Completions:
    """Each record's prompt with another completion, by `choose` (prompts (N,) -> indices (N,)) over the records of all ranks
    in the order of their rows.

    So the outcome depends neither on micro-batches nor on ranks. Tokens before the completion that the policy did not write
    stay with their prompt. Records without a scored token give none. A record that is alone keeps its own completion.
    """
    ids, scored, row, prompt = _everybody(c, models)
    order = row.argsort(stable=True)
    order = order[scored[order].any(1)]
    if not len(order):
        return c
    source = order[choose(prompt[order].unique(dim=0, return_inverse=True)[1])]
    donor = source[torch.searchsorted(row[order], c.row).clamp(max=len(order) - 1)]
    before = [_before(i, s) for i, s in zip(c.ids, c.scored, strict=True)]
    written = [i[s] for i, s in zip(ids[donor], scored[donor], strict=True)]
    joined = [torch.cat(parts) for parts in zip(before, written, strict=True)]
    marks = [torch.cat([torch.zeros_like(g), torch.ones_like(w)]) for g, w in zip(before, written, strict=True)]
    attended = pad_sequence([torch.ones_like(tokens) for tokens in joined], batch_first=True).bool()
    return Completions(
        prompts=c.prompts, prompt_of=c.prompt_of, ids=pad_sequence(joined, batch_first=True), attended=attended,
        scored=pad_sequence(marks, batch_first=True).bool(), truncated=torch.zeros_like(c.truncated), row=c.row,
    )  # fmt: skip


def places(c: Completions, models: Models) -> tuple[Tensor, int]:
    """(B,) where each record stands among all ranks' that have a scored token, in the order of their rows; and their number."""
    rows = models.gather(c.row[c.scored.any(1)]).sort().values
    return torch.searchsorted(rows, c.row).clamp(max=max(len(rows) - 1, 0)), max(len(rows), 1)


def in_parts(ratio: Callable[[Models, Completions], Tensor], models: Models, c: Completions, at_once: int) -> Tensor:
    """`ratio` (B,) of records that are read `at_once` at a time."""
    rows = torch.arange(len(c), device=c.ids.device).split(at_once)
    return torch.cat([ratio(models, c.take(part)) for part in rows])


def _everybody(c: Completions, models: Models) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, marks, rows and prompts of all ranks' records; a prompt is its tokens, with -1 before them."""
    prompt = torch.where(c.prompts.attended, c.prompts.ids, -1)[c.prompt_of]
    width = torch.tensor([[c.ids.shape[1], prompt.shape[1]]], device=c.ids.device)
    right, left = (models.gather(width).amax(0) - width[0]).tolist()
    padded = F.pad(c.ids, (0, right)), F.pad(c.scored, (0, right)), c.row, F.pad(prompt, (left, 0), value=-1)
    ids, scored, row, prompt = (models.gather(x) for x in padded)
    return ids, scored, row, prompt


def _before(ids: Tensor, scored: Tensor) -> Tensor:
    """The tokens before the first scored one."""
    return ids[: int(scored.long().argmax())]
