"""Properties of `loss` and `experience` as functions: of one rollout or one optimizer step, without training."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Couples
from alignzoo.settings import Generation
from alignzoo.testing import reshape
from alignzoo.testing.lab import Objective, distance
from alignzoo.testing.probe import listening, references, texts
from alignzoo.testing.subject import Subject, expect

TOLERANCE = 1e-5
AT_THE_START = {"ratio": 1.0, "approximate_kl": 0.0, "clip_fraction": 0.0, "rewards/chosen": 0.0, "rewards/rejected": 0.0}


def shapes(subject: Subject) -> None:
    """Every term has one finite value a record, or one a token."""
    value = subject.lab.plain.value  # the engine refuses other shapes
    expect(bool(np.isfinite(value)), "a finite loss", f"{value}", "a logarithm or division of 0")


def gradients(subject: Subject) -> None:
    """Every trained role gets a finite gradient, and no other role gets any."""
    lab = subject.lab
    found = lab.objective(lab.records)
    declared = {name for name, role in subject.algorithm.roles().items() if role.trained}
    for name in sorted(declared):
        gradient = found.gradients.get(name, torch.zeros(1))
        expect(bool(gradient.isfinite().all()), f"a finite gradient in {name}", "NaN or Inf", "log 0, or 0 * inf behind a mask")
        cause = f"`loss` does not use {name}, detaches what it gives, or divides it by itself: old log-probs are to be detached"
        expect(bool(gradient.any()), f"a gradient in {name}", "none", cause)
    for module in lab.frozen():
        reached = any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
        names = [n for n, v in lab.trainer.roles.networks.items() if getattr(v, "module", None) is module]
        expect(not reached, f"no gradient in {', '.join(names)}", "one", "`loss` goes around `models`, which detaches it")


def padding(subject: Subject) -> None:
    """More padding, left of prompts and right of completions, changes nothing."""
    lab = subject.lab
    _same(lab.plain, lab.objective(reshape.padded(lab.records)), "padding is added", "a mask is missing in `loss`")


def order(subject: Subject) -> None:
    """The order of the records changes nothing."""
    lab = subject.lab
    units = reshape.units(lab.records)
    shuffled = torch.randperm(len(units), generator=torch.Generator().manual_seed(3)).tolist()
    mixed = lab.objective(lab.records.take([row for unit in shuffled for row in units[unit]]))
    _same(lab.plain, mixed, "records are reordered", "`loss` relates a record to its neighbour")


def rows_alone(subject: Subject) -> None:
    """Where records are declared independent, each has alone the loss it has among others."""
    if subject.algorithm.couples is not Couples.ROW:
        return
    lab = subject.lab
    together = lab.plain.terms
    for rows in reshape.units(lab.records)[:3]:
        alone = lab.objective(lab.records.take(rows)).terms
        for name, values in together.items():
            off = (alone[name].sum() - values[rows].sum()).abs().item()
            expect(
                off <= TOLERANCE * max(1.0, values[rows].sum().abs().item()),
                f"record {rows[0]} to have the same {name!r} alone as among others", f"a difference of {off:.1e}",
                "a mean or variance over the batch inside `loss`: declare couples = Couples.STEP and compute it in `prepare`",
            )  # fmt: skip


def context_only(subject: Subject) -> None:
    """Tokens that are attended but not scored count as context, as if they stood in the prompt."""
    lab = subject.lab
    records = reshape.partly_written(lab.records) if lab.online and isinstance(lab.records, Completions) else lab.records
    given, moved = lab.objective(records), lab.objective(reshape.absorbed(records))
    cause = "`attended` is used where `scored` is meant"
    _same(given, moved, "tokens the policy did not write are moved into the prompt", cause)


def nothing_scored(subject: Subject) -> None:
    """A record with nothing scored is finite and has no weight."""
    lab, last = subject.lab, reshape.units(subject.lab.records)[-1]
    blank = lab.objective(reshape.without(lab.records, last))
    finite = np.isfinite(blank.value) and bool(blank.gradient.isfinite().all())
    expect(finite, "a finite loss and gradient", "NaN or Inf", "a division by the number of scored tokens: use `c.mean`")
    if subject.algorithm.couples is not Couples.MICROBATCH:
        rest = lab.objective(lab.records.take([row for row in range(len(lab.records)) if row not in last]))
        _same(rest, blank, "a record with nothing scored is added", "`weights` counts it: multiply by `batch.counted`")


def single_tokens(subject: Subject) -> None:
    """A completion of one token is learned from."""
    lab = subject.lab
    found = lab.objective(reshape.one_token(lab.records))
    finite = bool(found.gradient.isfinite().all())
    expect(finite, "a finite gradient from completions of one token", "NaN or Inf", "a variance or a division by length - 1")
    cause = "log-probs and mask are off by one against each other"
    expect(bool(found.gradients[lab.main].any()), "a gradient from completions of one token", "none", cause)


def unchanged(subject: Subject) -> None:
    """The records that `loss` and `experience` are given stay as they were."""
    lab = subject.lab
    before = reshape.snapshot(lab.records)
    lab.objective(lab.records)
    _unchanged(before, lab.records, "loss")
    if lab.online:
        inputs = lab.inputs()
        before = reshape.snapshot(inputs)
        lab.rollout(inputs)
        _unchanged(before, inputs, "experience")


def _unchanged(before: dict[str, Tensor], batch: Any, method: str) -> None:
    changed = [path for path, x in reshape.tensors(batch) if not torch.equal(x, before[path])]
    expect(
        not changed,
        f"`{method}` to leave its records alone",
        f"{', '.join(changed)} changed",
        "an operation in place (x += ..., x[...] = ...)",
    )


def random_streams(subject: Subject) -> None:
    """Nothing is drawn from the global random streams of torch, numpy and Python."""
    lab = subject.lab
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    if lab.online:
        lab.rollout(lab.inputs())
    lab.objective(lab.records)
    drawn = {
        "torch": not torch.equal(torch.get_rng_state(), before[0]),
        "numpy": str(np.random.get_state()) != before[1],
        "random": random.getstate() != before[2],
    }
    names = ", ".join(name for name, moved in drawn.items() if moved)
    remedy = "use models.uniform(purpose, row)"
    expect(not names, "no draw from a global random stream", f"one from {names}", remedy)
    records = [lab.rollout(lab.inputs()) if lab.online else lab.records for _ in range(2)]
    once, again = (lab.objective(made) for made in records)
    same = once.value == again.value and torch.equal(once.gradient, again.gradient)
    expect(
        same,
        "the same loss and gradient when done again",
        f"{once.value} and {again.value}",
        f"randomness of its own: {remedy}",
    )


def at_the_start(subject: Subject) -> None:
    """While policy, sampler and reference are the same, ratios are 1 and divergences 0; the reference is asked of what the
    policy is asked of."""
    lab = subject.build(still=True)
    with listening(lab) as answers:
        records, metrics = lab.records, lab.plain.metrics
    cause = "log-probs of two unlike distributions or tokens"
    for name in metrics.keys() & AT_THE_START.keys():
        right = abs(metrics[name] - AT_THE_START[name]) <= TOLERANCE
        expect(right, f"{name} = {AT_THE_START[name]} at the start", f"{metrics[name]}", cause)
    kl = getattr(records, "kl", None)
    nought = kl is None or bool((kl.abs() <= TOLERANCE).all())
    expect(nought, "a KL of 0 at the start", f"{kl}", "policy and reference are given different tokens")
    of_policy = {text for answer in answers.of("policy") for text in texts(answer.c)}
    for role in references(subject.algorithm.roles()):
        strange = [text for answer in answers.of(role) for text in texts(answer.c) if text not in of_policy]
        expect(
            not of_policy or not strange, f"{role} to be asked of the completions that the policy is asked of",
            f"{len(strange)} others", "tokens or prompts are shifted, or changed, for one of the two",
        )  # fmt: skip


def temperature(subject: Subject) -> None:
    """Samples and log-probs have the run's temperature: at twice it, all is as with logits half as large."""
    roles = subject.algorithm.roles().values()
    if subject.lab.main != "policy" or any(role.shares for role in roles):
        return
    found = []
    for degrees in (1.0, 2.0):
        lab = subject.build(still=True, generation=Generation(max_new_tokens=6, temperature=degrees))
        lab.stir(1)
        if degrees == 1:
            lab.scale(0.5)
        found.append(lab.plain)
    cause = "logits are read around `models`, or at a temperature of their own"
    for name, term in found[0].terms.items():
        other = found[1].terms[name]
        same = term.shape == other.shape and torch.allclose(term, other, atol=TOLERANCE)
        expect(same, f"the same {name!r} at twice the temperature as with half the logits", "another", cause)


