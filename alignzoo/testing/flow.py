"""Properties of where gradients flow: from all that was written, and not from what the policy learns by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.testing import reshape
from alignzoo.testing.expect import expect
from alignzoo.testing.probe import Answer, Text, listening, texts
from alignzoo.testing.subject import Subject


def every_token(subject: Subject) -> None:
    """Completions are learned from their first token to their last, which is EOS; or not, where `leaves_out` says why."""
    lab = subject.build(still=True)
    written = [c for c in reshape.completions(lab.records) if len(c)]
    scored = {text: mask for c in written for text, mask in _marks(c.scored & ~c.truncated[:, None], c)}
    with listening(lab) as answers:
        lab.objective(lab.records)
    cause = "a mask or slice leaves it out: `scored` has it"
    for method in ("logprobs", "tokens"):
        learned = [tokens for answer in answers.of("policy", method) for tokens in _learned(answer, scored)]
        if learned and subject.algorithm.leaves_out:
            left = sum(map(len, learned)) - sum(map(sum, learned))
            expect(left > 0, "tokens without a gradient", "one from all", "`leaves_out` is not true")
            continue
        for place, name in ((0, "first"), (-1, "last")):
            reached = not learned or any(tokens[place] for tokens in learned)
            expect(reached, f"a gradient from the {name} token of completions", "none, though from others", cause)


def _learned(answer: Answer, scored: Mapping[Text, list[bool]]) -> list[list[bool]]:
    """Of the completions that are learned from, not cut short and of two tokens or more: whether each scored token is."""
    if (gradient := answer.values.grad) is None:
        return []
    reached = gradient.reshape(*answer.c.ids.shape, -1).ne(0).any(2) & answer.c.scored
    marks = []
    for (prompt, ids), tokens in _marks(reached, answer.c):
        # the record that begins with these tokens, which may be all of it
        masks = (mask for (start, whole), mask in scored.items() if start == prompt and whole[: len(ids)] == ids)
        marks.append([mark for mark, counts in zip_longest(tokens, next(masks, []), fillvalue=False) if counts])
    return [tokens for tokens in marks if len(tokens) > 1 and any(tokens)]


def _marks(marks: Tensor, c: Completions) -> list[tuple[Text, list[bool]]]:
    """Those of the attended tokens, by completion."""
    return [(text, row[mask].tolist()) for text, row, mask in zip(texts(c), marks, c.attended, strict=True)]


def constants(subject: Subject) -> None:
    """What the policy learns by is a constant to other roles: its term does not train the values that it is weighed by."""
    lab, records = subject.lab, subject.lab.records
    with listening(lab) as answers:
        total = torch.stack([term.sum() for term in lab.terms(records, gradient=True).values()]).sum()
    heard = [a for a in answers.heard if a.values.requires_grad and len(a.c) == len(records)]
    policy = [a for a in heard if a.role == "policy" and a.method == "logprobs"]
    cause = "values are part of an advantage in `loss`: detach them, or compute it in `experience`"
    for values in (a for a in heard if a.method in ("values", "scores")):
        for logprobs in policy:
            curved, slope = (_second(total, x.values, x.values) for x in (values, logprobs))
            mixed = _second(total, values.values, logprobs.values)
            # jointly convex, as in a squared error of both, it is meant; a product of the two is a saddle
            saddle = mixed**2 > (curved * slope).clamp(min=0) + 1e-9
            expect(not saddle.any(), f"no gradient into {values.role} from the policy's term", "one", cause)


def _second(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(B,): the derivative of `total` by all of a record's `a`, then by all of its `b`."""
    (slope,) = torch.autograd.grad(total, a, create_graph=True, allow_unused=True, materialize_grads=True)
    if not slope.requires_grad:
        return torch.zeros(len(b), dtype=b.dtype)
    (curvature,) = torch.autograd.grad(slope.sum(), b, retain_graph=True, allow_unused=True, materialize_grads=True)
    return curvature.flatten(1).sum(1) if curvature.dim() > 1 else curvature


CHECKS = (every_token, constants)
