"""KL estimators in expectation, exact divergences by hand, their limits, and tokens outside the support."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alignzoo.functional import discounted_returns, forward_kl, generalised_jsd, k1, k2, k3, reinforce, reverse_kl

TEACHER = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
STUDENT = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
Divergence = Callable[[Tensor, Tensor], Tensor]


def jsd(student: Tensor, teacher: Tensor) -> Tensor:
    return generalised_jsd(student, teacher, 0.3)


def test_estimators_by_hand() -> None:
    """At pi / ref = 2: log 2, (log 2)^2 / 2, and 1/2 - 1 + log 2."""
    values = [k(torch.tensor(0.4).log(), torch.tensor(0.2).log()).item() for k in (k1, k2, k3)]
    assert values == pytest.approx([0.693147, 0.240227, 0.193147], abs=1e-6)


def _expected(estimator: Callable[[Tensor, Tensor], Tensor], policy: Tensor, reference: Tensor) -> Tensor:
    """The mean over pi, which is held fixed as the sampler's."""
    logprobs = policy.log_softmax(-1)
    return (logprobs.detach().exp() * estimator(logprobs, reference.log_softmax(-1))).sum()


def test_k1_and_k3_are_unbiased_and_k2_has_the_gradient_of_the_kl() -> None:
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 6, dtype=torch.float64)
    policy.requires_grad_()
    kl = reverse_kl(policy, reference)  # KL(pi || ref)
    torch.testing.assert_close(_expected(k1, policy, reference), kl)
    torch.testing.assert_close(_expected(k3, policy, reference), kl)
    gradient = torch.autograd.grad(kl, policy)[0]
    torch.testing.assert_close(torch.autograd.grad(_expected(k2, policy, reference), policy)[0], gradient)


def test_k1_in_a_loss_has_no_expected_gradient() -> None:
    policy = torch.randn(6, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(_expected(k1, policy, torch.zeros(6, dtype=torch.float64)), policy)[0]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_k3_in_a_loss_has_the_gradient_of_the_other_kl() -> None:
    torch.manual_seed(2)
    policy, reference = torch.randn(2, 6, dtype=torch.float64)
    policy.requires_grad_()
    other = torch.autograd.grad(forward_kl(policy, reference), policy)[0]  # KL(ref || pi)
    torch.testing.assert_close(torch.autograd.grad(_expected(k3, policy, reference), policy)[0], other)
    logprobs = policy.log_softmax(-1)
    ratio = (logprobs - logprobs.detach()).exp()
    weighed = (logprobs.detach().exp() * ratio * k3(logprobs, reference.log_softmax(-1))).sum()
    kl = torch.autograd.grad(reverse_kl(policy, reference), policy)[0]
    torch.testing.assert_close(torch.autograd.grad(weighed, policy)[0], kl)


@pytest.mark.parametrize("place", ["k1 in the reward", "k2 in the loss"])
def test_the_kl_of_completions_has_its_gradient_by_tokens(place: str) -> None:
    """All nine completions of two tokens, weighted as the policy writes them; a token's return is what follows it."""
    torch.manual_seed(3)
    first, second = torch.randn(3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    policy = [x.requires_grad_() for x in (first, second)]
    reference = [torch.randn_like(x) for x in (first, second)]
    a, b = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    logprobs, theirs = (
        torch.stack([x.log_softmax(-1)[a], y.log_softmax(-1)[a, b]], 1) for x, y in (policy, reference)
    )  # (9, 2)
    written = logprobs.sum(1).exp()
    kl = torch.autograd.grad((written * (logprobs - theirs).sum(1)).sum(), policy, retain_graph=True)
    scored = torch.ones(9, 2, dtype=torch.bool)
    if place == "k1 in the reward":
        returns = discounted_returns(-k1(logprobs, theirs).detach(), scored)
        loss = reinforce(logprobs, returns).sum(1)
    else:
        loss = k2(logprobs.sum(1), theirs.sum(1))
    torch.testing.assert_close(torch.autograd.grad((written.detach() * loss).sum(), policy), kl)


def test_divergences_by_hand() -> None:
    """P = (1/4, 3/4), Q = (1/2, 1/2).

    KL(P || Q) = 1/4 log 1/2 + 3/4 log 3/2 = 0.130812; KL(Q || P) = 1/2 log 2 + 1/2 log 2/3 = 0.143841.
    M = (3/8, 5/8): 1/2 (1/4 log 2/3 + 3/4 log 6/5) + 1/2 (1/2 log 4/3 + 1/2 log 4/5) = 0.033822.
    """
    assert forward_kl(STUDENT, TEACHER).item() == pytest.approx(0.130812, abs=1e-6)
    assert reverse_kl(STUDENT, TEACHER).item() == pytest.approx(0.143841, abs=1e-6)
    assert generalised_jsd(STUDENT, TEACHER, 0.5).item() == pytest.approx(0.033822, abs=1e-6)


def test_jsd_weighs_teacher_by_beta() -> None:
    """beta 1/4: M = 1/4 P + 3/4 Q = (7/16, 9/16);
    1/4 (1/4 log 4/7 + 3/4 log 4/3) + 3/4 (1/2 log 8/7 + 1/2 log 8/9) = 0.018965 + 0.005906 = 0.024872."""
    assert generalised_jsd(STUDENT, TEACHER, 0.25).item() == pytest.approx(0.024872, abs=1e-5)


def test_jsd_tends_to_the_two_kls() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    small = 1e-6
    torch.testing.assert_close(
        generalised_jsd(student, teacher, small) / small, forward_kl(student, teacher), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        generalised_jsd(student, teacher, 1 - small) / small, reverse_kl(student, teacher), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jsd])
def test_zero_between_equals_and_positive_otherwise_with_a_gradient_towards_the_teacher(divergence: Divergence) -> None:
    torch.manual_seed(2)
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    student.requires_grad_()
    before = divergence(student, teacher)
    assert (before > 0).all()
    torch.testing.assert_close(divergence(teacher, teacher), torch.zeros(4, dtype=torch.float64))
    step = student - 0.1 * torch.autograd.grad(before.sum(), student)[0]
    assert (divergence(step, teacher) < before).all()


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jsd])
def test_tokens_outside_both_supports_change_nothing(divergence: Divergence) -> None:
    torch.manual_seed(3)
    kept = torch.randn(2, 4, dtype=torch.float64)
    padded = torch.cat([kept, torch.full((2, 3), -torch.inf, dtype=torch.float64)], 1).requires_grad_()
    value = divergence(padded[0], padded[1])
    torch.testing.assert_close(value, divergence(kept[0], kept[1]))
    gradient = torch.autograd.grad(value, padded)[0]
    assert gradient.isfinite().all() and not gradient[:, 4:].any() and gradient[:, :4].all()


