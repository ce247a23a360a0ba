"""TRPO's direction and its length, where Fisher's matrix is known; and that its steps stay within the trust region."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.functional import conjugate_gradient
from alignzoo.settings import UserError
from alignzoo.testing import toys
from alignzoo_plugins.ppo.critic import ValueModel
from alignzoo_plugins.ppo.trpo import TRPO

ACTIONS = torch.tensor([[0], [0], [1], [2]])  # as often as their probabilities 1/2, 1/4, 1/4 say
ADVANTAGES = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)


def test_conjugate_gradients_by_hand() -> None:
    """(4 1; 1 3) x = (1, 2): x = (1, 7) / 11."""
    a = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    target = [torch.tensor([1.0, 2.0], dtype=torch.float64)]
    (x,) = conjugate_gradient(lambda v: [a @ v[0]], target, iterations=2)
    assert x.tolist() == pytest.approx([1 / 11, 7 / 11], abs=1e-12)


class Softmax:
    """One state with three actions, in place of a network and of the step around it."""

    def __init__(self) -> None:
        self.start = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
        self.weights = self.start.clone().requires_grad_()
        self.batch = SimpleNamespace(old_logprobs=self.logprobs(None).detach(), advantages=ADVANTAGES)

    def logprobs(self, batch: object) -> Tensor:
        return self.weights.log_softmax(0)[ACTIONS]

    def parameters(self, role: str) -> list[Tensor]:
        return [self.weights]

    def take(self) -> None:
        pass

    def place(self, role: str, direction: Sequence[Tensor], scale: float) -> None:
        self.weights.data.copy_(self.start + scale * direction[0])

    def means(self, fn: Callable[..., Tensor]) -> dict[str, float]:
        return {"loss": fn(SimpleNamespace(policy=self), self.batch).mean().item()}

    def gradient(self, fn: Callable[..., Tensor], role: str) -> list[Tensor]:
        return list(torch.autograd.grad(fn(SimpleNamespace(policy=self), self.batch).mean(), [self.weights]))


def test_the_natural_direction_by_hand() -> None:
    """F = diag(p) - p p^T and g = - p A, A of mean 0 under p: F x = - g at x = A less a constant, here its plain mean of - 1/3,
    since g is orthogonal to constants. x^T F x = sum p A^2 = 1: a KL of 0.01 is sqrt(2 x 0.01) = 0.141421 times x."""
    step: Any = Softmax()
    natural, scale = TRPO(damping=0.0)._natural(step, step.gradient(TRPO().surrogate, "policy"))
    assert natural[0].tolist() == pytest.approx([4 / 3, -2 / 3, -2 / 3], abs=2e-2)  # by finite steps
    assert scale == pytest.approx(0.141421, rel=2e-2)


def test_a_step_is_halved_until_it_is_within_and_none_is_taken_without_advantages() -> None:
    step: Any = Softmax()
    step.weights.grad = step.gradient(TRPO().surrogate, "policy")[0]
    taken = TRPO(max_kl=0.5).around_step(step, step)
    assert 0 < taken["step_kl"] <= 0.5 and step.means(TRPO().surrogate)["loss"] < 0
    step.weights.grad.zero_()
    assert TRPO().around_step(step, step) == {"step_kl": 0.0, "step_scale": 0.0}
    assert torch.equal(step.weights.data, step.start)


def test_training_stays_within_the_trust_region(tmp_path: Path) -> None:
    made = toys.setup(TRPO(max_kl=0.02), training={"max_steps": 3, "batch": 8})
    toys.trainer(made, tmp_path).train()
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    kls = [row["step_kl"] for row in steps if "step_kl" in row]
    assert len(kls) == 3 and all(0 < kl <= 0.02 for kl in kls)


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm\.value_model=shared: two kinds of step"):
        TRPO(value_model=ValueModel.shared)
    with pytest.raises(UserError, match=r"algorithm\.max_kl=0 is out of range: must be > 0"):
        TRPO(max_kl=0)
