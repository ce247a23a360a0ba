"""Distillation's losses and its mix of sequences, on table policies."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import EMA
from alignzoo.functional import forward_kl, generalised_jsd, returns_ahead, reverse_kl, skew_kl, skew_reverse_kl
from alignzoo.settings import Sampling, UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, prompts, table
from alignzoo_plugins.distill.distill import Distill, Divergence
from alignzoo_plugins.distill.distilling import Source
from alignzoo_plugins.distill.minillm import MiniLLM
from alignzoo_plugins.distill.self_distill import SelfDistill, shown
from alignzoo_plugins.distill.skew import Side, Skew

OF = prompts(1, 2, 0)
OWN = completions(OF, [0, 0, 1, 1, 2, 2], [[1], [1, 1], [1], [1], [1], [1]])
TAUGHT = completions(OF, [0, 0, 1, 1, 2, 2], [[2], [2], [2, 2], [2], [2], [2]])
DATA = completions(OF, [0, 1, 2], [[0], [0, 0, 0], [0]])


def _models(draws: list[float]) -> FakeModels:
    uniforms = dict(enumerate(draws))
    student, teacher = TablePolicy(table(0), OWN), TablePolicy(table(1).detach(), TAUGHT)
    return FakeModels(student, teacher=teacher, uniforms=uniforms, sampling=Sampling(samples=2))


def _sequences(made: Completions) -> list[tuple[int, int]]:
    """(last prompt token, first token), which says whose a sequence is: 1 the student's, 2 the teacher's, 0 the data's."""
    last = made.prompts.ids[made.prompt_of, -1].tolist()
    return sorted(zip(last, made.ids[:, 0].tolist(), strict=True))


@pytest.mark.parametrize(("source", "other"), [(Source.data, 0), (Source.teacher, 2)])
def test_a_prompt_is_on_policy_where_its_draw_is_below_lambda(source: Source, other: int) -> None:
    """Draws 0.2, 0.6, 0.4 at lambda 0.5: the first and last prompt get the student's two samples, the middle one two others."""
    batch: Any = DATA if source is Source.data else OF
    made = Distill(lam=0.5, source=source).experience(_models([0.2, 0.6, 0.4]), batch)
    assert _sequences(made) == [(0, 1), (0, 1), (1, 1), (1, 1), (2, other), (2, other)]


@pytest.mark.parametrize(
    ("lam", "source", "batch", "first"),
    [(1.0, Source.data, OF, 1), (0.0, Source.data, DATA, 0), (0.0, Source.teacher, OF, 2)],
)
def test_the_ends_of_lambda_are_pure(lam: float, source: Source, batch: Any, first: int) -> None:
    made = Distill(lam=lam, source=source).experience(_models([0.0, 0.5, 0.999]), batch)
    assert _sequences(made) == [(prompt, first) for prompt in (0, 0, 1, 1, 2, 2)]


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([0.2, 0.6, 0.4], {0: [1, 1], 1: [0, 0], 2: [1, 1]}),
        ([0.6, 0.2, 0.4], {0: [0, 0], 1: [1, 1], 2: [1, 1]}),
        ([0.9, 0.9, 0.9], {0: [0, 0], 1: [0, 0], 2: [3, 3]}),
    ],
)
def test_rows_of_one_prompt_draw_each_for_itself(draws: list[float], expected: dict[int, list[int]]) -> None:
    """Rows 0 and 2 demonstrate the same prompt, which the data then keeps once: two sequences of every row all the same."""
    twice = replace(completions(prompts(1, 2), [0, 1, 0], [[0], [0, 0, 0], [3]]), row=torch.arange(3))
    made = Distill(lam=0.5).experience(_models(draws), twice)
    assert {row: made.ids[made.row == row, 0].tolist() for row in range(3)} == expected
    assert made.prompts.ids[made.prompt_of, -1].tolist() == [2 if row == 1 else 1 for row in made.row.tolist()]


