"""The formulas of other frameworks, with their normalisation, as their sources say: facts, written down anew.

verl 0.8.0.dev (b178a3cd5): verl/trainer/ppo/core_algos.py, verl/utils/torch_functional.py. OpenRLHF 0.11.0 (3c3be623):
openrlhf/models/loss.py, trainer/ppo_utils/experience_maker.py, trainer/ray/ppo_actor.py. oxRL (2a2bd5d): oxrl/algs,
oxrl/rollouts/reward_scoring.py. NeMo-RL (7ea279abf): nemo_rl/algorithms/loss/loss_functions.py, advantage_estimator.py,
utils.py. prime-rl (559b44772): src/prime_rl/trainer/rl/loss.py, orchestrator/algo.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from benchmarks.agreement.batch import OnPairs, OnPolicy

BETA, SMOOTH = 0.3, 0.1

# --- over what is averaged


def token_mean(loss: Tensor, x: OnPolicy) -> Tensor:
    return (loss * x.tokens).sum() / x.tokens.sum()


def mean_of_means(loss: Tensor, x: OnPolicy) -> Tensor:
    return ((loss * x.tokens).sum(1) / x.tokens.sum(1)).mean()


def sums(loss: Tensor, x: OnPolicy, divisor: float) -> Tensor:
    return (loss * x.tokens).sum() / divisor


# --- advantages, (6, 1) or (6, T)


def z_score(x: OnPolicy, epsilon: float) -> Tensor:
    return ((x.groups - x.groups.mean(1, keepdim=True)) / (x.groups.std(1, keepdim=True) + epsilon)).view(-1, 1)


def centred(x: OnPolicy) -> Tensor:
    return (x.groups - x.groups.mean(1, keepdim=True)).view(-1, 1)


def over_mean(x: OnPolicy) -> Tensor:
    return ((x.groups - x.groups.mean(1, keepdim=True)) / x.groups.mean(1, keepdim=True)).view(-1, 1)


def others(x: OnPolicy) -> Tensor:
    """A reward less the mean of the group's others."""
    return (x.groups - (x.groups.sum(1, keepdim=True) - x.groups) / 2).view(-1, 1)


def others_z_score(x: OnPolicy, epsilon: float = 1e-6) -> Tensor:
    """Mean and deviation of the group's others; of two others the variance has n - 1 = 1."""
    mean, square = ((total.sum(1, keepdim=True) - total) / 2 for total in (x.groups, x.groups**2))
    return ((x.groups - mean) / ((2 * (square - mean**2)).sqrt() + epsilon)).view(-1, 1)


def ahead(x: OnPolicy, at_end: Tensor, beta: float) -> Tensor:
    """`at_end` (6, 1), less what is ahead of beta times log pi_old / ref."""
    kl = (x.old - x.reference) * x.tokens
    return at_end - beta * kl.flip(1).cumsum(1).flip(1)


def whitened(x: OnPolicy, advantages: Tensor, unbiased: bool) -> Tensor:
    """Mean 0 and variance 1 over tokens; 1e-8 is added to the variance, or, in OpenRLHF and NeMo-RL, its least value."""
    values = advantages.expand_as(x.tokens)
    n = x.tokens.sum()
    mean = (values * x.tokens).sum() / n
    variance = ((values - mean) ** 2 * x.tokens).sum() / (n - 1 if unbiased else n)
    return (values - mean) * (variance + 1e-8).rsqrt()


# --- surrogates, (6, T)


def clipped(ratio: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2, bound: float | None = None) -> Tensor:
    """PPO's, pessimistic; with a `bound` no more than that many times -A where A < 0."""
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    return loss if bound is None else torch.where(advantages < 0, torch.minimum(loss, -bound * advantages), loss)


def normalised(x: OnPolicy, advantages: Tensor, unbiased: bool = False, bound: float | None = None) -> Tensor:
    """REINFORCE++'s loss, ()."""
    return token_mean(clipped(x.ratio, whitened(x, advantages, unbiased), bound=bound), x)


def by_completion(x: OnPolicy) -> Tensor:
    """The geometric mean of a completion's ratios, (6, 1)."""
    return (((x.new - x.old) * x.tokens).sum(1, keepdim=True) / x.tokens.sum(1, keepdim=True)).exp()


def cispo(x: OnPolicy, advantages: Tensor, low: float, high: float) -> Tensor:
    return -x.ratio.clamp(low, high).detach() * advantages * x.new


def sapo(x: OnPolicy, advantages: Tensor, rising: float, falling: float) -> Tensor:
    slope = torch.where(advantages > 0, rising, falling)
    return -(slope * (x.ratio - 1)).sigmoid() * 4 / slope * advantages


def gmpo(x: OnPolicy, advantages: Tensor, epsilon: float) -> Tensor:
    """One a completion, (6,)."""
    sign, log = advantages.sign(), x.new - x.old
    kept = sign * torch.minimum(sign * log, sign * log.clamp(-epsilon, epsilon))
    return -advantages[:, 0] * ((kept * x.tokens).sum(1) / x.tokens.sum(1)).exp()


def k3(x: OnPolicy) -> Tensor:
    return (x.reference - x.new).exp() - 1 - (x.reference - x.new)


def k2(x: OnPolicy) -> Tensor:
    return (x.new - x.reference) ** 2 / 2


