"""What a reward or a metric promises: a finite number a completion, of that completion alone, and nothing else touched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Context, Reward, Scores, learning
from alignzoo.settings import Sampling
from alignzoo.testing import reshape, toys
from alignzoo.testing.expect import Broken, expect, expect_finite, no_draw, untouched
from alignzoo.testing.lab import Lab
from alignzoo.testing.subject import Part, Subject

TOLERANCE = 1e-5
MOST_STEPS = 100  # of the policy, within which a reward that gives lessons has given one
Totals = Callable[[Completions], Tensor]
Scoring = Part[Reward] | Part[Totals]


def scores(part: Part[Reward]) -> None:
    """One finite score a completion, or one a token; parts and validity one a completion."""
    c = made_up(unscored=True)
    result = _reward(part)(c)
    cause = "the total is returned by itself: Scores(total=...)"
    expect(isinstance(result, Scores), "a Scores", type(result).__name__, cause)
    shape, rows, cells = tuple(result.total.shape), (len(c),), tuple(c.ids.shape)
    expect(shape in (rows, cells), f"scores of shape {rows} or {cells}", f"{shape}", "a mean over the batch")
    _finite(result.total)
    for name, values in {**result.parts, "valid": result.usable}.items():
        shape = tuple(values.shape)
        expect(shape == rows, f"{name} of shape {rows}", f"{shape}", "a number a token")


def values(part: Part[Totals]) -> None:
    """One finite number a completion."""
    c = made_up(unscored=True)
    result = part.instance(c)
    expect(isinstance(result, Tensor), "a tensor", type(result).__name__, "a list or a number: return a tensor (B,)")
    shape = tuple(result.shape)
    expect(shape == (len(c),), f"shape {(len(c),)}", f"{shape}", "a mean over the batch: the engine takes it")
    _finite(result)


def alone(part: Scoring) -> None:
    """A completion has alone the score it has among others."""
    c, total = made_up(unscored=True), _totals(part)
    together = total(c)
    cause = "a mean, rank or variance over the batch"
    for row in range(3):
        off = (total(c.take([row]))[0] - together[row]).abs().item()
        expect(off <= TOLERANCE, f"completion {row} to have the same score alone", f"a difference of {off:.1e}", cause)


def padding(part: Scoring) -> None:
    """More padding changes no score."""
    c, total = made_up(unscored=True), _totals(part)
    off = (total(reshape.padded(c)) - total(c)).abs().max().item()
    cause = "a mask is missing: use c.sum or c.mean"
    expect(off <= TOLERANCE, "the same scores when padding is added", f"a change of {off:.1e}", cause)


def short(part: Scoring) -> None:
    """A completion of one token, and one with nothing scored, have finite scores."""
    c, total = made_up(), _totals(part)
    for what, records in {"of one token": reshape.one_token(c), "with nothing scored": c.blank()}.items():
        expect_finite(total(records), f"finite scores of completions {what}", "a division by the length")


def unchanged(part: Scoring) -> None:
    """The completions stay as they were."""
    c, total = made_up(unscored=True), _totals(part)
    with untouched(c, "scoring"):
        total(c)


def repeatable(part: Scoring) -> None:
    """Asked again it says the same, and draws from no global random stream."""
    c, total = made_up(), _totals(part)
    with no_draw("a generator of its own, seeded with context.seed"):
        same = torch.equal(total(c), total(c))
    expect(same, "the same scores when asked again", "others", "randomness, or state that scoring changes")


def learns(part: Part[Reward]) -> None:
    """A reward that learns has a gradient in the roles it trains, none elsewhere, and its state survives a checkpoint."""
    learner = learning(part.instance)
    if learner.teaches():
        _lessons(_beside_a_policy(part))
    elif roles := learner.roles():
        _joint(_beside_a_policy(part), {name for name, role in roles.items() if role.trained})


def _joint(lab: Lab, trained: set[str]) -> None:
    gradients = lab.objective(lab.records).gradients
    for name in trained:
        reached = gradients[name].any() and gradients[name].isfinite().all()
        expect(reached, f"a finite gradient in {name}", "none, or NaN", "`loss` does not use it")
    wrong = [name for name in gradients if name not in {*trained, "policy"} and gradients[name].any()]
    expect(not wrong, "no gradient in roles of others", ", ".join(wrong), "`loss` uses them without declaring them")


def _lessons(lab: Lab) -> None:
    """Its lessons move the networks that they are for, and leave the policy as it is."""
    records, trainer = lab.records, lab.trainer  # sampled first, for the lab then moves the policy
    lessons = trainer.lessons
    assert lessons is not None
    before, policy = copy.deepcopy(lessons.modules), [p.detach().clone() for p in trainer.trained.parameters()]
    trainer.rollout_done(records)
    for step in range(1, MOST_STEPS + 1):
        if not lessons.updates:
            lessons.after(step)
    expect(lessons.updates > 0, f"a lesson within {MOST_STEPS} steps of the policy", "none", "`observe` keeps nothing")
    for name, module in lessons.modules.items():
        moved = any(not torch.equal(a, b) for a, b in zip(module.parameters(), before[name].parameters(), strict=True))
        expect(moved, f"lessons that move {name}", "it stays as it was", "`loss` does not use it")
    still = all(torch.equal(a, b) for a, b in zip(trainer.trained.parameters(), policy, strict=True))
    expect(still, "lessons that leave the policy alone", "it moved", "`loss` uses it with gradient")


def state(part: Part[Reward]) -> None:
    """What `state_dict` gives can be saved, and restores."""
    from alignzoo.engine import records

    reward, restored = _reward(part), part.fresh()
    part.folder.mkdir(parents=True, exist_ok=True)
    records.save(reward.state_dict(), part.folder / "state")
    restored.load_state_dict(records.load(part.folder / "state"))
    before, after = str(reward.state_dict()), str(restored.state_dict())
    expect(before == after, f"the state {before} after loading", after, "`load_state_dict` leaves something out")


def made_up(unscored: bool = False) -> Completions:
    """Completions of the lab's words, over prompts that have others to compare with in the columns `reference`, `references`
    and `answer`."""
    c, first, second = (toys.completions(range(8), unscored=unscored, salt=salt) for salt in range(3))
    pairs = [list(pair) for pair in zip(first.text, second.text, strict=True)]
    columns: dict[str, list[Any]] = {"reference": first.text, "references": pairs, "answer": first.text}
    return replace(c, prompts=replace(c.prompts, columns=columns))


def context(folder: Path) -> Context:
    """As a run sets it up, before models are built."""
    from alignzoo.models.tokenizers import byte_level

    return Context(tokenizer=byte_level(), seed=0, sampling=Sampling(), context_length=128, cache=folder)


def _beside_a_policy(part: Part[Reward]) -> Lab:
    """A run of an algorithm that samples, with this reward; the task's own is the judge that labels."""
    return Subject("learning", toys.ToyReinforce(), part.folder).build(reward=part.fresh(), gold=toys.CountReward())


def _reward(part: Part[Reward]) -> Reward:
    reward = part.fresh().resolve(toys.ToySource())
    if reward is None:
        raise Broken("a reward", "none", "`resolve` returned None: there is nothing to check")
    if learning(reward).roles() or learning(reward).teaches():
        reward = _beside_a_policy(part).trainer.reward
        assert reward is not None
    else:
        reward.setup(context(part.folder))
    return reward


def _totals(part: Scoring) -> Totals:
    """(B,) of a reward or metric."""
    if not isinstance(part.instance, Reward):
        metric = part.instance
        return lambda c: metric(c).double()
    reward = _reward(part)

    def total(c: Completions) -> Tensor:
        scores = reward(replace(c)).total
        return (scores if scores.dim() == 1 else c.sum(scores)).detach().double()

    return total


def _finite(x: Tensor) -> None:
    expect_finite(x, "finite numbers", "a division by 0: give valid=False where no score can be had")


METRIC_CHECKS = (values, alone, padding, short, unchanged, repeatable)
CHECKS = (scores, alone, padding, short, unchanged, repeatable, learns, state)
