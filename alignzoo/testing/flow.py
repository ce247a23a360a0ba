"""Properties of where gradients flow: from all that was written, and not from what the policy learns by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.testing import reshape
from alignzoo.testing.probe import Answer, Text, listening, texts
from alignzoo.testing.subject import Subject, expect


def every_token(subject: Subject) -> None:
    """Completions are learned from their first token to their last, which is EOS."""
    lab = subject.build(still=True)
    written = [c for c in reshape.completions(lab.records) if len(c)]
    scored = {
        text: mask for c in written for text, mask in zip(texts(c), _marks(c.scored & ~c.truncated[:, None], c), strict=True)
    }
    with listening(lab) as answers:
        lab.objective(lab.records)
    for method in ("logprobs", "tokens"):
        learned = [tokens for answer in answers.of("policy", method) for tokens in _learned(answer, scored)]
        for place, name in ((0, "first"), (-1, "last")):
            reached = not learned or any(tokens[place] for tokens in learned)
            cause = "a mask or slice leaves it out: `scored` has it"
            expect(reached, f"a gradient from the {name} token of completions", "none, though from others", cause)


def _learned(answer: Answer, scored: Mapping[Text, list[bool]]) -> list[list[bool]]:
    """Of the completions that are learned from, not cut short and of two tokens or more: whether each scored token is."""
    if (gradient := answer.values.grad) is None:
        return []
    reached = _marks(gradient.reshape(*answer.c.ids.shape, -1).ne(0).any(2) & answer.c.scored, answer.c)
    marks = [_of(text, tokens, scored) for text, tokens in zip(texts(answer.c), reached, strict=True)]
    return [tokens for tokens in marks if len(tokens) > 1 and any(tokens)]


def _of(text: Text, tokens: list[bool], scored: Mapping[Text, list[bool]]) -> list[bool]:
    """The marks of what is scored in the record that begins with `text`, which may be all of it."""
    prompt, ids = text
    masks = (mask for (start, whole), mask in scored.items() if start == prompt and whole[: len(ids)] == ids)
    mask = next(masks, [])
    return [mark for mark, counts in zip_longest(tokens, mask, fillvalue=False) if counts]


def _marks(marks: Tensor, c: Completions) -> list[list[bool]]:
    """Those of the attended tokens, by completion."""
    return [row[mask].tolist() for row, mask in zip(marks, c.attended, strict=True)]


def constants(subject: Subject) -> None:
    """What the policy learns by is a constant to other roles: its term does not train the values that it is weighed by."""
    lab, records = subject.lab, subject.lab.records
    with listening(lab) as answers:
        total = torch.stack([term.sum() for term in lab.terms(records, gradient=True).values()]).sum()
    others = [a for name in subject.algorithm.roles() for a in answers.of(name, "values", "scores") if a.values.requires_grad]
    policy = [a for a in answers.of("policy", "logprobs") if a.values.requires_grad and len(a.c) == len(records)]
    for other in (a for a in others if len(a.c) == len(records)):
        for logprobs in policy:
            curved, slope = (_second(total, x.values, x.values) for x in (other, logprobs))
            mixed = _second(total, other.values, logprobs.values)
            # jointly convex, as in a squared error of both, it is meant; a product of the two is a saddle
            saddle = mixed**2 > (curved * slope).clamp(min=0) + 1e-9
            cause = "values are part of an advantage in `loss`: detach them, or compute it in `experience`"
            expect(not bool(saddle.any()), f"no gradient into {other.role} from the policy's term", "one", cause)


def _second(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(B,): the derivative of `total` by all of a record's `a`, then by all of its `b`."""
    (slope,) = torch.autograd.grad(total, a, create_graph=True, allow_unused=True, materialize_grads=True)
    if not slope.requires_grad:
        return torch.zeros(len(b), dtype=b.dtype)
    (found,) = torch.autograd.grad(slope.sum(), b, retain_graph=True, allow_unused=True, materialize_grads=True)
    return found.flatten(1).sum(1) if found.dim() > 1 else found