def test_sequences_keep_their_tokens_and_masks_when_mixed() -> None:
    made = Distill(lam=0.5).experience(_models([0.9, 0.9, 0.1]), DATA)
    by_row = {row: made.attended[made.row == row].sum(1).tolist() for row in range(3)}
    assert by_row == {0: [1, 1], 1: [3, 3], 2: [1, 1]}


@pytest.mark.parametrize(
    ("divergence", "function"),
    [
        (Divergence.forward_kl, forward_kl),
        (Divergence.reverse_kl, reverse_kl),
        (Divergence.jsd, lambda s, t, temperature: generalised_jsd(s, t, 0.5, temperature)),
    ],
)
def test_the_loss_is_the_divergence_at_each_scored_token(divergence: Divergence, function: Callable[..., torch.Tensor]) -> None:
    batch = completions(OF, [0, 1, 2], [[3, 1], [2], [0, 0]], [[1, 1], [1], [0, 1]])
    models = _models([])
    loss, _ = Distill(divergence=divergence, temperature=2.0).loss(models, batch)
    student, teacher = models.policy.table, models.teacher.table
    at = lambda previous: function(student[previous], teacher[previous], temperature=2.0)  # noqa: E731
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(
        loss, torch.stack([torch.stack([at(1), at(3)]), torch.stack([at(2), zero]), torch.stack([zero, at(0)])])
    )


def test_beta_reaches_the_divergence() -> None:
    models = _models([])
    low, high = (Distill(beta=beta).loss(models, DATA)[0] for beta in (0.1, 0.9))
    torch.testing.assert_close(low[0, 0], generalised_jsd(models.policy.table[1], models.teacher.table[1], 0.1))
    torch.testing.assert_close(high[0, 0], generalised_jsd(models.policy.table[1], models.teacher.table[1], 0.9))


def test_sequence_level_distillation_is_the_likelihood_of_the_teachers_samples() -> None:
    algorithm = Distill(divergence=Divergence.nll, source=Source.teacher, lam=0.0)
    models = _models([0.5, 0.5, 0.5])
    models.teacher.samples = replace(TAUGHT, logprobs=-torch.ones(6, 2))
    made = algorithm.experience(models, OF)
    assert made.logprobs is None  # the teacher's would be taken for the policy's entropy
    loss, _ = algorithm.loss(models, made)
    torch.testing.assert_close(loss, -models.policy.logprobs(made))
    uniform = FakeModels(TablePolicy(torch.zeros(4, 4)))
    assert algorithm.loss(uniform, made)[0][0, 0].item() == pytest.approx(math.log(4))


def test_a_batch_with_nothing_scored_has_no_loss_and_no_gradient() -> None:
    models = _models([])
    loss, _ = Distill().loss(models, DATA.blank())
    loss.sum().backward()
    assert not loss.any() and models.policy.table.grad is not None and not models.policy.table.grad.any()


@pytest.mark.parametrize(
    ("settings", "data", "student", "teacher"),
    [
        ({}, Completions, {"tokens", "generate"}, {"tokens"}),
        ({"lam": 1.0}, Prompts, {"tokens", "generate"}, {"tokens"}),
        ({"lam": 0.0}, Completions, {"tokens"}, {"tokens"}),
        ({"source": Source.teacher}, Prompts, {"tokens", "generate"}, {"tokens", "generate"}),
        ({"divergence": Divergence.nll, "source": Source.teacher, "lam": 0.0}, Prompts, {"logprobs"}, {"logprobs", "generate"}),
    ],
)
def test_data_and_roles_follow_the_settings(settings: dict[str, Any], data: type, student: set[str], teacher: set[str]) -> None:
    algorithm = Distill(**settings)
    roles = algorithm.roles()
    assert algorithm.data is data
    assert (roles["policy"].needs, roles["teacher"].needs) == (student, teacher)
    assert (roles["policy"].trained, roles["teacher"].trained, roles["teacher"].start) == (True, False, "config")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"beta": 0.0}, "beta=0.0"),
        ({"beta": 1.0}, "beta=1.0"),
        ({"beta": 0.1, "divergence": Divergence.reverse_kl}, "beta=0.1"),
        ({"lam": 1.5}, "lam=1.5"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"divergence": Divergence.nll}, "divergence=nll"),
        ({"divergence": Divergence.nll, "source": Source.teacher}, "divergence=nll"),
        ({"divergence": Divergence.nll, "source": Source.teacher, "lam": 0.0, "temperature": 2.0}, "temperature=2.0"),
    ],
)
def test_distill_refuses_what_is_out_of_range_or_unused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{key} "):
        Distill(**settings)


