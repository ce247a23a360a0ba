"""Properties of `loss` and `experience` as functions: of one rollout or one optimizer step, without training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions
from alignzoo.contracts import Couples
from alignzoo.settings import Generation
from alignzoo.testing import reshape
from alignzoo.testing.expect import expect, expect_finite, no_draw, untouched
from alignzoo.testing.lab import Minimised, distance
from alignzoo.testing.probe import listening, references, texts
from alignzoo.testing.subject import Subject

TOLERANCE = 1e-5
AT_THE_START = {"ratio": 1.0, "approximate_kl": 0.0, "clip_fraction": 0.0, "rewards/chosen": 0.0, "rewards/rejected": 0.0}


def shapes(subject: Subject) -> None:
    """Every term has one finite value a record, or one a token."""
    value = subject.lab.plain.value  # the engine refuses other shapes
    expect(math.isfinite(value), "a finite loss", f"{value}", "a logarithm or division of 0")


def gradients(subject: Subject) -> None:
    """Every trained role gets a finite gradient, and no other role gets any."""
    lab = subject.lab
    by_role = lab.objective(lab.records).gradients
    for name in sorted(name for name, role in subject.algorithm.roles().items() if role.trained):
        gradient = by_role.get(name, torch.zeros(1))
        expect_finite(gradient, f"a finite gradient in {name}", "log 0, or 0 * inf behind a mask")
        cause = f"`loss` does not use {name}, detaches what it gives, or divides it by itself: old log-probs are to be detached"
        expect(gradient.any(), f"a gradient in {name}", "none", cause)
    for name, module in lab.frozen().items():
        reached = any(p.grad is not None and p.grad.any() for p in module.parameters())
        expect(not reached, f"no gradient in {name}", "one", "`loss` goes around `models`, which detaches it")


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
    cause = "a mean or variance over the batch inside `loss`: declare couples = Couples.STEP and compute it in `prepare`"
    for rows in reshape.units(lab.records)[:3]:
        alone = lab.objective(lab.records.take(rows)).terms
        for name, values in lab.plain.terms.items():
            among = values[rows].sum()
            off = (alone[name].sum() - among).abs().item()
            same = off <= TOLERANCE * max(1.0, among.abs().item())
            expect(
                same, f"record {rows[0]} to have the same {name!r} alone as among others", f"a difference of {off:.1e}", cause
            )


def context_only(subject: Subject) -> None:
    """Tokens that are attended but not scored count as context, as if they stood in the prompt."""
    lab = subject.lab
    records = reshape.partly_written(lab.records) if lab.online and isinstance(lab.records, Completions) else lab.records
    beside, moved = lab.objective(records), lab.objective(reshape.absorbed(records))
    cause = "`attended` is used where `scored` is meant"
    _same(beside, moved, "tokens the policy did not write are moved into the prompt", cause)


def nothing_scored(subject: Subject) -> None:
    """A record with nothing scored is finite and has no weight."""
    lab, records = subject.lab, subject.lab.records
    last = reshape.units(records)[-1]
    rest = records.take([row for row in range(len(records)) if row not in last])
    blank = lab.objective(type(records).cat([rest, records.take(last).blank()]))
    cause = "a division by the number of scored tokens: use `c.mean`"
    expect_finite(torch.cat([torch.tensor([blank.value]), blank.gradient]), "a finite loss and gradient", cause)
    if subject.algorithm.couples is not Couples.MICROBATCH:
        cause = "`weights` counts it: multiply by `batch.counted`"
        _same(lab.objective(rest), blank, "a record with nothing scored is added", cause)


def single_tokens(subject: Subject) -> None:
    """A completion of one token is learned from."""
    lab = subject.lab
    short = lab.objective(reshape.one_token(lab.records))
    cause = "a variance or a division by length - 1"
    expect_finite(short.gradient, "a finite gradient from completions of one token", cause)
    cause = "log-probs and mask are off by one against each other"
    expect(short.gradients[lab.main].any(), "a gradient from completions of one token", "none", cause)


def unchanged(subject: Subject) -> None:
    """The records that `loss` and `experience` are given stay as they were."""
    lab = subject.lab
    with untouched(lab.records, "`loss`"):
        lab.objective(lab.records)
    if lab.online:
        inputs = lab.inputs()
        with untouched(inputs, "`experience`"):
            lab.rollout(inputs)


def random_streams(subject: Subject) -> None:
    """Nothing is drawn from the global random streams of torch, numpy and Python."""
    lab = subject.lab
    remedy = "use models.uniform(purpose, row)"
    with no_draw(remedy):
        if lab.online:
            lab.rollout()
        lab.objective(lab.records)
    once, again = (lab.objective(lab.rollout() if lab.online else lab.records) for _ in range(2))
    same = once.value == again.value and torch.equal(once.gradient, again.gradient)
    cause = f"randomness of its own: {remedy}"
    expect(same, "the same loss and gradient when done again", f"{once.value} and {again.value}", cause)


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
    cause = "tokens or prompts are shifted, or changed, for one of the two"
    for role in references(subject.algorithm.roles()):
        strange = [text for answer in answers.of(role) for text in texts(answer.c) if text not in of_policy]
        expected = f"{role} to be asked of the completions that the policy is asked of"
        expect(not of_policy or not strange, expected, f"{len(strange)} others", cause)


def temperature(subject: Subject) -> None:
    """Samples and log-probs have the run's temperature: at twice it, all is as with logits half as large."""
    roles = subject.algorithm.roles().values()
    if subject.lab.main != "policy" or any(role.shares for role in roles):
        return
    halved, hotter = (_terms_at(subject, *how) for how in ((1.0, 0.5), (2.0, 1.0)))
    cause = "logits are read around `models`, or at a temperature of their own"
    for name, term in halved.items():
        same = term.shape == hotter[name].shape and torch.allclose(term, hotter[name], atol=TOLERANCE)
        expect(same, f"the same {name!r} at twice the temperature as with half the logits", "another", cause)


