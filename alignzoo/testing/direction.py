"""Properties of where a loss leads: towards what it is given as better, and by which comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Rankings, Rated, Triples
from alignzoo.contracts import Kind, OnlineAlgorithm
from alignzoo.functional import forward_kl
from alignzoo.testing.expect import expect
from alignzoo.testing.lab import Lab, Minimised, distance, flat_gradient
from alignzoo.testing.probe import Signs, Text, listening, plant, references, texts
from alignzoo.testing.subject import Subject

WRONG = "the sign of the loss is wrong, or its gradient is that of something else (log-probs meant as constants not detached?)"
NATS = 10.0  # enough for a hinge to turn


def direction(subject: Subject) -> None:
    """A step makes what is better likelier: chosen over rejected, higher over lower ratings and rewards, the demonstrated, the
    teacher's; or the opposite, where `leads_away` says why."""
    lab = subject.build(still=True)
    if lab.trainer.evaluator.models.networks[lab.main] is not lab.trainer.roles.networks[lab.main]:
        rise = _rise_of_what_is_written(lab)
        expect(rise is None or rise > 0, "a step by which what evaluation writes is better", f"a change of {rise}", WRONG)
        return
    gradient, aim = _rewarded(lab) if _asks_reward(subject) else _recorded(lab)
    if aim is None:
        return
    lab.trainer.trained.zero_grad()
    aim.backward()
    wanted = flat_gradient(lab.trainer.trained.main.parameters())
    along = -(gradient @ wanted / (gradient.norm() * wanted.norm()).clamp(min=1e-12)).item()
    if subject.algorithm.leads_away:
        expect(along < -1e-3, "a step away from what is better", f"a cosine of {along:.3f} with it", "`leads_away` is not true")
        return
    expect(along > 1e-3, "a step towards what is better", f"a cosine of {along:.3f} with it", WRONG)


def each_reward(subject: Subject) -> None:
    """Each completion is made likelier by its own reward, however long it is."""
    if not _asks_reward(subject):
        return
    lab, seen = subject.build(still=True), Counter[Text]()
    with listening(lab) as answers:
        lab.rollout()
    for answer in answers.heard:
        seen.update(texts(answer.c) if answer.method == "generate" else [])
    once = {len(written): (prompt, written) for (prompt, written), times in seen.items() if times == 1}
    cause = "the reward does not stand on the last scored token: use `c.at_last`; or it is another completion's"
    for length, text in once.items():  # one of each length; what is there twice may be its own baseline
        up, down = (_pulls(lab, text, reward) for reward in (1.0, -1.0))
        rise = down.get(text, 0.0) - up.get(text, 0.0)
        right = rise > 0 or text not in up | down or (rise == 0 and bool(subject.algorithm.leaves_out))
        expect(right, f"a completion of {length} tokens made likelier by its reward", f"a change of {rise:.1e}", cause)


def _pulls(lab: Lab, text: Text, reward: float) -> dict[Text, float]:
    """The gradients by the log-probs of completions, where that of `text` alone has a reward."""
    plant(lab, lambda c: torch.tensor([reward if text == written else 0.0 for written in texts(c)], device=c.ids.device))
    records = lab.rollout()
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
    return lab.objective(lab.rollout()).gradient


def groups(subject: Subject) -> None:
    """Where completions of a prompt are compared, a bonus to all those of one prompt, or a factor, changes nothing."""
    algorithm = subject.algorithm
    if not (isinstance(algorithm, OnlineAlgorithm) and _asks_reward(subject) and algorithm.least_samples() > 1):
        return
    lab = subject.build(still=True)
    gradients = []
    for bonus, factor in ((0.0, 1.0), (3.0, 1.0), (0.0, 3.0)):

        def score(c: Completions, bonus: float = bonus, factor: float = factor) -> Tensor:
            return c.sum((c.ids < 6).float()) * torch.where(c.row % 2 == 1, factor, 1.0) + bonus * (c.row % 2)

        plant(lab, score)
        gradients.append(lab.objective(lab.rollout()).gradient)
    off = min(distance(gradients[0], changed) for changed in gradients[1:])
    cause = "an advantage is computed across groups: compare completions by `prompt_of`"
    expect(off < 1e-5, "the same gradient when one prompt's rewards all rise", f"a relative change of {off:.1e}", cause)