def test_skewed_divergences_by_hand() -> None:
    """P = (3/4, 1/4), Q = (1/4, 3/4), a = 1/2: both mixtures are (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2 = 0.130812. At a = 1/4
    a P + (1 - a) Q = (3/8, 5/8): 3/4 log 2 + 1/4 log 2/5 = 0.290788."""
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.75, 0.25], [0.25, 0.75]))
    assert skew_kl(q, p, 0.5).item() == pytest.approx(0.130812, abs=1e-6)
    assert skew_kl(q, p, 0.25).item() == pytest.approx(0.290788, abs=1e-6)
    assert skew_reverse_kl(q, p, 0.25).item() == pytest.approx(0.290788, abs=1e-6)  # the two are mirror images
    torch.testing.assert_close(skew_kl(q, p, 1e-9), forward_kl(q, p))
    torch.testing.assert_close(skew_reverse_kl(3 * q, p, 1e-9, 2.0), reverse_kl(3 * q, p, 2.0))


def test_a_skewed_divergence_is_finite_where_the_other_lacks_a_token() -> None:
    """P = (1, 0), Q = (0, 1): log(1 / a)."""
    p, q = torch.tensor([0.0, -math.inf]), torch.tensor([-math.inf, 0.0])
    for divergence in (skew_kl, skew_reverse_kl):
        assert divergence(q, p, 0.1).item() == pytest.approx(math.log(10), rel=1e-6)


def test_the_side_of_skew_is_whose_samples_count() -> None:
    models = _models([])
    student, teacher = models.policy.table[1], models.teacher.table[1]
    for side, function in ((Side.teacher, skew_kl), (Side.student, skew_reverse_kl)):
        loss, _ = Skew(side=side, skew=0.3, temperature=2.0).loss(models, DATA)
        torch.testing.assert_close(loss[0, 0], function(student, teacher, 0.3, 2.0))


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_skew_refuses_the_ends(skew: float) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.skew={skew}"):
        Skew(skew=skew)


def test_what_is_ahead_of_a_token() -> None:
    """Rewards 1, 2, (9 of a token that is not scored), 4."""
    rewards, scored = torch.tensor([[1.0, 2.0, 9.0, 4.0]]), torch.tensor([[True, True, False, True]])
    assert returns_ahead(rewards, scored).tolist() == [[7, 6, 0, 4]]
    assert returns_ahead(rewards, scored, own=False).tolist() == [[6, 4, 0, 0]]
    assert returns_ahead(rewards, scored, own=False, mean=True).tolist() == [[3, 4, 0, 0]]
    assert returns_ahead(rewards, scored, mean=True)[0].tolist() == pytest.approx([7 / 3, 3, 0, 4])


@pytest.mark.parametrize("single_step", [True, False])
def test_minillm_has_the_gradient_of_the_reverse_kl_of_sequences(single_step: bool) -> None:
    """Over all 27 completions of three tokens, each as often as the student writes it; the exact part and what comes after it,
    or all from samples."""
    of = prompts(0)
    every = [[a, b, c] for a in range(3) for b in range(3) for c in range(3)]
    c = completions(of, [0] * 27, every)
    models = FakeModels(TablePolicy(table(0, 3), c), teacher=TablePolicy(table(1, 3).detach()), sampling=Sampling(samples=27))
    algorithm = MiniLLM(single_step=single_step, length_norm=False, whiten=False, epochs=1, mix=0.0)
    with torch.no_grad():
        rollout = algorithm.experience(models, of)
    student, teacher = c.sum(models.policy.logprobs(c)), c.sum(models.teacher.logprobs(c))
    chance = student.exp()
    terms, _ = algorithm.loss(models, rollout)
    mine = sum((chance.detach()[:, None] * term).sum() for term in terms.values())
    (expected,) = torch.autograd.grad((chance * (student - teacher)).sum(), models.policy.table)
    torch.testing.assert_close(torch.autograd.grad(mine, models.policy.table)[0], expected)
    assert (chance * rollout.reverse_kl).sum().item() == pytest.approx((chance * (student - teacher)).sum().item())


