"""The property of what ties a policy to its reference."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.testing.direction import merit
from alignzoo.testing.lab import Objective
from alignzoo.testing.probe import Signs, Text, listening, references, texts
from alignzoo.testing.subject import Subject, expect

NATS = 10.0  # enough for a hinge to turn


def reference(subject: Subject) -> None:
    """Completions are compared with their own log-probs under the reference, and a KL draws the policy to it."""
    if not references(subject.algorithm.roles()):
        return
    lab, signs = subject.build(still=True), Signs()
    better = None if lab.online else merit(lab.records)
    known = dict(zip(texts(better[0]), better[1].sign().tolist(), strict=True)) if better else None

    def likelier(c: Completions) -> Tensor:
        return signs(c) if known is None else torch.tensor([known.get(text, 0.0) for text in texts(c)])

    found = list[tuple[Objective, dict[Text, float]]]()
    for nats in (NATS, 0.0, -NATS):
        with listening(lab, lambda c, nats=nats: nats * likelier(c)) as answers:
            records = lab.rollout(lab.inputs()) if lab.online else lab.records
            found.append((lab.objective(records), answers.pulls()))
    (up, pulls), _, (down, opposite) = found
    if all(x.shape == down.terms[n].shape and torch.equal(x, down.terms[n]) for n, x in up.terms.items()):
        return  # the loss does not look at its log-probs
    moves = [abs(other.get(text, 0.0) - pull) for _, other in found[1:] for text, pull in pulls.items()]
    cause = "k1 in the loss, whose gradient does not know the reference: subtract it from the reward, or use k2 or k3"
    learned = not moves or max(moves) > 1e-9
    expect(learned, "a gradient that depends on the reference as the loss does", "one that does not", cause)
    if lab.online:
        along = sum((pull - opposite.get(text, 0.0)) * signs.by_text.get(text, 0.0) for text, pull in pulls.items())
        cause = "the KL has the wrong sign: reward - beta * (log pi - log ref)"
        expect(along <= 0, "what the reference finds likelier to be made likelier", "the opposite", cause)
    elif known is not None:
        rise = up.value - down.value
        cause = "the log-probs are those of the other side, or have the wrong sign"
        expect(rise > 0, "a higher loss where the reference finds what is better likelier", f"a change of {rise:.1e}", cause)
