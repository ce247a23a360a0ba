"""PPO's rollout, terms, control and state, on completions whose numbers are worked out."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Next, Scores
from alignzoo.kl import KL, Estimator, Place
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, TableValue, completions, constant, prompts
from alignzoo_plugins.ppo.ppo import PPO, Trajectories, ValueModel

SKEWED = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
FLAT = torch.zeros(3, 3, dtype=torch.float64)
OF = prompts(1, 2)
SAMPLES = completions(OF, [0, 1], [[0, 1], [2]])
UP, DOWN = math.log(1.5), math.log(0.75)  # log(pi / ref) of token 0, and of 1 and 2
VALUES = [0.5, 1.0]


def _models(score: Callable[[Completions], Scores] | None = None, policy: Tensor = SKEWED) -> FakeModels:
    value = TableValue(torch.tensor(VALUES, dtype=torch.float64).requires_grad_())
    return FakeModels(
        TablePolicy(policy, SAMPLES), reference=TablePolicy(FLAT), value=value, score=score or constant([2.0, -1.0])
    )


def _rollout(algorithm: PPO, models: FakeModels, batch: Prompts | Completions = OF) -> Trajectories:
    with torch.no_grad():
        return algorithm.experience(models, batch)


def test_a_rollout_by_hand() -> None:
    """gamma 1, lambda 0.5, beta 0.1, V = (0.5, 1).

    Row 0, tokens 0 and 1, reward 2: R = (-0.1 log 1.5, 2 - 0.1 log 0.75) = (-0.040547, 2.028768);
    delta = (-0.040547 + 1 - 0.5, 2.028768 - 1) = (0.459453, 1.028768);
    A = (0.459453 + 0.5 * 1.028768, 1.028768) = (0.973838, 1.028768).
    Row 1, token 2, reward -1: R = -1 + 0.028768; A = -0.971232 - 0.5 = -1.471232.
    """
    made = _rollout(PPO(gae_lambda=0.5, whiten=False, kl=KL(beta=0.1)), _models())
    expected = torch.tensor([[0.973838, 1.028768], [-1.471232, 0]], dtype=torch.float64)
    torch.testing.assert_close(made.advantages, expected, atol=1e-5, rtol=0)
    values = torch.tensor([[0.5, 1.0], [0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(made.values, values)
    torch.testing.assert_close(made.returns, expected + values, atol=1e-5, rtol=0)
    assert made.reward.tolist() == [2, -1]
    assert made.kl is not None and made.kl.tolist() == pytest.approx([UP + DOWN, DOWN])


def test_advantages_are_whitened_over_the_scored_tokens_of_the_rollout() -> None:
    made = _rollout(PPO(), _models())
    scored = made.advantages[made.scored]
    assert scored.mean().item() == pytest.approx(0, abs=1e-9)
    assert scored.var(unbiased=False).item() == pytest.approx(1, abs=1e-6)
    assert made.advantages[1, 1] == 0


def test_kl_in_the_loss_leaves_the_reward_alone() -> None:
    """k3 of token 0 at the rollout's policy: 2/3 - 1 + log 3/2 = 0.072132; of token 1: 4/3 - 1 + log 3/4 = 0.045651; beta 2."""
    algorithm = PPO(whiten=False, kl=KL(beta=2.0, place=Place.loss, estimator=Estimator.k3))
    models = _models()
    made = _rollout(algorithm, models)
    without = _rollout(PPO(whiten=False, kl=KL(beta=0.0)), models)
    torch.testing.assert_close(made.advantages, without.advantages)
    terms, _ = algorithm.loss(models, made)
    assert terms["kl_penalty"][0].tolist() == pytest.approx([0.144263, 0.091303], abs=1e-5)
    assert "kl_penalty" not in PPO().loss(models, _rollout(PPO(), models))[0]


