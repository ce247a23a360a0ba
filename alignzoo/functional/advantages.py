"""From rewards to returns, baselines and advantages.

Time runs over scored tokens only: what stands between two of them (tool output, a user's turn) takes no time and is not read.
The last scored token ends the episode, so nothing is bootstrapped after it.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _identity(x: Tensor) -> Tensor:
    return x


def gae(rewards: Tensor, values: Tensor, scored: Tensor, discount: float, lam: float | Tensor) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, and the lambda-returns it implies.

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
        A_t = sum_l (gamma lambda)^l delta_{t+l}        G_t = A_t + V(s_t)

    lambda = 1 gives Monte-Carlo returns minus the value, lambda = 0 the one-step temporal difference.

    rewards (B, T): r_t, received when token t is written; values (B, T): V(s_t), before token t; scored (B, T) bool; lambda a
    number, or one a row, (B,)
    -> advantages (B, T), returns (B, T), both 0 where not scored.

    Schulman et al. 2016, High-dimensional continuous control using generalized advantage estimation, eq. 16.
    """
    advantages = torch.zeros_like(values)
    next_advantage = next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + discount * next_value - values[:, t]
        advantage = delta + discount * lam * next_advantage
        advantages[:, t] = torch.where(scored[:, t], advantage, 0)
        next_advantage = torch.where(scored[:, t], advantage, next_advantage)
        next_value = torch.where(scored[:, t], values[:, t], next_value)
    return advantages, advantages + torch.where(scored, values, 0)


def length_adaptive_lambda(lengths: Tensor, alpha: float) -> Tensor:
    """A lambda whose advantages look ahead the further, the longer the completion: by alpha l tokens on average.

        lambda = 1 - 1 / (alpha l), not below 0        sum_t lambda^t = alpha l

    lengths (B,) -> (B,). Yue et al. 2025, VAPO.
    """
    return (1 - 1 / (alpha * lengths.clamp(min=1))).clamp(min=0)


def discounted_returns(rewards: Tensor, scored: Tensor, discount: float = 1.0) -> Tensor:
    """The discounted sum of the rewards from each token on.

        G_t = r_t + gamma G_{t+1}

    rewards (B, T); scored (B, T) bool -> (B, T), 0 where not scored. Sutton and Barto 2018, eq. 3.9.
    """
    return gae(rewards, torch.zeros_like(rewards), scored, discount, lam=1.0)[1]


def returns_ahead(rewards: Tensor, scored: Tensor, own: bool = True, mean: bool = False) -> Tensor:
    """The sum of the rewards after each token, with its own or without, or their mean.

        G_t = sum_{t' > t} r_t'    or    1 / (T - t) sum_{t' > t} r_t'    and with `own` t' >= t, 1 / (T - t + 1)

    rewards (B, T); scored (B, T) bool -> (B, T), 0 where not scored or nothing is ahead.

    Gu et al. 2024, MiniLLM (its length normalisation).
    """
    first = 0 if own else 1
    returns = discounted_returns(rewards, scored) - first * torch.where(scored, rewards, 0)
    if not mean:
        return returns
    ahead = scored.flip(1).cumsum(1).flip(1) - first
    return returns / ahead.clamp(min=1)


