"""Nash-MD and preference models, on table policies and by enumeration."""

import math
from dataclasses import replace

import pytest
import torch

from alignzoo import functional as F
from alignzoo.batch import Completions, Pairs
from alignzoo.contracts import Scores
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, constant, prompts
from alignzoo_plugins.online_pairs.nash_md import NashMD
from alignzoo_plugins.pairwise_preference.pairwise_preference import PairwisePreference

HALF = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
UNIFORM = torch.zeros(3, 3, dtype=torch.float64)


def test_advantages_by_hand() -> None:
    advantages = F.nash_advantages(torch.tensor([0.9, 0.1]), torch.tensor([math.log(1.5), 0.0]), 0.5)
    assert advantages.tolist() == pytest.approx([0.4 - 0.5 * 0.405465, -0.4], abs=1e-6)


class Mixing(TablePolicy):
    """Notes what it is told to sample by."""

    def generate(self, prompts, sampling, adjust=None, beside=(), purpose=""):
        if adjust is not None:
            self.told = (adjust, list(beside), purpose)
        return super().generate(prompts, sampling, adjust, beside, purpose)


def models(**more) -> FakeModels:
    """The policy writes 0 0 and 1, the opponent 1 and 2 2; a preference of 0.8 and 0.3."""
    x = prompts(1, 2)
    policy = Mixing(HALF, completions(x, [0, 1], [[0, 0], [1]]), opponent=completions(x, [0, 1], [[1], [2, 2]]))
    score = constant([0.0, 0.0])
    given = FakeModels(policy, reference=TablePolicy(UNIFORM), score=score, **more)
    given.preference = lambda first, second: Scores(total=torch.tensor([0.8, 0.3], dtype=torch.float64))
    return given


def test_loss_and_gradient_by_hand() -> None:
    """log pi / ref: 2 ln 3/2 and ln 3/4. tau 1/2: A = 0.3 - ln 3/2, -0.2 - ln(3/4) / 2. L = - A log pi: log 1/4, log 1/4."""
    given = models()
    batch = NashMD(tau=0.5).experience(given, prompts(1, 2))
    first, second = 0.3 - math.log(1.5), -0.2 - 0.5 * math.log(0.75)
    assert batch.advantages.tolist() == pytest.approx([first, second], abs=1e-9)
    assert batch.kl.tolist() == pytest.approx([2 * math.log(1.5), math.log(0.75)], abs=1e-9)
    loss, _ = NashMD(tau=0.5).loss(given, batch)
    assert loss.tolist() == pytest.approx([first * math.log(4), second * math.log(4)], abs=1e-9)