def nemo_k3(x: OnPolicy) -> Tensor:
    """k3 with a weight of 1 whose gradient is that of the ratio."""
    return k3(x) * (x.new - x.new.detach()).exp()


def trusted(x: OnPolicy, advantages: Tensor, threshold: float, tie: float) -> Tensor:
    """prime-rl's default: no gradient where a probability has moved by more than `threshold` the way A pushes it, and `tie`
    times the squared log-ratio to the sampler."""
    moved = (x.new.exp() - x.old.exp()).detach()
    out = torch.where(advantages > 0, moved > threshold, moved < -threshold)
    return -(~out).double() * advantages * x.ratio + tie * (x.new - x.old) ** 2


# --- pairs


def logistic(margin: Tensor, beta: float = BETA, smooth: float = 0.0) -> Tensor:
    return (-(1 - smooth) * logsigmoid(beta * margin) - smooth * logsigmoid(-beta * margin)).mean()


def exo(x: OnPairs) -> Tensor:
    scaled = BETA * x.margin
    of_win = scaled.sigmoid() * (logsigmoid(scaled) - math.log(1 - SMOOTH))
    return (of_win + (-scaled).sigmoid() * (logsigmoid(-scaled) - math.log(SMOOTH))).mean()


def discopop(x: OnPairs, tau: float) -> Tensor:
    scaled = BETA * x.margin
    share = (scaled / tau).sigmoid()
    return ((1 - share) * softplus(-scaled) + share * (-scaled).exp()).mean()


def mean_logprobs(x: OnPairs) -> tuple[Tensor, Tensor]:
    return x.chosen.sum(1) / x.tokens_chosen.sum(1), x.rejected.sum(1) / x.tokens_rejected.sum(1)


def odds(x: OnPairs, weight: float, by_token: bool) -> Tensor:
    """ORPO; the likelihood a mean over all tokens, or over completions of the mean over theirs."""
    chosen, rejected = (log - torch.log1p(-log.exp()) for log in mean_logprobs(x))
    likelihood = x.chosen.sum() / x.tokens_chosen.sum() if by_token else mean_logprobs(x)[0].mean()
    return -likelihood - weight * logsigmoid(chosen - rejected).mean()


def weighted(x: OnPairs) -> Tensor:
    """oxRL's WPO: weights of mean log-probs, at most 1, and a mean by them."""
    weight = torch.stack(mean_logprobs(x)).sum(0).detach().exp().clamp(max=1)
    return -(weight * logsigmoid(BETA * x.margin)).sum() / weight.sum()


def ipo(x: OnPairs) -> Tensor:
    return ((x.margin - 1 / (2 * BETA)) ** 2).mean()


def hinge(x: OnPairs) -> Tensor:
    return (1 - BETA * x.margin).clamp(min=0).mean()


def robust(x: OnPairs, sign: int) -> Tensor:
    """The loss of the flipped label with this sign."""
    right, flipped = -logsigmoid(BETA * x.margin), -logsigmoid(-BETA * x.margin)
    return ((1 - SMOOTH) * right + sign * SMOOTH * flipped).mean() / (1 - 2 * SMOOTH)


def nca(x: OnPairs) -> Tensor:
    chosen, rejected = (BETA * ratio for ratio in x.ratios)
    return (-logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2).mean()


def bco(x: OnPairs) -> Tensor:
    return (-logsigmoid(BETA * x.ratios[0]) - logsigmoid(-BETA * x.ratios[1])).mean()


def sppo_hard(x: OnPairs) -> Tensor:
    return ((x.ratios[0] - 1 / (2 * BETA)) ** 2 + (x.ratios[1] + 1 / (2 * BETA)) ** 2).mean()


def apo_zero(x: OnPairs) -> Tensor:
    return ((BETA * x.ratios[1]).sigmoid() - (BETA * x.ratios[0]).sigmoid()).mean()


def apo_down(x: OnPairs) -> Tensor:
    return ((BETA * x.ratios[0]).sigmoid() - (BETA * x.margin).sigmoid()).mean()


def sorted_sides(x: OnPairs) -> Tensor:
    return logistic(x.ratios[0].sort().values - x.ratios[1].sort().values)


def sorted_margins(x: OnPairs) -> Tensor:
    margins = (
        first.sum(1) - second.sum(1) for first, second in ((x.chosen, x.rejected), (x.reference_chosen, x.reference_rejected))
    )
    policy, reference = (margin.sort().values for margin in margins)
    return logistic(policy - reference)


def dpop(x: OnPairs, penalty: float) -> Tensor:
    return logistic(x.margin - penalty * (-x.ratios[0]).clamp(min=0))


def priced(x: OnPairs, token: float) -> Tensor:
    """DPO with `token` times the lengths' difference added to the margin of rewards."""
    longer = x.tokens_chosen.sum(1) - x.tokens_rejected.sum(1)
    return logistic(x.margin + token / BETA * longer)


def simpo(x: OnPairs, beta: float, margin: float) -> Tensor:
    chosen, rejected = mean_logprobs(x)
    return -logsigmoid(beta * (chosen - rejected) - margin).mean()


def cpo(x: OnPairs, alpha: float) -> Tensor:
    return logistic(x.chosen.sum(1) - x.rejected.sum(1)) - alpha * x.chosen.sum() / x.tokens_chosen.sum()
