"""Policy-gradient surrogates, the loss of a value function, and the control of the KL coefficient."""

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
