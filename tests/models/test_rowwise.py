"""A function of logits, a few rows at a time: the same values and gradients as with all rows at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alignzoo.functional import generalised_jsd
from alignzoo.models.forward import rowwise
from alignzoo.models.forward.rowwise import by_rows

ROWS, VOCABULARY = 10, 7


@pytest.fixture(autouse=True)
def three_rows_at_a_time(monkeypatch: Any) -> None:
    monkeypatch.setattr(rowwise, "PIECE_BYTES", 3 * VOCABULARY * 8)


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor]:
    """States (n, 4), a head (7, 4), a teacher's logits (n, 7)."""
    torch.manual_seed(0)
    states, head, teacher = (
        torch.randn(*shape, dtype=torch.float64) for shape in ((ROWS, 4), (VOCABULARY, 4), (ROWS, VOCABULARY))
    )
    return states.requires_grad_(), head.requires_grad_(), teacher


def jsd(student: Tensor, teacher: Tensor) -> Tensor:
    return generalised_jsd(student, teacher, 0.3)


class Counted:
    """`jsd`, and the rows of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.calls.append(len(student))
        return jsd(student, teacher)


def slopes(values: Tensor, by: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum in which every row counts differently."""
    upstream = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).view_as(values)
    return torch.autograd.grad((values * upstream).sum(), by)


def same(found: Tensor, expected: Tensor, by: Sequence[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(slopes(found, by), slopes(expected, by), rtol=0, atol=1e-13)


def test_the_same_values_and_gradients_from_three_rows_at_a_time(tensors: Any) -> None:
    states, head, teacher = tensors
    counted = Counted()
    found = by_rows(counted, states @ head.T, teacher)
    assert counted.calls == [3, 3, 3, 1]
    same(found, jsd(states @ head.T, teacher), (states, head))


def test_gradients_by_two_columns_of_which_one_is_not_used(tensors: Any) -> None:
    states, head, teacher = tensors
    scale = torch.rand(ROWS, dtype=torch.float64, requires_grad=True)
    unused = torch.rand(ROWS, dtype=torch.float64, requires_grad=True)
    found = by_rows(lambda student, teacher, s, _: s * jsd(student, teacher), states @ head.T, teacher, scale, unused)
    same(found, scale * jsd(states @ head.T, teacher), (states, head, scale))
    assert not slopes(by_rows(lambda a, b: a.sum(1) + 0 * b, states @ head.T, unused), (unused,))[0].any()


def test_computed_again_in_a_checkpoint(tensors: Any) -> None:
    states, head, teacher = tensors
    counted = Counted()
    found = checkpoint(lambda x, t: by_rows(counted, x @ head.T, t), states, teacher, use_reentrant=False)
    assert counted.calls == [3, 3, 3, 1]  # the gradient of a piece needs nothing again
    same(found, jsd(states @ head.T, teacher), (states, head))


def test_what_autograd_keeps_of_a_piece_is_gone_when_the_next_one_begins(tensors: Any) -> None:
    states, head, teacher = tensors
    inner: list[weakref.ref[Tensor]] = []

    def watched(student: Tensor, teacher: Tensor) -> Tensor:
        assert not [x for x in inner if x() is not None]
        probabilities = student.softmax(1)
        inner.append(weakref.ref(probabilities))
        return (probabilities * teacher).sum(1)

    values = by_rows(watched, states @ head.T, teacher)
    assert len(inner) == 4
    same(values, ((states @ head.T).softmax(1) * teacher).sum(1), (states, head))


@pytest.mark.parametrize(
    "several", [lambda s, t: torch.stack([jsd(s, t), s[:, 0]], 1), lambda s, t: s.double().log_softmax(-1)[:, :3]]
)
def test_several_numbers_a_row(tensors: Any, several: Callable[..., Tensor]) -> None:
    states, head, teacher = tensors
    same(by_rows(several, states @ head.T, teacher), several(states @ head.T, teacher), (states, head))


def test_a_gradient_by_what_is_no_column_is_not_lost(tensors: Any) -> None:
    states, head, teacher = tensors
    strength = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    found = by_rows(lambda s, t: strength * jsd(s, t), states @ head.T, teacher)
    same(found, strength * jsd(states @ head.T, teacher), (states, head, strength))


def test_without_gradient_and_without_rows(tensors: Any) -> None:
    states, head, teacher = tensors
    with torch.no_grad():
        torch.testing.assert_close(by_rows(jsd, states @ head.T, teacher), jsd(states @ head.T, teacher), rtol=0, atol=1e-15)
    assert not by_rows(lambda s, t: t.sum(1), states @ head.T, teacher).requires_grad
    none = by_rows(jsd, (states @ head.T)[:0], teacher[:0])
    assert none.shape == (0,)
    assert not slopes(none, (states,))[0].any()