def leave_one_out(values: Tensor, group: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean of the others of one's group: a baseline that doesn't depend on the sample it is subtracted from.

        b_i = 1 / (k - 1) sum_{j != i} R_j

    Values that are not valid are left out of every mean. Who has no other gets its own value, hence an advantage of 0.

    values (B,); group (B,) integers; valid (B,) bool, default all -> (B,).

    Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free; Ahmadian et al. 2024, Back to basics.
    """
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    member, weight = group.unique(return_inverse=True)[1], valid.double()
    least, above = _over_least(values, member, valid)
    rest = _sums(weight, member) - weight
    return torch.where(rest > 0, (least + (_sums(above, member) - above) / rest.clamp(min=1)).to(values.dtype), values)


def spread(values: Tensor, group: Tensor, valid: Tensor | None = None) -> Tensor:
    """The largest less the smallest valid value of one's group, 0 where there are none: without any, nothing can be learnt from
    how a group's values differ.

    values (B,); group (B,) integers; valid (B,) bool, default all -> (B,).
    """
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    member = group.unique(return_inverse=True)[1]
    low, high = (
        values.new_full((len(values),), -sign * torch.inf).scatter_reduce(0, member[valid], values[valid], how)
        for how, sign in (("amin", -1), ("amax", 1))
    )
    return (high - low).clamp(min=0)[member]


def equal_groups(values: Tensor, group: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 where the valid values of one's group are all equal, or no two are valid, so that comparing them tells nothing; else 0.

    values (B,); group (B,) integers; valid (B,) bool, default all -> (B,), of the values' type.
    """
    return (spread(values, group, valid) == 0).to(values.dtype)


def group_advantages(
    values: Tensor, group: Tensor, valid: Tensor | None = None, scale: bool = True, epsilon: float = 1e-4
) -> Tensor:
    """What a value has over the mean of its group, in units of the group's standard deviation.

        A_i = (R_i - mean R) / (sd R + epsilon)        sd^2 = 1 / (k - 1) sum (R_j - mean R)^2

    Without `scale` the deviation alone. Values that are not valid are left out and get 0, as do one without others and values
    that differ by rounding alone.

    values (B,); group (B,) integers; valid (B,) bool, default all -> (B,).

    Shao et al. 2024, DeepSeekMath, section 4.1.2; without scale Liu et al. 2025, Understanding R1-Zero-like training, eq. 3.
    """
    deviation, _, variance = _group_moments(values, group, valid)
    advantages = deviation / (variance.sqrt() + epsilon) if scale else deviation
    return advantages.to(values.dtype)


def maxrl_advantages(values: Tensor, group: Tensor, valid: Tensor | None = None) -> Tensor:
    """What a value has over the mean of its group, in units of that mean: what is seldom right weighs more.

        A_i = (R_i - mean R) / mean |R|

    For rewards of 0 and 1 and groups of n the expected gradient is that of the first n - 1 terms of
    log p = - sum_k (1 - p)^k / k, p the chance of success; a group without success has 0. Values that are not valid are left
    out and get 0, as do values that differ by rounding alone.

    values (B,); group (B,) integers; valid (B,) bool, default all -> (B,).

    Tajwar et al. 2026, Maximum likelihood reinforcement learning, eq. 10, for rewards >= 0; below 0 the magnitude is ours.
    """
    deviation, magnitude, _ = _group_moments(values, group, valid)
    return torch.where(magnitude > 0, deviation / magnitude, 0).to(values.dtype)


def decoupled_advantages(
    parts: Tensor, weights: Tensor, group: Tensor, valid: Tensor, total: Callable[[Tensor], Tensor] = _identity
) -> Tensor:
    """Each part of the reward in units of its own group's deviation, summed, and the sum in units of the batch's.

        A_i = S_i / (sd S + 1e-4)        S_i = sum_k w_k (R_ik - mean R_k) / (sd R_k + 1e-4)

    mean R_k and sd R_k over the group, sd S over all, both sd with n - 1; the mean of S, which the paper subtracts, is 0. A
    part that is the same in a group, but for rounding, adds nothing there. What is not valid is left out and gets 0.

    parts (K, B); weights (K,); group (B,) integers; valid (B,) bool; `total` sums a tensor over ranks -> (B,).

    Liu et al. 2026, GDPO: group reward-decoupled normalization policy optimization; epsilon as in TRL 1.16.
    """
    apart = torch.stack([group_advantages(part, group, valid) for part in parts])
    summed = (weights.to(apart)[:, None] * apart).sum(0)
    count = total(valid.sum().double())
    deviation = (moments(summed, valid, total)[1] * count / (count - 1).clamp(min=1)).sqrt()
    return (summed.double() / (deviation + 1e-4)).to(parts.dtype)


def length_weighted_baseline(values: Tensor, lengths: Tensor, group: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean of one's group in which a completion counts once for each of its tokens.

        b = sum_j l_j R_j / sum_j l_j

    The baseline of least variance where the squared norm of a completion's gradient grows with its length. Values that are
    not valid are left out.

    values, lengths (B,); group (B,) integers; valid (B,) bool, default all -> (B,).

    Hao et al. 2025, On-policy RL with optimal reward baseline.
    """
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    member = group.unique(return_inverse=True)[1]
    weight = torch.where(valid, lengths, 0).double()
    least, above = _over_least(values, member, valid)
    mean = least + _sums(weight * above, member) / _sums(weight, member).clamp(min=1)
    return torch.where(valid, mean.to(values.dtype), values)


def _over_least(values: Tensor, member: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The least valid value of each one's group, and what each has over it, 0 where not valid; (B,) float64 each: so that means
    of equal values are these very values."""
    exact = torch.where(valid, values, torch.inf).double()
    least = torch.full_like(exact, torch.inf).scatter_reduce(0, member, exact, "amin")[member]
    return least, torch.where(valid, exact - least, 0)


def _sums(x: Tensor, member: Tensor) -> Tensor:
    """(B,): the sum over each one's group of x (B,)."""
    return torch.zeros_like(x).index_add(0, member, x)[member]


def _group_moments(values: Tensor, group: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of the valid values of each one's group, (B,) float64 each: the deviation from their mean, the mean of their magnitudes,
    the variance with n - 1. Deviation and variance are 0 where the values differ by rounding alone, or one is not valid."""
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    member, weight = group.unique(return_inverse=True)[1], valid.double()
    exact, count = torch.where(valid, values, 0).double(), _sums(weight, member)
    mean, magnitude = (_sums(x * weight, member) / count.clamp(min=1) for x in (exact, exact.abs()))
    deviation = (exact - mean) * weight
    variance = _sums(deviation**2, member) / (count - 1).clamp(min=1)
    differ = variance > rounding(mean, values.dtype)
    return torch.where(differ, deviation, 0), magnitude, torch.where(differ, variance, 0)


def rounding(mean: Tensor, dtype: torch.dtype) -> Tensor:
    """The variance up to which numbers of this mean, stored as `dtype`, may be equal but for their rounding: a standard
    deviation of a few units in the last place; of float64, in which they are summed, a few thousand."""
    return ((1e-12 if dtype == torch.float64 else 5e-7) * mean) ** 2


def masked_mean(x: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = _identity) -> Tensor:
    """The mean of x where mask holds, 0 if nowhere; x is not read elsewhere.

    x and mask of one shape -> (), summed in float64. `total` sums a tensor over ranks, so that the mean is that over all of
    them.
    """
    sums = total(torch.stack([torch.where(mask, x, 0).double().sum(), mask.double().sum()]))
    return (sums[0] / sums[1].clamp(min=1)).to(x.dtype)


def moments(x: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = _identity) -> tuple[Tensor, Tensor]:
    """Mean and variance 1/n sum (x - mean)^2 of x where mask holds, (), (), both float64; the variance is 0 where it is no
    more than the rounding of x. `total` as in `masked_mean`.
    """
    exact = x.double()  # in which equal float32 values have that very mean
    mean = masked_mean(exact, mask, total)
    variance = masked_mean((exact - mean) ** 2, mask, total)
    return mean, torch.where(variance > rounding(mean, x.dtype), variance, 0)


def whiten(x: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = _identity, epsilon: float = 1e-8) -> Tensor:
    """x moved and scaled to mean 0 and variance 1 over the entries where mask holds.

        (x - mean) / sqrt(var + epsilon)        var = 1/n sum (x - mean)^2

    x and mask of one shape -> the same shape, 0 outside the mask and where x differs by rounding alone. `total` sums a tensor
    over ranks, so that the moments are those of all of them.
    """
    mean, variance = moments(x, mask, total)
    return torch.where(mask & (variance > 0), (x.double() - mean) * (variance + epsilon).rsqrt(), 0).to(x.dtype)
