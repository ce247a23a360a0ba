"""REINFORCE's returns, baselines, state and gradient, on completions whose numbers are worked out."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Scores
from alignzoo.engine.checks import check_sizes
from alignzoo.kl import Estimator
from alignzoo.settings import Rollout, Training, UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, constant, prompts, table
from alignzoo_plugins.reinforce.baselines import Baseline
from alignzoo_plugins.reinforce.reinforce import Reinforce

SKEWED = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
FLAT = torch.zeros(3, 3, dtype=torch.float64)
REWARDS = [1.0, 3.0, 10.0, 20.0]
OF = prompts(1, 2)
SAMPLES = completions(OF, [0, 0, 1, 1], [[0, 0], [1], [0, 1], [2, 2]])
# log(pi / ref) is log 3/2 for token 0 and log 3/4 for 1 and 2, hence by completion:
UP, DOWN = math.log(1.5), math.log(0.75)
KL = [2 * UP, DOWN, UP + DOWN, 2 * DOWN]


def _models(score: Callable[[Completions], Scores], greedy: Completions | None = None, policy: Tensor = SKEWED) -> FakeModels:
    return FakeModels(TablePolicy(policy, SAMPLES, greedy), reference=TablePolicy(FLAT), score=score)


def _first_advantages(algorithm: Reinforce, models: FakeModels) -> list[float]:
    return algorithm.experience(models, OF).advantages[:, 0].tolist()


@pytest.mark.parametrize(
    ("baseline", "advantages"),
    [
        (Baseline.none, [1, 3, 10, 20]),
        (Baseline.mean, [-7.5, -5.5, 1.5, 11.5]),
        (Baseline.moving_average, [-7.5, -5.5, 1.5, 11.5]),  # no past yet: the rollout's own mean, 8.5
        (Baseline.leave_one_out, [-2, 2, -10, 10]),
        (Baseline.greedy, [-1, 1, 5, 15]),  # greedy completions are worth 2 and 5
    ],
)
def test_baselines_by_hand(baseline: Baseline, advantages: list[float]) -> None:
    greedy = completions(OF, [0, 1], [[0], [0]])
    score = lambda c: constant([2.0, 5.0] if len(c) == 2 else REWARDS)(c)  # noqa: E731
    made = Reinforce(beta=0.0, baseline=baseline).experience(_models(score, greedy), OF)
    assert made.advantages[:, 0].tolist() == pytest.approx(advantages)
    assert made.reward.tolist() == REWARDS
    assert made.kl is None


def test_kl_is_taken_from_the_return_and_reported_apart_from_the_reward() -> None:
    made = Reinforce(beta=0.5, baseline=Baseline.none).experience(_models(constant(REWARDS)), OF)
    assert made.kl is not None and made.kl.tolist() == pytest.approx(KL)
    assert made.reward.tolist() == REWARDS
    assert made.advantages[:, 0].tolist() == pytest.approx([r - 0.5 * k for r, k in zip(REWARDS, KL, strict=True)])
    assert made.advantages[0, 1] == made.advantages[0, 0]  # the whole completion is one action


def test_the_estimator_is_that_of_the_penalty_not_of_the_reported_kl() -> None:
    """The first completion is token 0 twice: its return is 1 - 0.5 * 2 * log(3/2)^2 / 2."""
    algorithm = Reinforce(beta=0.5, baseline=Baseline.none, kl_estimator=Estimator.k2)
    made = algorithm.experience(_models(constant(REWARDS)), OF)
    assert made.advantages[0, 0].item() == pytest.approx(1 - 0.5 * UP**2)
    assert made.kl is not None and made.kl.tolist() == pytest.approx(KL)
    with pytest.raises(UserError, match=r"^algorithm\.kl_estimator=k2 .*: must be left at k1 where algorithm\.beta=0"):
        Reinforce(beta=0.0, kl_estimator=Estimator.k2)


def test_reward_to_go_leaves_the_past_out() -> None:
    """Row 2: token 0 costs beta log 3/2, token 1 beta log 3/4; the reward comes last."""
    algorithm = Reinforce(beta=0.5, baseline=Baseline.none, reward_to_go=True)
    row = algorithm.experience(_models(constant(REWARDS)), OF).advantages[2].tolist()
    assert row == pytest.approx([10 - 0.5 * (UP + DOWN), 10 - 0.5 * DOWN])


def test_token_level_rewards_are_summed_or_summed_from_there() -> None:
    tokens = [[1.0, 2.0], [3.0, 99.0], [0.0, 5.0], [4.0, 4.0]]  # row 1 has one token: 99 is padding
    whole = Reinforce(beta=0.0, baseline=Baseline.none).experience(_models(constant(tokens)), OF)
    assert whole.reward.tolist() == [3, 3, 5, 8]
    assert whole.advantages[0].tolist() == [3, 3]
    to_go = Reinforce(beta=0.0, baseline=Baseline.none, reward_to_go=True).experience(_models(constant(tokens)), OF)
    assert to_go.advantages[0].tolist() == [3, 2]


@pytest.mark.parametrize(
    ("baseline", "advantages"),
    [(Baseline.leave_one_out, [0, -10, 10]), (Baseline.mean, [1 - 31 / 3, 10 - 31 / 3, 20 - 31 / 3])],
)
def test_completions_without_a_score_are_left_out_everywhere(baseline: Baseline, advantages: list[float]) -> None:
    """Row 1's NaN reaches neither the rollout nor the baselines; row 0, alone in its group, has nothing to learn."""
    score = constant([1.0, math.nan, 10.0, 20.0], valid=[True, False, True, True])
    made = Reinforce(beta=0.0, baseline=baseline).experience(_models(score), OF)
    assert made.ids[:, 0].tolist() == [0, 0, 2]
    assert made.advantages[:, 0].tolist() == pytest.approx(advantages)


