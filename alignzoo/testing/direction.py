"""Properties of where a loss leads: towards what it is given as better, and by which comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.contracts import Kind, Scores
from alignzoo.functional import forward_kl
from alignzoo.testing.lab import Lab, distance
from alignzoo.testing.subject import Subject, expect

WRONG = "the sign of the loss is wrong, or its gradient is that of something else (log-probs meant as constants not detached?)"


def direction(subject: Subject) -> None:
    """A step makes what is better likelier: chosen over rejected, higher over lower ratings and rewards, the demonstrated, the
    teacher's."""
    lab = subject.build(still=True)
    gradient, aim = _rewarded(lab) if _asks_reward(subject) else _recorded(lab)
    if aim is None:
        return
    lab.trainer.trained.zero_grad()
    aim.backward()
    wanted = torch.cat([_flat(p) for p in lab.trainer.trained.main.parameters()])
    along = -(gradient @ wanted / (gradient.norm() * wanted.norm()).clamp(min=1e-12)).item()
    expect(along > 1e-3, "a step towards what is better", f"a cosine of {along:.3f} with it", WRONG)


def groups(subject: Subject) -> None:
    """Where completions of a prompt are compared, a bonus to all those of one prompt changes nothing."""
    algorithm: Any = subject.algorithm
    if not (subject.online and _asks_reward(subject) and algorithm.least_samples() > 1):
        return
    lab = subject.build(still=True)
    found = []
    for bonus in (0.0, 3.0):
        _plant(lab, lambda c, b=bonus: c.sum((c.ids < 8).float()) + b * (c.row % 2))
        found.append(lab.objective(lab.rollout(lab.inputs())).gradient)
    off = distance(*found)
    cause = "an advantage is computed across groups: compare completions by `prompt_of`"
    expect(off < 1e-5, "the same gradient when one prompt's rewards all rise", f"a relative change of {off:.1e}", cause)


def _asks_reward(subject: Subject) -> bool:
    return subject.online and any(role.kind is Kind.REWARD for role in subject.algorithm.roles().values())


def _rewarded(lab: Lab) -> tuple[Tensor, Tensor | None]:
    """Completions of a prompt are scored 1 and -1 in turn, then the other way round; the change of the gradient, which is
    the rewards' alone, and the aim: the log-probs, weighed by the scores."""
    found, seen = [], list[tuple[Completions, Tensor]]()
    for sign in (1.0, -1.0):
        seen.clear()

        def score(c: Completions, sign: float = sign) -> Tensor:
            place = torch.tensor([int((c.prompt_of[:i] == p).sum()) for i, p in enumerate(c.prompt_of)])
            compared = c.prompt_of.bincount()[c.prompt_of].cpu() > 1
            signs = torch.where(compared, sign - 2 * sign * (place % 2), 0.0).to(c.ids.device)
            seen.append((c, signs))
            return signs

        _plant(lab, score)
        found.append(lab.objective(lab.rollout(lab.inputs())).gradients["policy"])
    policy = lab.trainer.roles.policy
    aim = torch.stack([(-signs * c.sum(policy.logprobs(c))).sum() for c, signs in seen]).sum()
    return found[0] - found[1], aim


def _recorded(lab: Lab) -> tuple[Tensor, Tensor | None]:
    return lab.objective(lab.records).gradients[lab.main], _given(lab, lab.records)


def _given(lab: Lab, records: Any) -> Tensor | None:
    """What makes records better, of the standard ones; None where that can't be told."""
    roles = lab.trainer.roles
    if isinstance(records, Prompts):
        return None
    if "teacher" in roles.networks:
        return -roles.policy.tokens(records, forward_kl, beside=[roles.teacher]).sum()
    worth = getattr(roles, lab.main).scores if lab.main != "policy" else lambda c: c.sum(roles.policy.logprobs(c))
    if isinstance(records, Pairs):
        chosen, rejected = (worth(side) for side in (records.chosen, records.rejected))
        return (chosen - rejected).sum()
    if not isinstance(records, Completions):
        return None
    likelihood = worth(records)
    if isinstance(records, Rated | Rankings):
        merit = records.rating if isinstance(records, Rated) else -records.rank.float()
        return ((merit - merit.mean()) * likelihood).sum()
    return likelihood.sum()


def _plant(lab: Lab, score: Any) -> None:
    """Another reward, from here on."""
    lab.trainer.roles.score = lambda c: Scores(total=score(c), valid=torch.ones(len(c), dtype=torch.bool, device=c.ids.device))
    lab.trainer.views = lab.trainer.make_views()


def _flat(p: Tensor) -> Tensor:
    return (torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten()
