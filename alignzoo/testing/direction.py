"""Properties of where a loss leads: towards what it is given as better, and by which comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.contracts import Kind
from alignzoo.functional import forward_kl
from alignzoo.testing.lab import Lab, distance
from alignzoo.testing.probe import Signs, Text, listening, plant, texts
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


def each_reward(subject: Subject) -> None:
    """Each completion is made likelier by its own reward, however long it is."""
    if not _asks_reward(subject):
        return
    lab, seen = subject.build(still=True), Counter[Text]()
    with listening(lab) as answers:
        lab.rollout(lab.inputs())
    for answer in answers.heard:
        seen.update(texts(answer.c) if answer.method == "generate" else [])
    once = {len(written): (prompt, written) for (prompt, written), times in seen.items() if times == 1}
    for length, text in once.items():  # one of each length; what is there twice may be its own baseline
        up, down = (_pulls(lab, text, number) for number in (1.0, -1.0))
        rise = down.get(text, 0.0) - up.get(text, 0.0)
        cause = "the reward does not stand on the last scored token: use `c.at_last`; or it is another completion's"
        found = f"a change of {rise:.1e}"
        expect(rise > 0 or text not in up | down, f"a completion of {length} tokens made likelier by its reward", found, cause)


def _pulls(lab: Lab, text: Text, reward: float) -> dict[Text, float]:
    """The gradients by the log-probs of completions, where that of `text` alone has a reward."""
    plant(lab, lambda c: torch.tensor([reward if text == other else 0.0 for other in texts(c)], device=c.ids.device))
    records = lab.rollout(lab.inputs())
    with listening(lab) as answers:
        lab.objective(records)
    return answers.pulls()


def failed_scores(subject: Subject) -> None:
    """Where a score is not valid, the number that stands there changes nothing."""
    if not _asks_reward(subject):
        return
    lab = subject.build(still=True)
    off = distance(*(_with_a_failure(lab, number) for number in (0.0, 50.0)))
    cause = "`scores.usable` is not looked at: leave those records out, of baselines too, as in `.take(scores.usable)`"
    expect(off < 1e-5, "the same gradient whatever number a failed score holds", f"a relative change of {off:.1e}", cause)


def _with_a_failure(lab: Lab, number: float) -> Tensor:
    """The gradient where the first completion that is scored has `number` for a score that failed."""
    signs, failed = Signs(), list[Text]()

    def usable(c: Completions) -> Tensor:
        failed.extend([] if failed else texts(c)[:1])
        return torch.tensor([text not in failed for text in texts(c)], device=c.ids.device)

    plant(lab, lambda c: torch.where(usable(c), signs(c), number), usable)
    return lab.objective(lab.rollout(lab.inputs())).gradient


def groups(subject: Subject) -> None:
    """Where completions of a prompt are compared, a bonus to all those of one prompt changes nothing."""
    algorithm: Any = subject.algorithm
    if not (subject.online and _asks_reward(subject) and algorithm.least_samples() > 1):
        return
    lab = subject.build(still=True)
    found = []
    for bonus in (0.0, 3.0):
        plant(lab, lambda c, b=bonus: c.sum((c.ids < 6).float()) + b * (c.row % 2))
        found.append(lab.objective(lab.rollout(lab.inputs())).gradient)
    off = distance(*found)
    cause = "an advantage is computed across groups: compare completions by `prompt_of`"
    expect(off < 1e-5, "the same gradient when one prompt's rewards all rise", f"a relative change of {off:.1e}", cause)


def merit(records: Any) -> tuple[Completions, Tensor] | None:
    """Completions, and how much better than their mean the records say each is, (B,); None where they don't say."""
    if isinstance(records, Pairs):
        both = records.both
        return both, torch.ones(len(both), device=both.ids.device).where(torch.arange(len(both)) < len(records), -1.0)
    if isinstance(records, Rated | Rankings):
        worth = records.rating if isinstance(records, Rated) else -records.rank.float()
        return records, worth - worth.mean()
    return None


def _asks_reward(subject: Subject) -> bool:
    return subject.online and any(role.kind is Kind.REWARD for role in subject.algorithm.roles().values())


def _rewarded(lab: Lab) -> tuple[Tensor, Tensor | None]:
    """Completions of a prompt are scored 1 and -1 in turn, then the other way round; the change of the gradient, which is
    the rewards' alone, and the aim: the log-probs, weighed by the scores."""
    found, signs, seen = [], Signs(), list[Completions]()
    for sign in (1.0, -1.0):
        seen.clear()

        def score(c: Completions, sign: float = sign) -> Tensor:
            seen.append(c)
            return sign * signs(c)

        plant(lab, score)
        found.append(lab.objective(lab.rollout(lab.inputs())).gradients["policy"])
    policy = lab.trainer.roles.policy
    return found[0] - found[1], torch.stack([(signs(c) * c.sum(policy.logprobs(c))).sum() for c in seen]).sum()


def _recorded(lab: Lab) -> tuple[Tensor, Tensor | None]:
    records = lab.records
    gradient = lab.objective(records).gradients[lab.main]
    if isinstance(records, Rated):  # what all ratings alike ask for, such as a higher mean, is no part of it
        turned = replace(records, rating=records.rating.max() + records.rating.min() - records.rating)
        gradient = gradient - lab.objective(turned).gradients[lab.main]
    return gradient, _aim(lab, records)


def _aim(lab: Lab, records: Any) -> Tensor | None:
    """What makes records better, of the standard ones; None where that can't be told."""
    roles = lab.trainer.roles
    if isinstance(records, Prompts):
        return None
    if "teacher" in roles.networks:
        return -roles.policy.tokens(records, forward_kl, beside=[roles.teacher]).sum()
    worth = getattr(roles, lab.main).scores if lab.main != "policy" else lambda c: c.sum(roles.policy.logprobs(c))
    if (better := merit(records)) is not None:
        completions, signs = better
        return (signs * worth(completions)).sum()
    return worth(records).sum() if isinstance(records, Completions) else None


def _flat(p: Tensor) -> Tensor:
    return (torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten()
