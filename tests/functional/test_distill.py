"""Distillation's losses and its mix of sequences, on table policies."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from alignzoo.batch import Completions, Prompts
from alignzoo.functional import forward_kl, generalised_jsd, reverse_kl
from alignzoo.settings import Sampling, UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, prompts, table
from alignzoo_plugins.distill.distill import Distill, Divergence, Source

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
