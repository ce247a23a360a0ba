"""Policy-gradient surrogates, the loss of a value function, and the control of the KL coefficient."""

import math

import torch
from torch import Tensor


def reinforce(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """The score-function surrogate: its gradient, not its value, means something.

        L_t = - A_t log pi(a_t | s_t)

    logprobs, advantages (B, T) -> (B, T). Advantages carry no gradient.

    Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    return -advantages.detach() * logprobs


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float, epsilon_high: float | None = None
) -> Tensor:
    """PPO's pessimistic surrogate, negated.

        L_t = - min(r_t A_t, clip(r_t, 1 - epsilon, 1 + epsilon_high) A_t)        r_t = pi(a_t | s_t) / pi_old(a_t | s_t)

    logprobs, old_logprobs, advantages (B, T) -> (B, T). Only `logprobs` carries gradient. epsilon_high None: epsilon.

    Schulman et al. 2017, Proximal policy optimization algorithms, eq. 7; with two epsilons Yu et al. 2025, DAPO, eq. 10.
    """
    high = epsilon if epsilon_high is None else epsilon_high
    ratio = (logprobs - old_logprobs.detach()).exp()
    advantages = advantages.detach()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - epsilon, 1 + high) * advantages)


def dual_clip(loss: Tensor, advantages: Tensor, bound: float) -> Tensor:
    """PPO's surrogate bounded where what is to become rarer has become likelier, and the ratio knows no end.

        L'_t = min(L_t, - bound A_t)    where A_t < 0, else L_t

    loss, advantages (B, T); bound > 1, of the ratio -> (B, T). Ye et al. 2020, Mastering complex control in MOBA games with
    deep reinforcement learning, eq. 5.
    """
    return torch.where(advantages < 0, torch.minimum(loss, -bound * advantages.detach()), loss)


def cispo_surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """The score-function surrogate with a clipped importance weight: no token loses its gradient.

        L_t = - sg(clip(r_t, low, high)) A_t log pi(a_t | s_t)        r_t = pi(a_t | s_t) / pi_old(a_t | s_t)

    logprobs, old_logprobs, advantages (B, T) -> (B, T). sg: without gradient. low, high are bounds of the weight itself.

    MiniMax 2025, MiniMax-M1: scaling test-time compute efficiently with lightning attention; there low = 1 - epsilon_low and
    high = 1 + epsilon_high.
    """
    weight = (logprobs - old_logprobs).detach().exp().clamp(low, high)
    return reinforce(logprobs, weight * advantages)


def vespo_weight(log_ratio: Tensor, k: Tensor, lam: Tensor) -> Tensor:
    """A soft weight of a completion by its ratio w: 1 at w = 1, and 0 where it has become much rarer or much likelier.

        phi(w) = w^k exp(lambda (1 - w))

    log_ratio (B,): log w, of the whole completion, kept within [log 1e-8, 20]; k, lam (B,) -> (B,), without gradient.

    VESPO: variational sequence-level soft policy optimization, arXiv 2602.10693, as TRL 1.16 has it.
    """
    log_ratio = log_ratio.detach().clamp(math.log(1e-8), 20.0)
    return (k * log_ratio + lam * (1 - log_ratio.exp())).exp()


def gmpo_surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, scored: Tensor, epsilon: float) -> Tensor:
    """The geometric mean of a completion's clipped ratios, times its advantage, negated.

        L = - A exp(1/T sum_t l_t)        l_t = min(log r_t, epsilon) where A > 0, else max(log r_t, -epsilon)

    Each ratio is thus clipped in (e^-epsilon, e^epsilon), on the side to which its advantage pushes it.

    logprobs, old_logprobs (B, T); advantages (B,); scored (B, T) bool -> (B,), - A where nothing is scored.

    Zhao et al. 2025, Geometric-mean policy optimization.
    """
    advantages = advantages.detach()
    log_ratio = logprobs - old_logprobs.detach()
    clipped = torch.where(advantages[:, None] > 0, log_ratio.clamp(max=epsilon), log_ratio.clamp(min=-epsilon))
    mean = torch.where(scored, clipped, 0).sum(1) / scored.sum(1).clamp(min=1)
    return -mean.exp() * advantages


def sapo_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, temperature: float, temperature_negative: float
) -> Tensor:
    """A soft gate in the place of the clip: the weight of a token's gradient falls smoothly with its distance from ratio 1.

        L_t = - 4 / tau sigma(tau (r_t - 1)) A_t        tau of A_t > 0, and another elsewhere

    Its gradient is that of - r_t A_t at r_t = 1, and 4 p (1 - p) of it elsewhere, p = sigma(tau (r_t - 1)).

    logprobs, old_logprobs, advantages (B, T) -> (B, T). Only `logprobs` carries gradient.

    Qwen team 2025, Soft adaptive policy optimization.
    """
    advantages = advantages.detach()
    ratio = (logprobs - old_logprobs.detach()).exp()
    tau = torch.where(advantages > 0, temperature, temperature_negative)
    return -4 / tau * (tau * (ratio - 1)).sigmoid() * advantages


def binary_total_variation(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """The total variation of "this token, or another", |pi(a) - pi_old(a)|: (...), (...) -> (...). Qi et al. 2026, eq. 13."""
    return (logprobs.exp() - old_logprobs.exp()).abs()


def binary_kl(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """KL(pi_old || pi) of "this token, or another".

        q log(q / p) + (1 - q) log((1 - q) / (1 - p))        p = pi(a), q = pi_old(a)

    logprobs, old_logprobs (...) -> (...), infinite where p is 1 and q is not. Qi et al. 2026, eq. 14.
    """
    new, old = (x.detach().double().clamp(max=0) for x in (logprobs, old_logprobs))
    rest_new, rest_old = -new.expm1(), -old.expm1()
    rest = torch.where(rest_old > 0, rest_old * (rest_old / rest_new).log(), 0)
    return (old.exp() * (old - new) + rest).to(logprobs.dtype)


def dppo_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, divergence: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """The ratio's surrogate within a trust region of the divergence, negated; and where it ends.

        L_t = - M_t r_t A_t        M_t = 0 where D_t > threshold and A_t pushes r_t further from 1, else 1

    logprobs, old_logprobs, advantages, divergence (B, T) -> (B, T), and where M is 0, (B, T) bool. Only `logprobs` carries
    gradient.

    Qi et al. 2026, Rethinking the trust region in LLM reinforcement learning, eq. 11 and 12.
    """
    advantages = advantages.detach()
    log_ratio = logprobs - old_logprobs.detach()
    outwards = torch.where(advantages > 0, log_ratio > 0, log_ratio < 0)
    masked = outwards & (divergence > threshold)
    ratio = torch.where(masked, 0, log_ratio).exp()  # masked before exp, whose overflow would reach the gradient as NaN
    return -ratio * advantages * ~masked, masked


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, epsilon: float | None) -> Tensor:
    """The squared error of the value function, kept near the values of the rollout.

        L_t = 1/2 max((V - G)^2, (clip(V, V_old - epsilon, V_old + epsilon) - G)^2)

    values, old_values, returns (B, T) -> (B, T). Only `values` carries gradient. epsilon None: not clipped.

    Not in the PPO paper but in its code (openai/baselines, ppo2). Engstrom et al. 2020, Implementation matters in deep policy
    gradients.
    """
    returns = returns.detach()
    loss = (values - returns) ** 2
    if epsilon is not None:
        old = old_values.detach()
        near = torch.minimum(torch.maximum(values, old - epsilon), old + epsilon)
        loss = torch.maximum(loss, (near - returns) ** 2)
    return loss / 2


def adapted_kl_coefficient(coefficient: float, kl: float, target: float, samples: float, horizon: float) -> float:
    """The proportional controller that keeps the KL near a target.

        e = clip((KL - target) / target, -0.2, 0.2)        beta' = beta (1 + e n / h)

    kl: mean KL of the last n samples; horizon h: in samples.

    Ziegler et al. 2019, Fine-tuning language models from human preferences, section 2.2, where n / h is written K_beta = 0.1.
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1 + error * samples / horizon)