def samples(subject: Subject) -> None:
    """Padding and order of the prompts change neither samples nor what is made of them."""
    lab = subject.build()
    inputs = lab.inputs()
    plain = _by_row(lab.rollout(inputs))
    variants = {"padding is added to": reshape.padded(inputs), "the order is changed of": inputs.take([2, 0, 3, 1])}
    for what, variant in variants.items():
        found = _by_row(lab.rollout(variant))
        unlike = [
            path
            for path, x in plain.items()
            if x.shape != found[path].shape or not torch.allclose(x, found[path], atol=TOLERANCE)
        ]
        expect(
            not unlike, f"the same experience when {what} the prompts", f"another {', '.join(unlike[:3])}",
            "`experience` relates prompts by their place, or draws randomness by place and not by row",
        )  # fmt: skip


def _by_row(batch: Any) -> dict[str, Tensor]:
    """What was made of each sample, ordered by row; per-token columns summed over scored tokens."""
    place = batch.row.argsort(stable=True)
    found = {}
    for path, x in reshape.tensors(batch):
        if "." in path or len(x) != len(batch) or path == "prompt_of":
            continue
        if x.dim() == 2:
            x = torch.where(batch.scored, x, 0).double() @ torch.arange(1.0, x.shape[1] + 1).double()
        found[path] = x[place].double()
    return found


def _same(a: Objective, b: Objective, when: str, cause: str) -> None:
    off = abs(a.value - b.value) / max(1.0, abs(a.value))
    expect(off <= TOLERANCE, f"the same loss when {when}", f"a change of {off:.1e}", cause)
    off = distance(a.gradient, b.gradient)
    expect(off <= TOLERANCE, f"the same gradient when {when}", f"a relative change of {off:.1e}", cause)
    off = max(
        (abs(a.metrics[n] - b.metrics.get(n, float("inf"))) / max(1.0, abs(a.metrics[n])) for n in a.metrics), default=0.0
    )
    expect(off <= TOLERANCE, f"the same metrics when {when}", f"a change of {off:.1e}", cause)
