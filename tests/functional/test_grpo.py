"""GRPO on table policies, and its advantages."""

import math
from dataclasses import replace

import pytest
import torch

from alignzoo.functional import clipped_surrogate, group_advantages
from alignzoo.kl import Estimator
from alignzoo.settings import Sampling, UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, constant, prompts
from alignzoo_plugins.grpo.grpo import GRPO, Average, Grouped, Ratio

SKEWED = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
UNIFORM = torch.zeros(3, 3, dtype=torch.float64)
OF = prompts(1)
SAMPLES = completions(OF, [0, 0, 0], [[0], [1], [2]])


def models(rewards: list[float], samples: object = SAMPLES, valid: list[bool] | None = None, longest: int = 8) -> FakeModels:
    policy = TablePolicy(SKEWED, samples)  # type: ignore[arg-type]
    sampling = Sampling(samples=3, max_new_tokens=longest)
    return FakeModels(policy, reference=TablePolicy(UNIFORM), score=constant(rewards, valid), sampling=sampling)


def test_group_advantages_by_hand() -> None:
    """1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7. 5, 5: no spread. 4 alone: nothing to compare with."""
    values = torch.tensor([1.0, 5.0, 2.0, 6.0, 5.0, 4.0], dtype=torch.float64)
    group = torch.tensor([0, 9, 0, 0, 9, 3])
    sd = math.sqrt(7) + 1e-4
    assert group_advantages(values, group).tolist() == pytest.approx([-2 / sd, 0, -1 / sd, 3 / sd, 0, 0], abs=1e-12)
    assert group_advantages(values, group, scale=False).tolist() == [-2, 0, -1, 3, 0, 0]


def test_invalid_values_take_no_part_in_group_advantages() -> None:
    """Of 1, NaN, 3 the mean is 2 and the variance 2."""
    values = torch.tensor([1.0, torch.nan, 3.0])
    found = group_advantages(values, torch.zeros(3, dtype=torch.long), torch.tensor([True, False, True]))
    assert found.tolist() == pytest.approx([-0.707057, 0.0, 0.707057], abs=1e-5)


def test_a_rollout_by_hand() -> None:
    made = GRPO().experience(models([1.0, 2.0, 6.0]), OF)
    assert made.advantages.tolist() == pytest.approx([-0.755900, -0.377950, 1.133850], abs=1e-5)
    assert made.reward.tolist() == [1, 2, 6]
    assert made.kl is not None
    assert made.kl.tolist() == pytest.approx([math.log(1.5), math.log(0.75), math.log(0.75)])


def test_the_loss_by_hand() -> None:
    """At the sampler: - A + 0.04 k3, which is 2/3 - 1 + log 3/2 = 0.072132 for token 0, else 1/3 + log 3/4 = 0.045651."""
    given = models([1.0, 2.0, 6.0])
    loss, metrics = GRPO().loss(given, GRPO().experience(given, OF))
    assert loss.tolist() == pytest.approx([0.755900 + 0.0028853, 0.377950 + 0.0018260, -1.133850 + 0.0018260], abs=1e-5)
    assert metrics["ratio"][:, 0].tolist() == [1, 1, 1]


def _rollout(ratios: list[list[float]], advantages: list[float]) -> Grouped:
    """Completions of these ratios to the sampler."""
    c = completions(prompts(*[1] * len(ratios)), list(range(len(ratios))), [[0] * len(row) for row in ratios])
    width = c.ids.shape[1]
    log = torch.tensor([[math.log(r) for r in row] + [0.0] * (width - len(row)) for row in ratios], dtype=torch.float64)
    now = TablePolicy(SKEWED).logprobs(c)
    nothing = torch.zeros(len(ratios))
    weighed = torch.tensor(advantages, dtype=torch.float64)
    return Grouped(**vars(c), old_logprobs=now - log, advantages=weighed, reward=nothing)


def test_the_ratio_is_clipped_on_either_side_by_itself() -> None:
    """epsilon 0.2, above 0.5: A = 1 stops at 1.5, A = -1 at 0.8."""
    batch = _rollout([[1.6], [1.4], [0.7], [0.7], [1.6]], [1.0, 1.0, 1.0, -1.0, -1.0])
    loss, metrics = GRPO(beta=0.0, clip=0.2, clip_high=0.5).loss(models([]), batch)
    assert loss.tolist() == pytest.approx([-1.5, -1.4, -0.7, 0.8, 1.6])
    assert metrics["clip_fraction"][:, 0].tolist() == [1, 0, 1, 1, 1]


def test_without_an_upper_epsilon_both_are_the_same() -> None:
    ratio, old = torch.tensor([[1.3, 0.7]]).log(), torch.zeros(1, 2)
    found = clipped_surrogate(ratio, old, torch.tensor([[1.0, -1.0]]), 0.2)
    assert found.tolist() == [pytest.approx([-1.2, 0.8])]


def test_three_averages_by_hand() -> None:
    """Ratio 1.1 twice, and 1.2 once, with advantages 1 and 2; at most 4 tokens."""
    batch = _rollout([[1.1, 1.1], [1.2]], [1.0, 2.0])
    loss = {a: GRPO(beta=0.0, clip=0.5, average=a).loss(models([], longest=4), batch)[0] for a in Average}
    assert loss[Average.completion].tolist() == pytest.approx([-1.1, -2.4])
    assert loss[Average.constant].tolist() == pytest.approx([-0.55, -0.6])
    assert loss[Average.token][batch.scored].tolist() == pytest.approx([-1.1, -1.1, -2.4])