def reference(subject: Subject) -> None:
    """Completions are compared with their own log-probs under the reference, and a KL draws the policy to it."""
    if not references(subject.algorithm.roles()):
        return
    lab, signs = subject.build(still=True), Signs()
    better = None if lab.online else _merit(lab.records)
    recorded = dict(zip(texts(better[0]), better[1].sign().tolist(), strict=True)) if better else None

    def likelier(nats: float, c: Completions) -> Tensor:
        return nats * (signs(c) if recorded is None else torch.tensor([recorded.get(text, 0.0) for text in texts(c)]))

    outcomes = list[tuple[Minimised, dict[Text, float]]]()
    for nats in (NATS, 0.0, -NATS):
        with listening(lab, partial(likelier, nats)) as answers:
            outcomes.append((lab.objective(lab.rollout() if lab.online else lab.records), answers.pulls()))
    (up, pulls), (_, plain), (down, opposite) = outcomes
    if all(x.shape == down.terms[n].shape and torch.equal(x, down.terms[n]) for n, x in up.terms.items()):
        return  # the loss does not look at its log-probs
    moves = [abs(unlike.get(text, 0.0) - pull) for unlike in (plain, opposite) for text, pull in pulls.items()]
    cause = "k1 in the loss, whose gradient does not know the reference: subtract it from the reward, or use k2 or k3"
    learned = not moves or max(moves) > 1e-9
    expect(learned, "a gradient that depends on the reference as the loss does", "one that does not", cause)
    if lab.online:
        along = sum((pull - opposite.get(text, 0.0)) * signs.by_text.get(text, 0.0) for text, pull in pulls.items())
        cause = "the KL has the wrong sign: reward - beta * (log pi - log ref)"
        expect(along <= 0, "what the reference finds likelier to be made likelier", "the opposite", cause)
    elif recorded is not None:
        rise = up.value - down.value
        cause = "the log-probs are those of the other side, or have the wrong sign"
        expect(rise > 0, "a higher loss where the reference finds what is better likelier", f"a change of {rise:.1e}", cause)


def _merit(records: Batch) -> tuple[Completions, Tensor] | None:
    """Completions, and how much better than their mean the records say each is, (B,); None where they don't say."""
    if isinstance(records, Triples):
        three = records.three
        return three, torch.ones(len(three), device=three.ids.device).where(torch.arange(len(three)) // len(records) != 1, -1.0)
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
    gradients, signs, seen = [], Signs(), list[Completions]()
    for sign in (1.0, -1.0):
        seen.clear()

        def score(c: Completions, sign: float = sign) -> Tensor:
            seen.append(c)
            return sign * signs(c)

        plant(lab, score)
        gradients.append(lab.objective(lab.rollout()).gradients["policy"])
    policy = lab.trainer.roles.policy
    return gradients[0] - gradients[1], torch.stack([(signs(c) * c.sum(policy.logprobs(c))).sum() for c in seen]).sum()


def _recorded(lab: Lab) -> tuple[Tensor, Tensor | None]:
    """The gradient of the data's records, and what makes them better; None where that can't be told."""
    records, roles = lab.records, lab.trainer.roles
    gradient = _own_gradients(lab)[lab.main]
    teacher = lab.setup.algorithm.roles().get("teacher")
    if teacher is not None and teacher.start != "config":
        return gradient, None  # it teaches by what it is shown, which is not known here
    if isinstance(records, Completions) and teacher is not None:
        return gradient, -roles.policy.tokens(records, forward_kl, beside=[roles.teacher]).sum()
    if "comparisons" in lab.setup.algorithm.roles()[lab.main].needs and isinstance(records, Pairs):
        return gradient, getattr(roles, lab.main).comparisons(records.chosen, records.rejected).sum()
    worth = getattr(roles, lab.main).scores if lab.main != "policy" else lambda c: c.sum(roles.policy.logprobs(c))
    if (better := _merit(records)) is not None:
        return gradient, (better[1] * worth(better[0])).sum()
    return gradient, worth(records).sum() if isinstance(records, Completions) else None


def _own_gradients(lab: Lab) -> dict[str, Tensor]:
    """By role; of ratings, what they ask for when they are not turned round: a higher mean, which all alike ask for, is no part
    of it."""
    records = lab.records
    gradients = lab.objective(records).gradients
    if isinstance(records, Rated):
        turned = replace(records, rating=records.rating.max() + records.rating.min() - records.rating)
        against = lab.objective(turned).gradients
        gradients = {name: gradient - against[name] for name, gradient in gradients.items()}
    return gradients


@torch.no_grad()
def _rise_of_what_is_written(lab: Lab) -> float | None:
    """By how much one step, after which followers follow, raises the log-probs of what is better under the policy that
    evaluation sees, where that is not the trained one; None where the records don't say what is better."""
    policy, better = lab.trainer.evaluator.models.policy, _merit(lab.records)
    if better is None:
        return None
    c, worth = better
    with torch.enable_grad():
        gradients = _own_gradients(lab)
    before = (worth * c.sum(policy.logprobs(c))).sum()
    for name, module in lab.trainer.trained.roles.items():
        start = torch.nn.utils.parameters_to_vector(module.parameters())
        torch.nn.utils.vector_to_parameters(start - 1e-3 * gradients[name], module.parameters())
    lab.trainer._follow()
    return float((worth * c.sum(policy.logprobs(c))).sum() - before)


ONLINE_CHECKS = (each_reward, failed_scores, groups)