@pytest.mark.parametrize(
    ("estimator", "first"), [(Estimator.k1, UP), (Estimator.k2, UP**2 / 2), (Estimator.k3, 2 / 3 - 1 + UP)]
)
def test_the_estimator_is_that_of_the_penalty_not_of_the_reported_kl(estimator: Estimator, first: float) -> None:
    """lambda 0 and V = 0 leave A_0 = R_0 = - beta k(token 0)."""
    models = _models()
    models.value = TableValue(torch.zeros(2, dtype=torch.float64))
    made = _rollout(PPO(gae_lambda=0.0, whiten=False, kl=KL(beta=0.5, estimator=estimator)), models)
    assert made.advantages[0, 0].item() == pytest.approx(-0.5 * first)
    assert made.kl is not None and made.kl[0].item() == pytest.approx(UP + DOWN)


def test_before_the_first_update_the_ratio_is_one_and_the_terms_are_as_worked_out() -> None:
    """L_policy = - A; L_value = 0.1 * 1/2 (V - G)^2 = 0.05 A^2, as G = A + V."""
    models, algorithm = _models(), PPO(gae_lambda=0.5, whiten=False, kl=KL(beta=0.1))
    made = _rollout(algorithm, models)
    terms, metrics = algorithm.loss(models, made)
    assert set(terms) == {"policy", "value"}
    torch.testing.assert_close(terms["policy"], -made.advantages)
    torch.testing.assert_close(terms["value"], 0.05 * made.advantages**2)
    assert metrics["ratio"][made.scored].tolist() == [1, 1, 1]
    assert not metrics["clip_fraction"].any() and not metrics["approximate_kl"].any()
    assert metrics["kl_coefficient"].item() == pytest.approx(0.1)


def test_after_an_update_ratio_clipping_and_approximate_kl_are_measured() -> None:
    """From (1/2, 1/4, 1/4) to (1/4, 1/2, 1/4): ratios 1/2 and 2, both beyond 0.2; r - 1 - log r = 0.193147 and 0.306853."""
    algorithm = PPO(whiten=False)
    made = _rollout(algorithm, _models())
    moved = torch.tensor([[0.25, 0.5, 0.25]] * 3, dtype=torch.float64).log()
    _, metrics = algorithm.loss(_models(policy=moved), made)
    assert metrics["ratio"][0].tolist() == pytest.approx([0.5, 2.0])
    assert metrics["clip_fraction"].tolist() == [[1, 1], [0, 0]]
    assert metrics["approximate_kl"][0].tolist() == pytest.approx([0.193147, 0.306853], abs=1e-6)


def test_the_value_clip_holds_values_near_the_rollouts() -> None:
    """Row 1: V_0 moved from 0.5 to 0, its return is -1: 1/2 (0 + 1)^2 = 0.5, but clipped to 0.3 1/2 (0.3 + 1)^2 = 0.845."""
    models = _models()
    made = _rollout(PPO(whiten=False, kl=KL(beta=0.0)), models)
    models.value = TableValue(torch.zeros(2, dtype=torch.float64))
    losses = [PPO(value_clip=clip).loss(models, made)[0]["value"][1, 0].item() for clip in (0.2, None)]
    assert losses == pytest.approx([0.0845, 0.05])


def test_gradients_reach_policy_and_value_in_the_right_direction() -> None:
    policy = SKEWED.clone().requires_grad_()
    models = _models(policy=policy)
    algorithm = PPO(whiten=False, gae_lambda=1.0, kl=KL(beta=0.0))
    terms, _ = algorithm.loss(models, _rollout(algorithm, models))
    sum(term.sum() for term in terms.values()).backward()
    assert policy.grad is not None and models.value.at.grad is not None
    assert policy.grad[1, 0] < 0  # the first token of row 0, reward 2 > V: likelier
    assert policy.grad[2, 2] > 0  # of row 1, reward -1 < V: less likely
    # V_0 is moved towards returns of 2 and -1, V_1 towards 2: 0.1 * ((0.5 - 2) + (0.5 + 1)) and 0.1 * (1 - 2)
    assert models.value.at.grad.tolist() == pytest.approx([0.0, -0.1])


