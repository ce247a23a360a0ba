"""A2C and VAPO, on the rollout of test_ppo.py, whose numbers are worked out there: beta 0.1, V = (0.5, 1), rewards 2 and -1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alignzoo.contracts import Next
from alignzoo.functional import gae, length_adaptive_lambda
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, TableValue, completions, constant, prompts
from alignzoo_plugins.ppo.a2c import A2C
from alignzoo_plugins.ppo.critic import ValueModel
from alignzoo_plugins.ppo.vapo import VAPO

OF = prompts(1, 2)
SAMPLES = completions(OF, [0, 1], [[0, 1], [2]])


def models() -> FakeModels:
    """Token 0 has probability 1/2, 1 and 2 have 1/4; the reference is uniform."""
    table = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
    value = TableValue(torch.tensor([0.5, 1.0], dtype=torch.float64))
    reference = TablePolicy(torch.zeros(3, 3, dtype=torch.float64))
    return FakeModels(TablePolicy(table, SAMPLES), reference=reference, value=value, score=constant([2.0, -1.0]))


def of_tokens(terms: dict[str, Tensor]) -> dict[str, list[float]]:
    return {name: term[SAMPLES.scored].tolist() for name, term in terms.items()}


def test_a2c_by_hand() -> None:
    """G = 2 - 0.1 (log 3/2 + log 3/4) = 1.988221, 2 - 0.1 log 3/4 = 2.028768, -1 - 0.1 log 3/4 = -0.971232; less V
    1.488221, 1.028768, -1.471232. Times log 2, log 4, log 4; squared and halved; entropy 1.5 log 2 = 1.039721."""
    algorithm = A2C(beta=0.1)
    terms, _ = algorithm.loss(models(), algorithm.experience(models(), OF))
    values = of_tokens(terms)
    assert values["policy"] == pytest.approx([1.031556, 1.426175, -2.039560], abs=1e-5)
    assert values["value"] == pytest.approx([1.107401, 0.529182, 1.082262], abs=1e-5)
    assert values["entropy_bonus"] == pytest.approx([-0.010397] * 3, abs=1e-6)


def test_lambda_grows_with_length() -> None:
    """1 - 1 / 2 at 40 tokens, 1 - 1 / 1 at 20, and no less."""
    assert length_adaptive_lambda(torch.tensor([40.0, 20, 10, 0]), 0.05).tolist() == pytest.approx([0.5, 0, 0, 0])


def test_each_row_may_have_a_lambda_of_its_own() -> None:
    rewards, values = torch.arange(12.0).reshape(2, 2, 3)
    scored = torch.tensor([[1, 1, 1], [1, 0, 1]]).bool()
    both = gae(rewards, values, scored, 0.9, torch.tensor([0.5, 0.8]))[0]
    for row, lam in enumerate((0.5, 0.8)):
        torch.testing.assert_close(both[row], gae(rewards, values, scored, 0.9, lam)[0][row])


def test_vapo_by_hand() -> None:
    """alpha 1: lambda 1/2 for two tokens, 0 for one: A = 0.973838, 1.028768, -1.471232, as PPO's; G of lambda 1, as A2C's. The
    likelihood of the first completion alone, whose reward is above 0: 0.1 log 2, 0.1 log 4."""
    algorithm = VAPO(alpha=1.0, whiten=False, beta=0.1)
    made = algorithm.experience(models(), OF)
    terms, metrics = algorithm.loss(models(), made)
    values = of_tokens(terms)
    assert values["policy"] == pytest.approx([-0.973838, -1.028768, 1.471232], abs=1e-5)
    assert values["value"] == pytest.approx([1.107401, 0.529182, 1.082262], abs=1e-5)
    assert values["imitation"] == pytest.approx([0.069315, 0.138629, 0.138629], abs=1e-5)
    assert algorithm.weights(made)["imitation"].tolist() == [[1, 1], [0, 0]]
    assert VAPO(success=2.0).weights(made)["imitation"].tolist() == [[0, 0], [0, 0]]
    assert metrics["clip_fraction"].sum() == 0


def test_the_value_model_learns_first_and_the_count_survives() -> None:
    algorithm = VAPO(alpha=1.0, whiten=False, value_warmup=2)
    made = algorithm.experience(models(), OF)
    for learns in (False, False, True):
        resumed = VAPO(alpha=1.0, whiten=False, value_warmup=2)
        resumed.load_state_dict(algorithm.state_dict())
        for one in (algorithm, resumed):
            terms, _ = one.loss(models(), made)
            assert bool(terms["policy"].any()) is bool(terms["imitation"].any()) is learns
            assert terms["value"].any()
        assert algorithm.after_step({}) is Next.CONTINUE


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (A2C, {"gae_lambda": 1.1}), (A2C, {"entropy_coef": -0.1}), (A2C, {"discount": 1.1}), (A2C, {"value_coef": -1.0}),
        (VAPO, {"alpha": 0.0}), (VAPO, {"clip": 0.0}), (VAPO, {"clip_high": 0.0}), (VAPO, {"imitation_coef": -0.1}),
        (VAPO, {"epochs": 0}), (VAPO, {"success": 1.0, "imitation_coef": 0.0}),
        (VAPO, {"value_warmup": -1}), (VAPO, {"value_warmup": 1, "value_model": ValueModel.shared}),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(kind: type, settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{next(iter(settings))}="):
        kind(**settings)


@pytest.mark.parametrize("kind", [A2C, VAPO])
def test_odd_rewards_have_finite_losses(kind: type) -> None:
    for rewards in ([1e6, -1e6], [1.0, 1.0], [1.0, 1.0 + 1e-6]):
        networks, algorithm = models(), kind()
        networks.score = constant(rewards)
        terms, _ = algorithm.loss(networks, algorithm.experience(networks, OF))
        assert all(torch.isfinite(term).all() for term in terms.values())
