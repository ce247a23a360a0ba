"""What a reward or a metric promises: a finite number a completion, of that completion alone, and nothing else touched."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Context, Kind, OnlineAlgorithm, Role, Scores
from alignzoo.settings import Sampling
from alignzoo.testing import reshape, toys
from alignzoo.testing.part import Part
from alignzoo.testing.subject import Broken, Subject, expect

TOLERANCE = 1e-5
MOST_STEPS = 100  # of the policy, within which a reward that gives lessons has given one
Totals = Callable[[Completions], Tensor]


def scores(part: Part) -> None:
    """One finite score a completion, or one a token; parts and validity one a completion."""
    c = part.records(unscored=True)
    made = _reward(part)(c)
    expect(isinstance(made, Scores), "a Scores", type(made).__name__, "the total is returned by itself: Scores(total=...)")
    shapes = ((len(c),), tuple(c.ids.shape))
    expect(
        tuple(made.total.shape) in shapes,
        f"scores of shape {shapes[0]} or {shapes[1]}",
        f"{tuple(made.total.shape)}",
        "a mean over the batch",
    )
    _finite(made.total)
    for name, values in {**made.parts, "valid": made.usable}.items():
        expect(tuple(values.shape) == shapes[0], f"{name} of shape {shapes[0]}", f"{tuple(values.shape)}", "a number a token")


def values(part: Part) -> None:
    """One finite number a completion."""
    c = part.records(unscored=True)
    made = part.made(c)
    expect(isinstance(made, Tensor), "a tensor", type(made).__name__, "a list or a number: return a tensor (B,)")
    expect(
        tuple(made.shape) == (len(c),),
        f"shape {(len(c),)}",
        f"{tuple(made.shape)}",
        "a mean over the batch: the engine takes it",
    )
    _finite(made)


def alone(part: Part) -> None:
    """A completion has alone the score it has among others."""
    c, total = part.records(unscored=True), _totals(part)
    together = total(c)
    for row in range(3):
        off = (total(c.take([row]))[0] - together[row]).abs().item()
        cause = "a mean, rank or variance over the batch"
        expect(off <= TOLERANCE, f"completion {row} to have the same score alone", f"a difference of {off:.1e}", cause)


def padding(part: Part) -> None:
    """More padding changes no score."""
    c, total = part.records(unscored=True), _totals(part)
    off = (total(reshape.padded(c)) - total(c)).abs().max().item()
    expect(
        off <= TOLERANCE,
        "the same scores when padding is added",
        f"a change of {off:.1e}",
        "a mask is missing: use c.sum or c.mean",
    )


def short(part: Part) -> None:
    """A completion of one token, and one with nothing scored, have finite scores."""
    c, total = part.records(), _totals(part)
    for what, records in {"of one token": reshape.one_token(c), "with nothing scored": c.blank()}.items():
        expect(
            bool(total(records).isfinite().all()),
            f"finite scores of completions {what}",
            "NaN or Inf",
            "a division by the length",
        )


def unchanged(part: Part) -> None:
    """The completions stay as they were."""
    c, total = part.records(unscored=True), _totals(part)
    before = reshape.snapshot(c)
    total(c)
    changed = [path for path, x in reshape.tensors(c) if not torch.equal(x, before[path])]
    expect(not changed, "the completions to be left alone", f"{', '.join(changed)} changed", "an operation in place")


def repeatable(part: Part) -> None:
    """Asked again it says the same, and draws from no global random stream."""
    c, total = part.records(), _totals(part)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    same = torch.equal(total(c), total(c))
    expect(same, "the same scores when asked again", "others", "randomness, or state that scoring changes")
    after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    drawn = not torch.equal(before[0], after[0]) or before[1:] != after[1:]
    expect(not drawn, "no draw from a global random stream", "one", "a generator of its own, seeded with context.seed")


def learns(part: Part) -> None:
    """A reward that learns has a gradient in the roles it trains, none elsewhere, and its state survives a checkpoint."""
    if part.made.teaches():
        _lessons(part)
    elif part.made.roles():
        _joint(part)


def _joint(part: Part) -> None:
    lab, roles = _beside_a_policy(part), part.made.roles()
    gradients = lab.objective(lab.records).gradients
    for name, role in roles.items():
        if role.trained:
            reached = bool(gradients[name].any()) and bool(gradients[name].isfinite().all())
            expect(reached, f"a finite gradient in {name}", "none, or NaN", "`loss` does not use it")
    others = set(lab.trainer.trained.roles) - {name for name, role in roles.items() if role.trained} - {"policy"}
    wrong = [name for name in others if bool(gradients[name].any())]
    expect(not wrong, "no gradient in roles of others", ", ".join(wrong), "`loss` uses them without declaring them")


def _lessons(part: Part) -> None:
    """Its lessons move the networks that they are for, and leave the policy as it is."""
    lab = _beside_a_policy(part)
    made, trainer = lab.records, lab.trainer  # sampled first, for the lab then moves the policy
    before = copy.deepcopy(trainer.lessons.modules)
    policy = [p.detach().clone() for p in trainer.trained.parameters()]
    trainer.rollout_done(made)
    for step in range(1, MOST_STEPS + 1):
        if not trainer.lessons.updates:
            trainer.lessons.after(step)
    expect(trainer.lessons.updates > 0, f"a lesson within {MOST_STEPS} steps of the policy", "none", "`observe` keeps nothing")
    for name, module in trainer.lessons.modules.items():
        moved = any(not torch.equal(a, b) for a, b in zip(module.parameters(), before[name].parameters(), strict=True))
        expect(moved, f"lessons that move {name}", "it stays as it was", "`loss` does not use it")
    still = all(torch.equal(a, b) for a, b in zip(trainer.trained.parameters(), policy, strict=True))
    expect(still, "lessons that leave the policy alone", "it moved", "`loss` uses it with gradient")


def _beside_a_policy(part: Part) -> Any:
    """A run of an algorithm that samples, with this reward; the task's own is the judge that labels."""
    return Subject("learning", Sampler(), part.folder).build(reward=part.fresh(), gold=toys.CountReward())