def test_the_entropy_bonus_is_minus_the_entropy() -> None:
    """H(1/2, 1/4, 1/4) = 1.5 log 2 = 1.039721."""
    models, algorithm = _models(), PPO(entropy_coef=0.01)
    terms, _ = algorithm.loss(models, _rollout(algorithm, models))
    assert terms["entropy_bonus"][1].tolist() == pytest.approx([-0.01039721, 0], abs=1e-7)


def test_the_pretraining_mix_learns_each_rows_demonstration_with_its_own_weights() -> None:
    """Row 1's demonstration is (0, 2, 1), of which the 2 is not scored: ptx_coef log 2 and log 4."""
    demonstrations = completions(OF, [0, 1], [[1], [0, 2, 1]], [[1], [1, 0, 1]])
    algorithm = PPO(ptx_coef=27.8)
    assert algorithm.data is Completions and PPO().data is Prompts
    made = _rollout(algorithm, _models(), demonstrations).take([1, 0])
    terms, _ = algorithm.loss(_models(), made)
    two, four = 27.8 * math.log(2), 27.8 * math.log(4)
    expected = torch.tensor([[two, 0, four], [four, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(terms["pretraining"], expected)
    assert algorithm.weights(made)["pretraining"].tolist() == [[1, 0, 1], [1, 0, 0]]
    assert PPO().weights(_rollout(PPO(), _models())) == {}
    assert not algorithm.weights(made.blank())["pretraining"].any()


def test_of_several_demonstrations_of_a_prompt_the_first_is_taken() -> None:
    demonstrations = completions(OF, [1, 0, 1], [[2], [1], [0]])
    made = _rollout(PPO(ptx_coef=1.0), _models(), demonstrations)
    assert made.demonstration is not None and made.demonstration.ids[:, 0].tolist() == [1, 2]


def test_rows_of_one_prompt_are_as_many_draws_each_with_its_own_demonstration() -> None:
    """Two rows demonstrate the same prompt, which the data then keeps once: both are sampled."""
    twice = replace(completions(prompts(1), [0, 0], [[2], [1]]), row=torch.arange(2))
    made = _rollout(PPO(ptx_coef=1.0), _models(), twice)
    assert made.row.tolist() == [0, 1] and made.prompts.ids[made.prompt_of, -1].tolist() == [1, 1]
    assert made.demonstration is not None and made.demonstration.ids[:, 0].tolist() == [2, 1]


def test_completions_without_a_score_are_dropped_before_whitening() -> None:
    models = _models(constant([2.0, math.nan], valid=[True, False]))
    made = _rollout(PPO(), models)
    assert len(made) == 1
    assert made.advantages.isfinite().all() and made.advantages.mean().item() == pytest.approx(0, abs=1e-9)


def test_token_level_rewards_stand_where_they_are_given() -> None:
    """lambda 0, V = 0: A_t = r_t; what stands on padding is not read."""
    models = _models(constant([[1.0, 2.0], [3.0, math.nan]]))
    models.value = TableValue(torch.zeros(2, dtype=torch.float64))
    made = _rollout(PPO(gae_lambda=0.0, whiten=False, kl=KL(beta=0.0)), models)
    assert made.advantages.tolist() == [[1, 2], [3, 0]]
    assert made.reward.tolist() == [3, 3]


def test_a_batch_with_nothing_scored_has_finite_loss_and_gradient() -> None:
    policy = SKEWED.clone().requires_grad_()
    models, algorithm = _models(policy=policy), PPO(entropy_coef=0.1)
    terms, _ = algorithm.loss(models, _rollout(algorithm, models).blank())
    sum(term.sum() for term in terms.values()).backward()
    assert all(term.isfinite().all() for term in terms.values())
    assert policy.grad is not None and not policy.grad.any()


def test_adaptive_control_step_by_step_through_a_restart() -> None:
    """As `adapted_kl_coefficient`: 0.15 * 1.01024, then from the saved state * 0.98976, used by the next rollout's penalty."""
    algorithm = PPO(kl=KL(beta=0.15, target=6.0))
    algorithm.after_rollout({"kl": 12.0, "samples": 512.0})
    assert algorithm.kl.coefficient == pytest.approx(0.151536)
    again = PPO(kl=KL(beta=0.15, target=6.0))
    again.load_state_dict(algorithm.state_dict())
    again.after_rollout({"kl": 0.0, "samples": 512.0})
    assert again.kl.coefficient == pytest.approx(0.1499843, abs=1e-6)
    assert again.kl.penalty(torch.tensor(0.5), torch.tensor(0.0)).item() == pytest.approx(0.0749921, abs=1e-6)


def test_fixed_control_stays() -> None:
    algorithm = PPO()
    algorithm.after_rollout({"kl": 12.0, "samples": 512.0})
    assert algorithm.kl.coefficient == 0.2


def test_early_stop_asks_for_a_new_rollout_beyond_the_limit_only() -> None:
    algorithm = PPO(stop_kl=0.02)
    assert algorithm.after_step({"approximate_kl": 0.021}) is Next.ROLLOUT
    assert algorithm.after_step({"approximate_kl": 0.019}) is Next.CONTINUE
    assert algorithm.after_step({}) is Next.CONTINUE  # nothing was scored
    assert PPO().after_step({"approximate_kl": 9.0}) is Next.CONTINUE


def test_passes_are_the_epochs() -> None:
    assert PPO(epochs=3).passes() == 3


@pytest.mark.parametrize(
    ("value_model", "start", "shares"),
    [(ValueModel.policy, "policy", None), (ValueModel.reward, "reward", None), (ValueModel.shared, "policy", "policy")],
)
def test_the_value_role(value_model: ValueModel, start: str, shares: str | None) -> None:
    role = PPO(value_model=value_model).roles()["value"]
    assert (role.start, role.shares, role.trained) == (start, shares, True)


def test_without_kl_there_is_no_reference() -> None:
    assert "reference" in PPO().roles()
    assert "reference" not in PPO(kl=KL(beta=0.0)).roles()
    models = replace(_models(), reference=None)
    assert _rollout(PPO(kl=KL(beta=0.0)), models).kl is None


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: PPO(discount=1.1), "discount=1.1"),
        (lambda: PPO(gae_lambda=-0.1), "gae_lambda=-0.1"),
        (lambda: PPO(clip=0.0), "clip=0.0"),
        (lambda: PPO(value_clip=-1.0), "value_clip=-1.0"),
        (lambda: PPO(value_coef=-1.0), "value_coef=-1.0"),
        (lambda: PPO(epochs=0), "epochs=0"),
        (lambda: PPO(stop_kl=0.0), "stop_kl=0.0"),
        (lambda: PPO(ptx_coef=-1.0), "ptx_coef=-1.0"),
        (lambda: PPO(entropy_coef=-1.0), "entropy_coef=-1.0"),
        (lambda: KL(beta=-0.1), "kl.beta=-0.1"),
        (lambda: KL(target=0.0), "kl.target=0.0"),
        (lambda: KL(beta=0.0, target=6.0), "kl.beta=0.0"),
        (lambda: KL(horizon=500.0), "kl.horizon=500.0"),
        (lambda: KL(horizon=-1.0, target=6.0), "kl.horizon=-1.0"),
        (lambda: KL(place=Place.loss), "kl.estimator=k1"),
    ],
)
def test_ppo_refuses_what_is_out_of_range_or_unused(make: Callable[[], object], key: str) -> None:
    with pytest.raises(UserError, match=f"algorithm.{key} "):
        make()