def test_the_ratio_of_a_completion_is_the_geometric_mean() -> None:
    """2 and 1/2 make 1; 1.1^2 and 1 make 1.1, which is cut at 1.05."""
    batch = _rollout([[2.0, 0.5], [1.21, 1.0]], [1.0, 1.0])
    loss, metrics = GRPO(beta=0.0, clip=0.05, ratio=Ratio.completion).loss(models([]), batch)
    assert loss.tolist() == pytest.approx([-1.0, -1.05])
    assert metrics["clip_fraction"].tolist() == [[0, 0], [1, 1]]


def test_one_ratio_is_not_counted_once_a_token() -> None:
    with pytest.raises(UserError, match=r"algorithm\.ratio=completion with algorithm\.average=token.*average=completion"):
        GRPO(ratio=Ratio.completion, average=Average.token)


def _two_prompts() -> tuple[object, object]:
    of = prompts(1, 2)
    return of, completions(of, [0, 0, 1, 1], [[0], [1], [1, 2], [2]])


def test_prompts_with_equal_rewards_can_be_left_out() -> None:
    of, samples = _two_prompts()
    given = models([3.0, 3.0, 1.0, 2.0], samples)
    assert GRPO().experience(given, of).reward.tolist() == [3, 3, 1, 2]  # type: ignore[arg-type]
    assert GRPO(skip_equal=True).experience(given, of).reward.tolist() == [1, 2]  # type: ignore[arg-type]


def test_the_share_of_prompts_that_teach_nothing_is_counted() -> None:
    of = prompts(1, 1)
    rollout = GRPO().experience(models([1.0, 1.0, 2.0, 3.0], completions(of, [0, 0, 1, 1], [[0], [1], [2], [0]])), of)
    assert rollout.equal_groups is not None and rollout.equal_groups.tolist() == [1, 1, 0, 0]


def test_a_reward_that_cannot_be_had_does_not_make_a_prompt_differ() -> None:
    of, samples = _two_prompts()
    given = models([3.0, -7.0, 1.0, 2.0], samples, valid=[True, False, True, True])
    assert GRPO(skip_equal=True).experience(given, of).reward.tolist() == [1, 2]  # type: ignore[arg-type]
    assert GRPO().experience(given, of).reward.tolist() == [3, 1, 2]  # type: ignore[arg-type]


def test_truncated_completions_can_be_left_out_but_stay_in_the_baseline() -> None:
    cut = replace(SAMPLES, truncated=torch.tensor([False, False, True]))
    made = GRPO(skip_truncated=True, scale=False).experience(models([1.0, 2.0, 6.0], cut), OF)
    assert made.advantages.tolist() == [-2, -1]


def test_without_kl_there_is_no_reference() -> None:
    assert set(GRPO().roles()) == {"policy", "reward", "reference"}
    assert set(GRPO(beta=0.0).roles()) == {"policy", "reward"}


@pytest.mark.parametrize(("setting", "value"), [("beta", -0.1), ("clip", 0.0), ("clip_high", 0.0), ("epochs", 0)])
def test_grpo_refuses_what_is_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{setting}="):
        GRPO(**{setting: value})  # type: ignore[arg-type]


def test_the_kl_can_be_weighed_by_the_ratio() -> None:
    """0.072132, and 1.25 times that, at beta 1 and no advantage."""
    given = models([1.0, 2.0, 6.0])
    made = GRPO(beta=1.0).experience(given, OF)
    moved = replace(made, old_logprobs=made.old_logprobs - math.log(1.25), advantages=torch.zeros(3))
    assert GRPO(beta=1.0).loss(given, moved)[0][0].item() == pytest.approx(0.072132, abs=1e-6)
    assert GRPO(beta=1.0, weigh_kl=True).loss(given, moved)[0][0].item() == pytest.approx(0.090165, abs=1e-6)


def test_there_is_no_kl_to_weigh_without_beta() -> None:
    with pytest.raises(UserError, match=r"algorithm\.weigh_kl=True.*algorithm\.beta=0"):
        GRPO(beta=0.0, weigh_kl=True)


def test_the_kl_has_other_estimators() -> None:
    """k2 = log(3/2)^2 / 2 for token 0, at beta 1 and no advantage; the KL reported is log(3/2) whatever the estimator."""
    given, algorithm = models([1.0, 2.0, 6.0]), GRPO(beta=1.0, kl_estimator=Estimator.k2)
    made = algorithm.experience(given, OF)
    loss = algorithm.loss(given, replace(made, advantages=torch.zeros(3)))[0]
    assert loss[0].item() == pytest.approx(math.log(1.5) ** 2 / 2)
    assert made.kl is not None and made.kl[0].item() == pytest.approx(math.log(1.5))


@pytest.mark.parametrize(("beta", "estimator"), [(0.04, Estimator.k1), (0.0, Estimator.k2)])
def test_an_estimator_without_effect_is_refused(beta: float, estimator: Estimator) -> None:
    with pytest.raises(UserError, match=rf"^algorithm\.kl_estimator={estimator.value} is out of range"):
        GRPO(beta=beta, kl_estimator=estimator)
