"""Completions under prompts they were not written for: what KTO's reference point is estimated from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions
from alignzoo.contracts import Models
from alignzoo.functional import mismatches


def mismatched(own: Completions, models: Models) -> Completions:
    """Each record's prompt with the completion of another prompt, by `functional.mismatches` over the records of all ranks in
    the order of their rows.

    So the outcome depends neither on micro-batches nor on ranks. Tokens before the completion that the policy did not write
    stay with their prompt. Records without a scored token give none. A record that is alone keeps its own completion.
    """
    ids, scored, row, prompt = _everybody(own, models)
    order = row.argsort(stable=True)
    order = order[scored[order].any(1)]
    if not len(order):
        return own
    source = order[mismatches(prompt[order].unique(dim=0, return_inverse=True)[1])]
    donor = source[torch.searchsorted(row[order], own.row).clamp(max=len(order) - 1)]
    given = [_before(i, s) for i, s in zip(own.ids, own.scored, strict=True)]
    written = [i[s] for i, s in zip(ids[donor], scored[donor], strict=True)]
    joined = [torch.cat(parts) for parts in zip(given, written, strict=True)]
    marks = [torch.cat([torch.zeros_like(g), torch.ones_like(w)]) for g, w in zip(given, written, strict=True)]
    attended = pad_sequence([torch.ones_like(tokens) for tokens in joined], batch_first=True).bool()
    return Completions(
        prompts=own.prompts, prompt_of=own.prompt_of, ids=pad_sequence(joined, batch_first=True), attended=attended,
        scored=pad_sequence(marks, batch_first=True).bool(), truncated=torch.zeros_like(own.truncated), row=own.row,
    )  # fmt: skip


def _everybody(own: Completions, models: Models) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, marks, rows and prompts of all ranks' records; a prompt is its tokens, with -1 before them."""
    prompt = torch.where(own.prompts.attended, own.prompts.ids, -1)[own.prompt_of]
    width = torch.tensor([[own.ids.shape[1], prompt.shape[1]]], device=own.ids.device)
    right, left = (models.gather(width).amax(0) - width[0]).tolist()
    padded = F.pad(own.ids, (0, right)), F.pad(own.scored, (0, right)), own.row, F.pad(prompt, (left, 0), value=-1)
    ids, scored, row, prompt = (models.gather(x) for x in padded)
    return ids, scored, row, prompt


def _before(ids: Tensor, scored: Tensor) -> Tensor:
    """The tokens before the first scored one."""
    return ids[: int(scored.long().argmax())]