def test_minillm_weighs_what_was_drawn_from_the_mixture() -> None:
    """The student has 1/4 for token 2, the teacher 3/4; a half of each makes 1/2, so w = 1/2. Of token 0, 1/2 and 1/8: 8/5."""
    student, teacher = (torch.tensor([p] * 3, dtype=torch.float64).log() for p in ([0.5, 0.25, 0.25], [0.125, 0.125, 0.75]))
    c = completions(prompts(0), [0], [[2, 0]])
    models = FakeModels(TablePolicy(student, c), teacher=TablePolicy(teacher), sampling=Sampling(samples=1))
    algorithm = MiniLLM(mix=0.5, whiten=False, length_norm=False)
    rollout = algorithm.experience(models, prompts(0))
    assert rollout.weight[0].tolist() == pytest.approx([0.5, 1.6]) and rollout.logprobs is None
    torch.testing.assert_close(algorithm.mixed(student, teacher).exp()[0], torch.tensor([0.3125, 0.1875, 0.5]).double())
    # A of the first is log(1/8) - log(1/2) = - log 4; the loss - w A
    assert algorithm.loss(models, rollout)[0]["policy"][0].tolist() == pytest.approx([math.log(2), 0])


def test_a_token_that_the_teacher_cannot_write_costs_the_limit() -> None:
    lacking = torch.zeros(3, 3).index_fill(1, torch.tensor([2]), -math.inf)
    c = completions(prompts(0), [0], [[2]])
    models = FakeModels(TablePolicy(torch.zeros(3, 3), c), teacher=TablePolicy(lacking), sampling=Sampling(samples=1))
    rollout = MiniLLM(single_step=False, whiten=False, limit=7.0, mix=0.0).experience(models, prompts(0))
    assert rollout.advantages.tolist() == [[-7]]


def test_the_teacher_is_shown_the_demonstration_and_asked_again() -> None:
    """Prompts 0 1, 0 2 and 0 0, with 0, 0 0 0 and 0 for answers."""
    made = shown(DATA)
    texts = [ids[mask].tolist() for ids, mask in zip(made.ids, made.attended, strict=True)]
    assert texts == [[0, 1, 0, 0, 1], [0, 2, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_self_distillation_compares_both_prompts(beta: float) -> None:
    models = _models([])
    algorithm = SelfDistill(beta=beta)
    made = algorithm.experience(models, DATA)
    assert made.ids.tolist() == OWN.ids.tolist()
    assert made.privileged.prompt_of.tolist() == made.prompt_of.tolist()
    other = replace(made, privileged=replace(made.privileged, prompts=prompts(3, 3, 3)))  # as if asked something else
    loss, _ = algorithm.loss(models, other)
    torch.testing.assert_close(loss[0, 0], algorithm.distance(models.policy.table[1], models.teacher.table[3]))
    torch.testing.assert_close(loss[1, 1], algorithm.distance(models.policy.table[1], models.teacher.table[1]))


def test_the_self_teacher_is_the_start_or_an_average() -> None:
    fixed, moving = (SelfDistill(decay=decay).roles()["teacher"] for decay in (1.0, 0.9))
    assert (fixed.start, fixed.follows, moving.start, moving.follows) == ("policy", None, "policy", EMA(0.9))


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (MiniLLM, {"limit": 0.0}),
        (MiniLLM, {"mix": 1.0}),
        (MiniLLM, {"epochs": 0}),
        (SelfDistill, {"beta": 1.1}),
        (SelfDistill, {"decay": -0.1}),
    ],
)
def test_what_cannot_be_taken_is_refused(kind: Any, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{next(iter(setting))}="):
        kind(**setting)