def test_the_opponent_is_the_geometric_mixture() -> None:
    """m 1/4: softmax(3/4 log (1/2, 1/4, 1/4) + 1/4 log (1/3, ...)) = (2^(3/4), 1, 1) / (2^(3/4) + 2)."""
    given = models()
    NashMD(mixture=0.25).experience(given, prompts(1, 2))
    adjust, beside, purpose = given.policy.told
    assert beside == [given.reference] and purpose == "opponent"
    mixed = adjust(HALF[:1], UNIFORM[:1]).softmax(1)[0]
    expected = torch.tensor([2**0.75, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(mixed, expected / expected.sum())


@pytest.mark.parametrize(("mixture", "expected"), [(0.0, [0.0, 1.0]), (1.0, [0.0, 2.0])])
def test_the_mixture_stays_in_the_support(mixture: float, expected: list[float]) -> None:
    given = models()
    NashMD(mixture=mixture).experience(given, prompts(1, 2))
    outside = -torch.inf
    mixed = given.policy.told[0](torch.tensor([[0.0, 1.0, outside]]), torch.tensor([[0.0, 2.0, outside]]))
    assert mixed.tolist() == [[*expected, outside]]


def test_without_a_preference_model_it_is_bradley_and_terrys() -> None:
    """Rewards 1 and 0 against 0 and 0 by the same reward for both: sigma(0) each, A = - tau log-ratio."""
    given = models()
    del given.preference
    batch = NashMD(tau=1.0).experience(given, prompts(1, 2))
    assert batch.preference.tolist() == [0.5, 0.5]
    assert batch.advantages.tolist() == pytest.approx([-2 * math.log(1.5), -math.log(0.75)], abs=1e-9)


CYCLE = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=torch.float64)  # 0 beats 1 beats 2 beats 0


def test_the_mean_gradient_is_that_of_the_regularised_game() -> None:
    """By enumeration over one token: E[grad L] = - grad (E_pi E_opponent[P] - tau KL(pi || ref)), the opponent held fixed."""
    logits = torch.tensor([0.7, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    reference, tau, mixture = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log(), 0.3, 0.25
    logp = logits.log_softmax(0)
    rival = ((1 - mixture) * logp + mixture * reference).softmax(0).detach()
    pi = logp.exp()
    value = pi @ CYCLE @ rival - tau * (pi * (logp - reference)).sum()
    (expected,) = torch.autograd.grad(value, logits, retain_graph=True)
    weights = F.nash_advantages(CYCLE, (logp - reference).detach()[:, None], tau)  # (y, y')
    surrogate = (pi.detach()[:, None] * rival[None] * F.reinforce(logp[:, None], weights)).sum()
    (gradient,) = torch.autograd.grad(surrogate, logits)
    torch.testing.assert_close(gradient, -expected)


@pytest.mark.parametrize("mixture", [0.0, 0.5])
def test_it_finds_the_equilibrium_of_a_cycle(mixture: float) -> None:
    """Rock, paper, scissors with a uniform reference: the equilibrium is uniform, by symmetry, from any start. A policy of one
    token, its mean gradient, 3,000 steps of 0.5."""
    logits = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    reference = torch.full((3,), -math.log(3), dtype=torch.float64)
    for _ in range(3000):
        logp = logits.log_softmax(0)
        rival = ((1 - mixture) * logp + mixture * reference).softmax(0)
        advantages = F.nash_advantages(CYCLE, (logp - reference)[:, None], 0.1) @ rival
        pi = logp.exp()
        logits = logits + 0.5 * pi * (advantages - pi @ advantages)
    torch.testing.assert_close(logits.softmax(0), reference.exp(), atol=1e-6, rtol=0)


def test_trls_kl_is_another_gradient() -> None:
    """TRL's NashMDTrainer weighs each token's log pi by that token's own log-ratio: two tokens, of which only the second has
    one, d: there the first gets 0 and the second d, here both get d."""
    logprobs = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    ratio = torch.tensor([[0.0, 0.4]], dtype=torch.float64)
    theirs = torch.autograd.grad((ratio * logprobs).sum(), logprobs)[0]
    weights = F.nash_advantages(torch.tensor([0.5]), ratio.sum(1), 1.0)
    ours = torch.autograd.grad(F.reinforce(logprobs, weights[:, None]).sum(), logprobs)[0]
    assert theirs.tolist() == [[0.0, 0.4]] and ours.tolist() == [[0.4, 0.4]]


class Table:
    """A scorer whose score is a number for the first tokens of both completions, as it reads them."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def comparisons(self, first: Completions, second: Completions) -> torch.Tensor:
        one, two = first.ids[:, 0], second.ids[:, 0]
        return self.scores[one, two] - self.scores[two, one]


def test_pairwise_loss_by_hand() -> None:
    """s(0, 1) = 2, s(1, 0) = 1: P = sigma(1). s(2, 1) = 0, s(1, 2) = 3: P = sigma(-3). With e = 1/10 the first is
    - 0.9 log sigma(1) - 0.1 log sigma(-1) = 0.413262."""
    scores = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    x = prompts(1, 1)
    batch = Pairs(chosen=completions(x, [0, 1], [[0], [2]]), rejected=completions(x, [0, 1], [[1], [1]]))
    given = FakeModels(TablePolicy(HALF), others={"scorer": Table(scores)})
    loss, metrics = PairwisePreference().loss(given, batch)
    assert loss.tolist() == pytest.approx([0.313262, 3.048587], abs=1e-6)
    assert metrics["accuracy"].tolist() == [1.0, 0.0]
    smoothed, _ = PairwisePreference(label_smoothing=0.1).loss(given, batch)
    assert smoothed[0].item() == pytest.approx(0.413262, abs=1e-6)
    turned, _ = PairwisePreference().loss(given, replace(batch, chosen=batch.rejected, rejected=batch.chosen))
    assert (turned - loss).tolist() == pytest.approx([1.0, -3.0], abs=1e-9)  # log sigma(d) - log sigma(-d) = d


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(NashMD, "tau", -0.1), (NashMD, "mixture", 1.5), (PairwisePreference, "label_smoothing", 0.5)],
)
def test_refused(kind, name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"algorithm.{name}={value}"):
        kind(**{name: value})