def state(part: Part) -> None:
    """What `state_dict` gives can be saved, and restores."""
    from alignzoo.engine import records

    reward = _reward(part)
    part.folder.mkdir(parents=True, exist_ok=True)
    records.save(reward.state_dict(), part.folder / "state")
    again = part.fresh()
    again.load_state_dict(records.load(part.folder / "state"))
    before, after = str(reward.state_dict()), str(again.state_dict())
    expect(before == after, f"the state {before} after loading", after, "`load_state_dict` leaves something out")


@dataclass(kw_only=True)
class Sampler(OnlineAlgorithm):
    """REINFORCE, to have a learning reward beside."""

    data = Prompts

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reward": Role(kind=Kind.REWARD)}

    def experience(self, models: Any, batch: Prompts) -> Completions:
        c = models.policy.generate(batch, models.sampling)
        models.reward(c)
        return c

    def loss(self, models: Any, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        return -batch.sum(models.policy.logprobs(batch)), {}


def context(part: Part) -> Context:
    """As a run sets it up, before models are built."""
    from alignzoo.models.tokenizers import byte_level

    return Context(tokenizer=byte_level(), seed=0, sampling=Sampling(), context_length=128, cache=part.folder)


def _reward(part: Part) -> Any:
    reward = part.fresh().resolve(toys.ToySource())
    if reward is None:
        raise Broken("a reward", "none", "`resolve` returned None: there is nothing to check")
    if reward.roles() or reward.teaches():
        return _beside_a_policy(part).trainer.reward
    reward.setup(context(part))
    return reward


def _totals(part: Part) -> Totals:
    """(B,) of a reward or metric."""
    if part.group == "metric":
        return lambda c: part.made(c).double()
    reward = _reward(part)

    def total(c: Completions) -> Tensor:
        made = reward(replace(c)).total
        return (made if made.dim() == 1 else c.sum(made)).detach().double()

    return total


def _finite(x: Tensor) -> None:
    expect(
        bool(x.isfinite().all()), "finite numbers", "NaN or Inf", "a division by 0: give valid=False where no score can be had"
    )


CHECKS = (scores, alone, padding, short, unchanged, repeatable, learns, state)
METRIC_CHECKS = (values, alone, padding, short, unchanged, repeatable)