def test_a_token_of_one_side_only_is_infinite_for_the_kl_that_reads_it_and_finite_for_the_rest() -> None:
    whole, half = torch.zeros(2), torch.tensor([0.0, -torch.inf])
    assert forward_kl(student=half, teacher=whole).item() == math.inf
    assert reverse_kl(student=whole, teacher=half).item() == math.inf
    assert forward_kl(student=whole, teacher=half).item() == pytest.approx(math.log(2))
    assert reverse_kl(student=half, teacher=whole).item() == pytest.approx(math.log(2))


def test_jsd_of_disjoint_supports_is_the_entropy_of_beta() -> None:
    """KL(P || M) = log 1/beta and KL(Q || M) = log 1/(1 - beta)."""
    logits = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]]).requires_grad_()
    value = generalised_jsd(logits[0], logits[1], 0.3)
    assert value.item() == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7), abs=1e-6)
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_jsd_where_probabilities_underflow() -> None:
    """exp(-200) is no float32: log 2 as for disjoint supports, and no slope."""
    student, teacher = torch.tensor([0.0, -200.0]).requires_grad_(), torch.tensor([-200.0, 0.0])
    value = generalised_jsd(student, teacher, 0.5)
    assert value.item() == pytest.approx(math.log(2), abs=1e-6)
    assert torch.autograd.grad(value, student)[0].abs().max() < 1e-6


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
def test_temperature_divides_the_logits(divergence: Callable[..., Tensor]) -> None:
    student, teacher = torch.randn(2, 5)
    torch.testing.assert_close(divergence(student, teacher, temperature=2.0), divergence(student / 2, teacher / 2))
    torch.testing.assert_close(
        generalised_jsd(student, teacher, 0.4, temperature=2.0), generalised_jsd(student / 2, teacher / 2, 0.4)
    )