def _terms_at(subject: Subject, temperature: float, scale: float) -> dict[str, Tensor]:
    lab = subject.build(still=True, generation=Generation(max_new_tokens=6, temperature=temperature))
    lab.stir(1)
    lab.scale(scale)
    return lab.plain.terms


def samples(subject: Subject) -> None:
    """Padding and order of the prompts change neither samples nor what is made of them."""
    lab = subject.build()
    inputs = lab.inputs()
    plain = _by_row(lab.rollout(inputs))
    variants = {"padding is added to": reshape.padded(inputs), "the order is changed of": inputs.take([2, 0, 3, 1])}
    cause = "`experience` relates prompts by their place, or draws randomness by place and not by row"
    for what, variant in variants.items():
        columns = _by_row(lab.rollout(variant))
        same = {n: x.shape == columns[n].shape and torch.allclose(x, columns[n], atol=TOLERANCE) for n, x in plain.items()}
        unlike = ", ".join([name for name in same if not same[name]][:3])
        expect(not unlike, f"the same experience when {what} the prompts", f"another {unlike}", cause)


def _by_row(batch: Batch) -> dict[str, Tensor]:
    """What was made of each sample, ordered by row; per-token columns summed over scored tokens."""
    columns, place = reshape.tensors(batch), reshape.completions(batch)[0].row.argsort(stable=True)
    summed = {}
    for path, x in columns.items():
        if "." in path or len(x) != len(batch) or path == "prompt_of":
            continue
        if x.dim() == 2:
            x = torch.where(columns["scored"], x, 0).double() @ torch.arange(1.0, x.shape[1] + 1).double()
        summed[path] = x[place].double()
    return summed


def _same(a: Minimised, b: Minimised, when: str, cause: str) -> None:
    def off(x: float, y: float) -> float:
        return abs(x - y) / max(1.0, abs(x))

    change = off(a.value, b.value)
    expect(change <= TOLERANCE, f"the same loss when {when}", f"a change of {change:.1e}", cause)
    change = distance(a.gradient, b.gradient)
    expect(change <= TOLERANCE, f"the same gradient when {when}", f"a relative change of {change:.1e}", cause)
    change = max((off(value, b.metrics.get(name, math.inf)) for name, value in a.metrics.items()), default=0.0)
    expect(change <= TOLERANCE, f"the same metrics when {when}", f"a change of {change:.1e}", cause)


CHECKS = (
    shapes, gradients, padding, order, rows_alone, context_only, nothing_scored, single_tokens, unchanged, random_streams,
    at_the_start,
)  # fmt: skip
