"""What needs no value model: surrogates and advantages by hand, rollouts on table policies, rewards that are odd."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo import functional as F
from alignzoo.contracts import Scores
from alignzoo.settings import Sampling, UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, constant, prompts
from alignzoo_plugins.grpo.cispo import CISPO
from alignzoo_plugins.grpo.clip_cov import ClipCov
from alignzoo_plugins.grpo.dppo import DPPO, Divergence
from alignzoo_plugins.grpo.gdpo import GDPO
from alignzoo_plugins.grpo.gmpo import GMPO
from alignzoo_plugins.grpo.grpo import GRPO
from alignzoo_plugins.grpo.grpo_openrlhf import GRPOOpenRLHF
from alignzoo_plugins.grpo.high_entropy import HighEntropy
from alignzoo_plugins.grpo.maxrl import MaxRL
from alignzoo_plugins.grpo.reinforce_pp import ReinforcePP
from alignzoo_plugins.grpo.reinforce_pp_baseline import ReinforcePPBaseline
from alignzoo_plugins.grpo.rloo_trl import RLOOTRL
from alignzoo_plugins.grpo.sapo import SAPO
from alignzoo_plugins.grpo.vespo import VESPO

ALL = [
    GRPO, CISPO, GMPO, SAPO, MaxRL, GDPO, DPPO, ReinforcePP, ReinforcePPBaseline, GRPOOpenRLHF, RLOOTRL, VESPO, HighEntropy,
    ClipCov,
]  # fmt: skip
OF = prompts(1)


def gradient(loss: Tensor, logprobs: Tensor) -> Any:
    return torch.autograd.grad(loss.sum(), logprobs)[0].tolist()


def at_ratio(*ratios: float) -> tuple[Tensor, Tensor]:
    """Log-probs log 1/2 now, and those at sampling, (1, T), of these ratios."""
    new = torch.full((1, len(ratios)), math.log(0.5), dtype=torch.float64, requires_grad=True)
    return new, (new - torch.tensor([ratios], dtype=torch.float64).log()).detach()


def test_cispo_by_hand() -> None:
    """Weight 1.2 instead of 1.5, and 0.5: - 1.2 * 2 log 1/2, and 0.5 log 1/2. The gradient is - weight * A, however far."""
    new, old = at_ratio(1.5, 0.5)
    loss = F.cispo_surrogate(new, old, torch.tensor([[2.0, -1.0]]), 0.0, 1.2)
    assert loss.tolist() == [pytest.approx([1.663553, -0.346574], abs=1e-6)]
    assert gradient(loss, new) == [pytest.approx([-2.4, 0.5])]
    assert F.cispo_surrogate(new, old, torch.ones(1, 2), 0.8, 1.2).tolist() == [pytest.approx([0.831777, 0.554518], abs=1e-6)]


@pytest.mark.parametrize(
    ("logs", "advantage", "loss", "slopes"),
    [
        ((0.6, -0.2), 1.0, -1.105171, (0.0, -0.552585)),  # (0.4 - 0.2) / 2: - e^0.1, shared by what is not cut
        ((0.6, -0.2), -2.0, 2.442806, (1.221403, 1.221403)),  # (0.6 - 0.2) / 2: 2 e^0.2
        ((-0.6, 0.2), -2.0, 1.809675, (0.0, 0.904837)),  # (-0.4 + 0.2) / 2: 2 e^-0.1
        ((0.0, 0.0), 3.0, -3.0, (-1.5, -1.5)),
    ],
)
def test_gmpo_by_hand(logs: tuple[float, float], advantage: float, loss: float, slopes: tuple[float, float]) -> None:
    """epsilon 0.4; a third token, of ratio 2, is not scored."""
    new, old = at_ratio(math.exp(logs[0]), math.exp(logs[1]), 2.0)
    scored = torch.tensor([[True, True, False]])
    value = F.gmpo_surrogate(new, old, torch.tensor([advantage], dtype=torch.float64), scored, 0.4)
    assert value.tolist() == pytest.approx([loss], abs=1e-6)
    assert gradient(value, new) == [pytest.approx([*slopes, 0.0], abs=1e-6)]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 1.0, -2.0, -1.0),  # - 4 sigma(0)
        (2.0, 1.0, -2.924234, -1.572896),  # sigma(1) = 0.731059; 4 * 0.731059 * 0.268941 * 2
        (2.0, -1.0, 1.761594, 0.839949),  # tau 2: 2 sigma(2), sigma(2) = 0.880797; 4 * 0.880797 * 0.119203 * 2
        (1.0, -1.0, 1.0, 1.0),
    ],
)
def test_sapo_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    new, old = at_ratio(ratio)
    value = F.sapo_surrogate(new, old, torch.tensor([[advantage]]), 1.0, 2.0)
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert gradient(value, new) == [pytest.approx([slope], abs=1e-6)]


def test_binary_divergences_by_hand() -> None:
    """p = 0.5, q = 0.3: 0.2, and 0.3 log 0.6 + 0.7 log 1.4 = -0.153248 + 0.235531. Nothing at q = p = 1."""
    new, old = torch.tensor([0.5, 1.0]).double().log(), torch.tensor([0.3, 1.0]).double().log()
    assert F.binary_total_variation(new, old).tolist() == pytest.approx([0.2, 0.0])
    assert F.binary_kl(new, old).tolist() == pytest.approx([0.082283, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("now", "then", "advantage", "loss"),
    [
        (0.5, 0.3, 1.0, 0.0),  # 0.2 up, and up again
        (0.5, 0.3, -1.0, 5 / 3),  # back
        (1e-3, 1e-5, 1.0, -100.0),  # a ratio of 100 that is next to no divergence
        (0.8, 0.99, -1.0, 0.0),  # a ratio of 0.81 that is much
        (0.8, 0.99, 1.0, -80 / 99),
        (0.5, 0.4, 1.0, -1.25),
    ],
)
def test_dppo_by_hand(now: float, then: float, advantage: float, loss: float) -> None:
    """Total variation, threshold 0.15; the gradient of - r A is itself."""
    new = torch.tensor([[math.log(now)]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[math.log(then)]], dtype=torch.float64)
    divergence = F.binary_total_variation(new.detach(), old)
    value, masked = F.dppo_surrogate(new, old, torch.tensor([[advantage]]), divergence, 0.15)
    assert value.item() == pytest.approx(loss)
    assert gradient(value, new) == [pytest.approx([loss])]
    assert masked.item() is (loss == 0)


def test_a_ratio_beyond_all_numbers_is_masked_without_a_trace() -> None:
    new = torch.tensor([[-1.0]], requires_grad=True)
    value, _ = F.dppo_surrogate(new, torch.tensor([[-200.0]]), torch.ones(1, 1), torch.ones(1, 1), 0.15)
    assert value.item() == 0 and gradient(value, new) == [[0.0]]


def test_advantages_of_maxrl_by_hand() -> None:
    """One of four right: 0.75 / 0.25, and - 0.25 / 0.25. None right: 0. Of both signs: in units of mean |R|."""
    values, group = torch.tensor([1.0, 0, 0, 0, 0, 0, 1, -3]), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    assert F.maxrl_advantages(values, group).tolist() == pytest.approx([3, -1, -1, -1, 0, 0, 1, -1])
    valid = torch.tensor([True, True, False, False, True, True, True, True])
    assert F.maxrl_advantages(values, group, valid)[:4].tolist() == pytest.approx([1, -1, 0, 0])


def test_the_advantages_of_maxrl_are_those_of_the_log_of_the_chance_of_success() -> None:
    """Groups of 4, each right with chance p, enumerated: E[A score] is that of the sum over k <= 3 of - (1 - p)^k / k, of
    which log p has all k. By the logit, d log pi(right) = 1 - p and d log pi(wrong) = - p."""
    p, mean = 0.3, 0.0
    for right in range(5):
        values = torch.tensor([1.0] * right + [0.0] * (4 - right), dtype=torch.float64)
        advantages = F.maxrl_advantages(values, torch.zeros(4, dtype=torch.long))
        score = torch.where(values > 0, 1 - p, -p)
        mean += math.comb(4, right) * p**right * (1 - p) ** (4 - right) * (advantages * score).mean().item()
    assert mean == pytest.approx(p * (1 - p) * sum((1 - p) ** (k - 1) for k in range(1, 4)))


def test_the_length_weighted_baseline_by_hand() -> None:
    """4 over three tokens and 0 over one: 12 / 4; with an invalid third, whose value is not read. Who is alone is its own."""
    values, lengths, group = torch.tensor([4.0, 0.0, math.nan, 7.0]), torch.tensor([3.0, 1, 9, 2]), torch.tensor([0, 0, 0, 5])
    baseline = F.length_weighted_baseline(values, lengths, group, torch.tensor([True, True, False, True]))
    assert baseline[[0, 1, 3]].tolist() == [3, 3, 7]


def models(rewards: Any, samples: object, parts: dict[str, list[float]] | None = None, longest: int = 8) -> FakeModels:
    """After any token, 0 has probability 1/2 and 1 and 2 have 1/4; the reference is uniform."""
    table = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
    sampling = Sampling(samples=len(rewards), max_new_tokens=longest)
    given = {name: torch.tensor(values, dtype=torch.float64) for name, values in (parts or {}).items()}
    score = (lambda c: Scores(total=torch.tensor(rewards, dtype=torch.float64), parts=given)) if parts else constant(rewards)
    reference = TablePolicy(torch.zeros(3, 3, dtype=torch.float64))
    draws = {0: [number / 97 for number in range(len(rewards) * longest)]}
    policy: Any = TablePolicy(table, samples)  # type: ignore[arg-type]
    return FakeModels(policy, reference=reference, score=score, sampling=sampling, uniforms=draws)  # type: ignore[arg-type]


TWO = completions(OF, [0, 0], [[0, 0], [1]])


def test_reinforce_pp_by_hand() -> None:
    """log pi / ref is log 3/2 of token 0, log 3/4 of token 1. With beta 1 what follows is 1 - 2 log 3/2 = 0.189070 and
    1 - log 3/2 = 0.594535; 2 - log 3/4 = 2.287682. Mean 1.023762, standard deviation 0.908926, over tokens."""
    given = models([1.0, 2.0], TWO)
    algorithm = ReinforcePP(beta=1.0)
    made = algorithm.experience(given, OF)
    assert made.advantages[made.scored].tolist() == pytest.approx([-0.918328, -0.472235, 1.390563], abs=1e-5)
    loss, _ = algorithm.loss(given, made)
    assert loss[made.scored].tolist() == pytest.approx([0.918328, 0.472235, -1.390563], abs=1e-5)


def test_reinforce_pp_with_a_baseline_by_hand() -> None:
    """- 1/2 twice and 1/2: mean - 1/6, deviations - 1/3, - 1/3, 2/3, sd sqrt(2/9). In the loss log(3/2)^2 / 2 = 0.082201 and
    log(3/4)^2 / 2 = 0.041380."""
    given = models([1.0, 2.0], TWO)
    algorithm = ReinforcePPBaseline(beta=1.0)
    made = algorithm.experience(given, OF)
    loss, _ = algorithm.loss(given, made)
    assert loss[made.scored].tolist() == pytest.approx([0.789308, 0.789308, -1.372834], abs=1e-5)


def test_gdpo_by_hand() -> None:
    """Groups (1, 0) and (0, 0) of one part, (2, 0) and (4, 0) of the other. In units of sd + 1e-4: 0.707007, 0; 0.707057,
    0.707082. Sums +-1.414063, +-0.707082, of sd 1.290876."""
    of = prompts(1, 2)
    samples = completions(of, [0, 0, 1, 1], [[0], [1], [0], [1]])
    parts = {"a": [1.0, 0, 0, 0], "b": [2.0, 0, 4, 0], "b/inner": [9.0, 9, 9, 9]}
    made = GDPO().experience(models([0.0] * 4, samples, parts), of)
    assert made.advantages.tolist() == pytest.approx([1.095345, -1.095345, 0.547711, -0.547711], abs=1e-5)
    alone = GDPO(part_weights={"a": 2.0}).experience(models([0.0] * 4, samples, parts), of)
    assert alone.advantages.tolist() == pytest.approx([1.224639, -1.224639, 0, 0], abs=1e-5)  # 1.414013 / (1.154537 + 1e-4)
    with pytest.raises(UserError, match=r"algorithm\.part_weights has c, which is no part of the reward: it has a, b"):
        GDPO(part_weights={"c": 1.0}).experience(models([0.0] * 4, samples, parts), of)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # 0.707007 times 1.1 log 1/2, 0.625 log 1/2; 1.1 log 1/4
        (CISPO(high=1.1), [[-0.539066, -0.306287], [1.078132, 0.0]]),
        # log 5/4 = 0.223144 and log 5/8, cut at - 0.2: e^0.011572; e^0.2
        (GMPO(clip=0.2), [0.715236, -0.863540]),
        # 2 (sigma(0.5) + sigma(-0.75)) / 2 = 0.622459 + 0.320821; 4 sigma(0.25) = 2.248706
        (SAPO(temperature=1.0, temperature_negative=2.0), [0.666906, -1.589850]),
        # advantages -+ 0.5 / 1.5: (1.25 + 0.8) / 3; 1.2 / 3
        (MaxRL(), [0.683333, -0.4]),
        # advantages -+ 0.5, over 8 tokens. Probabilities 0.4 -> 0.5, back up; 0.8 -> 0.5, masked; 0.2 -> 0.25
        (DPPO(threshold=0.09), [0.078125, -0.078125]),
        # sd is the square root of 1/2: advantages -+ 0.707107, cut at 0.8 and 1.2
        (GRPOOpenRLHF(beta=0.0), [[0.883883, 0.565685], [-0.848528, 0.0]]),
        # advantages -+ 1, ratios 0.78125, cut at 0.8, and 1.25, cut at 1.2
        (RLOOTRL(beta=0.0), [0.8, -1.2]),
        # w = 0.78125 and 1.25: exp(3 log w + 2 (1 - w)) = 0.738540, exp(2 log w + 3 (1 - w)) = 0.738073; log 1/2, log 1/4
        (VESPO(), [[-0.361929, -0.361929], [0.723400, 0.0]]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_an_algorithm_by_hand(algorithm: Any, expected: list[Any]) -> None:
    """Completions (0, 0) and (1) with rewards 1 and 2, hence advantages -+ 0.5 / (sqrt(0.5) + 1e-4) = -+ 0.707007."""
    given = models([1.0, 2.0], TWO)
    made = algorithm.experience(given, OF)
    ratio = torch.tensor([[1.25, 0.625], [1.25, 1.0]], dtype=torch.float64)
    loss, _ = algorithm.loss(given, replace(made, old_logprobs=made.old_logprobs - ratio.log()))
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


ODD = {
    "large": [1e6, -1e6, 0.0],
    "nearly equal": [1.0, 1.0 + 1e-6, 1.0 - 1e-6],
    "tiny": [1e-6, 2e-6, 0.0],
    "one": [0.0, 0.0, 1e6],
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", ODD)
def test_odd_rewards_have_finite_losses(kind: Any, name: str) -> None:
    samples = completions(OF, [0, 0, 0], [[0], [1, 2], [2]])
    given, algorithm = models(ODD[name], samples), kind()
    made = algorithm.experience(given, OF)
    loss, _ = algorithm.loss(given, made)
    assert torch.isfinite(made.advantages).all() and torch.isfinite(loss).all()
    assert made.advantages.any()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("reward", [0.0, 0.1, -1e6])
def test_equal_rewards_teach_nothing(kind: Any, reward: float) -> None:
    samples = completions(OF, [0, 0, 0], [[0], [1, 2], [2]])
    made = kind(beta=0.0).experience(models([reward] * 3, samples), OF)
    assert not made.advantages.any()
    assert made.equal_groups.tolist() == [1, 1, 1]


def test_who_compares_within_a_prompt_needs_two_samples() -> None:
    assert [kind().least_samples() for kind in ALL] == [1 if kind is ReinforcePP else 2 for kind in ALL]


REFUSED = [
    (CISPO, "low", 1.0), (CISPO, "high", 0.9), (GMPO, "clip", 0.0), (SAPO, "temperature", 0.0),
    (SAPO, "temperature_negative", -1.0), (DPPO, "threshold", 0.0), (DPPO, "threshold", 1.0),
    (MaxRL, "clip", 0.0), (SAPO, "beta", -0.1),
    (GDPO, "epochs", 0), (VESPO, "k", 0.0), (HighEntropy, "share", 1.0), (ClipCov, "low", 5.0), (GRPO, "dual_clip", 0.9),
    (GRPO, "epsilon", -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "value"), REFUSED)
def test_what_is_out_of_range_is_refused(kind: Any, name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{name}="):
        kind(**{name: value})


def test_the_kl_follows_the_normalised_reward() -> None:
    """Rewards 1 and 2 give -+ 0.707107; log pi / ref of tokens 0, 0 and 1 is log 3/2 twice and log 3/4."""
    made = GRPOOpenRLHF(beta=0.1).experience(models([1.0, 2.0], TWO), OF)
    torch.testing.assert_close(
        made.advantages[made.scored],
        torch.tensor([-0.707107 - 0.081093, -0.707107 - 0.040547, 0.707107 + 0.028768], dtype=torch.float64),
        atol=1e-5, rtol=0,
    )  # fmt: skip


def test_only_tokens_of_high_entropy_have_an_advantage() -> None:
    """After token 1 the entropy is 1.039721, after 0 log 3: of the three tokens the second is the highest third."""
    log = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], dtype=torch.float64).log()
    given = replace(models([1.0, 2.0], TWO), policy=TablePolicy(log, TWO))
    made = HighEntropy(share=0.3).experience(given, OF)
    assert made.advantages.tolist() == [pytest.approx([0, -0.707007], abs=1e-6), [0, 0]]


@pytest.mark.parametrize(
    ("low", "left_out"), [(1.0, None), (-0.2, (0, 1)), (-1.0, (1, 0))], ids=["none costs so much", "two", "all"]
)
def test_one_of_the_costly_tokens_has_no_advantage(low: float, left_out: tuple[int, int] | None) -> None:
    """Of tokens 0, 0 and 1 the covariances are -0.108902, -0.108902 and -0.435609, the draws 0.5, 0.4 and 0.1."""
    given = replace(models([1.0, 2.0], TWO), sampling=Sampling(samples=2, max_new_tokens=2), uniforms={0: [0.5, 0.4, 0.1, 0.9]})
    expected = torch.tensor([[-0.707007, -0.707007], [0.707007, 0.707007]], dtype=torch.float64)
    if left_out:
        expected[left_out] = 0
    made = ClipCov(low=low, share=0.4).experience(given, OF)
    torch.testing.assert_close(made.advantages, expected, atol=1e-6, rtol=0)


def test_the_trust_region_has_two_measures() -> None:
    """At p = 1/2, q = 0.3 total variation is 0.2 and the KL 0.082283: a threshold of 0.1 lies between."""
    given = models([1.0, 2.0], completions(OF, [0, 0], [[1], [0]]))
    for divergence, value in ((Divergence.tv, 0.0), (Divergence.kl, -0.5 / 0.6 / 8)):
        algorithm = DPPO(divergence=divergence, threshold=0.1)
        made = algorithm.experience(given, OF)
        loss, metrics = algorithm.loss(given, replace(made, old_logprobs=torch.full_like(made.old_logprobs, math.log(0.3))))
        assert loss[1].item() == pytest.approx(value)
        assert metrics["divergence"][1].item() == pytest.approx(0.2 if divergence is Divergence.tv else 0.082283, abs=1e-6)