def test_a_prompt_whose_greedy_completion_has_no_score_is_left_out() -> None:
    greedy = completions(OF, [0, 1], [[0], [0]])
    score = lambda c: constant([math.nan, 5.0], [False, True])(c) if len(c) == 2 else constant(REWARDS)(c)  # noqa: E731
    made = Reinforce(beta=0.0, baseline=Baseline.greedy).experience(_models(score, greedy), OF)
    assert made.advantages[:, 0].tolist() == [5, 15]


def test_the_moving_average_is_of_past_returns_and_survives_a_restart() -> None:
    """After returns of 4 - 0.5 * 2 = 3 and then 8 - 0.5 * 6 = 5 with decay 0.75: 3, then 0.75 * 3 + 0.25 * 5 = 3.5."""
    algorithm = Reinforce(beta=0.5, baseline=Baseline.moving_average, decay=0.75)
    algorithm.after_rollout({"reward": 4.0, "kl": 2.0, "samples": 4.0})
    assert algorithm.average == 3.0
    algorithm.after_rollout({"reward": 8.0, "kl": 6.0, "samples": 4.0})
    again = Reinforce(beta=0.5, baseline=Baseline.moving_average, decay=0.75)
    again.load_state_dict(algorithm.state_dict())
    expected = [r - 0.5 * k - 3.5 for r, k in zip(REWARDS, KL, strict=True)]
    assert _first_advantages(again, _models(constant(REWARDS))) == pytest.approx(expected)


def test_only_the_moving_average_has_state() -> None:
    algorithm = Reinforce()
    algorithm.after_rollout({"reward": 4.0, "kl": 2.0, "samples": 4.0})
    assert algorithm.state_dict() == Reinforce().state_dict()


def test_the_loss_sums_over_tokens_and_follows_the_advantage() -> None:
    """Without a baseline row 0 loses - 1 * 2 log 1/2 = 1.386294, row 1 - 3 * log 1/4 = 4.158883."""
    policy = SKEWED.clone().requires_grad_()
    algorithm = Reinforce(beta=0.0, baseline=Baseline.none)
    models = _models(constant(REWARDS), policy=policy)
    with torch.no_grad():
        batch = algorithm.experience(models, OF)
    loss, _ = algorithm.loss(models, batch)
    assert loss[:2].tolist() == pytest.approx([1.386294, 4.158883], abs=1e-5)
    gradient = torch.autograd.grad(loss[0], policy)[0]
    assert gradient[1, 0] < 0 < gradient[1, 1]  # after the prompt's token 1, token 0 is made likelier


def test_a_completion_with_nothing_scored_has_finite_loss_and_gradient() -> None:
    policy = SKEWED.clone().requires_grad_()
    models = _models(constant(REWARDS), policy=policy)
    with torch.no_grad():
        batch = Reinforce().experience(models, OF).blank()
    loss, _ = Reinforce().loss(models, batch)
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0, 0] and policy.grad is not None and not policy.grad.any()


@pytest.mark.parametrize("reward_to_go", [False, True])
def test_the_expected_gradient_is_that_of_reward_minus_beta_kl(reward_to_go: bool) -> None:
    """Every completion of two tokens over a vocabulary of three, each weighed by its probability, against autograd on
    J = E[r] - beta KL written out."""
    beta, policy, reference = 0.3, table(0, 3), table(1, 3).detach()
    strings = [list(s) for s in product(range(3), repeat=2)]
    of = prompts(1)
    every = completions(of, [0] * 9, strings)
    reward = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    models = FakeModels(TablePolicy(policy, every), reference=TablePolicy(reference), score=lambda c: Scores(total=reward))
    algorithm = Reinforce(beta=beta, baseline=Baseline.none, reward_to_go=reward_to_go)
    with torch.no_grad():
        batch = algorithm.experience(models, of)
    log_policy = models.policy.logprobs(every).sum(1)
    probability = log_policy.exp()
    objective = (probability * (reward - beta * (log_policy - models.reference.logprobs(every).sum(1)))).sum()
    expected = torch.autograd.grad(-objective, policy)[0]
    loss, _ = algorithm.loss(models, batch)
    torch.testing.assert_close(torch.autograd.grad((probability.detach() * loss).sum(), policy)[0], expected)


def test_leave_one_out_with_one_sample_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"rollout\.samples=1 is too few.*at least 2"):
        check_sizes(Reinforce(), Training(), Rollout(samples=1), ranks=1)
    assert check_sizes(Reinforce(baseline=Baseline.mean), Training(), Rollout(samples=1), ranks=1) == 64


def test_without_kl_there_is_no_reference() -> None:
    assert set(Reinforce().roles()) == {"policy", "reward", "reference"}
    assert set(Reinforce(beta=0.0).roles()) == {"policy", "reward"}


@pytest.mark.parametrize("settings", [{"beta": -0.1}, {"decay": 0.5}, {"baseline": Baseline.moving_average, "decay": 1.0}])
def test_reinforce_refuses_what_is_out_of_range_or_unused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{list(settings)[-1]}="):
        Reinforce(**settings)
