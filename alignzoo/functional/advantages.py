"""From rewards to returns, baselines and advantages.

Time runs over scored tokens only: what stands between two of them (tool output, a user's turn) takes no time and is not read.
The last scored token ends the episode, so nothing is bootstrapped after it.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, scored: Tensor, discount: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, and the lambda-returns it implies.

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
        A_t = sum_l (gamma lambda)^l delta_{t+l}        G_t = A_t + V(s_t)

    lambda = 1 gives Monte-Carlo returns minus the value, lambda = 0 the one-step temporal difference.

    rewards (B, T): r_t, received when token t is written; values (B, T): V(s_t), before token t; scored (B, T) bool
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


def discounted_returns(rewards: Tensor, scored: Tensor, discount: float = 1.0) -> Tensor:
    """The discounted sum of the rewards from each token on.

        G_t = r_t + gamma G_{t+1}

    rewards (B, T); scored (B, T) bool -> (B, T), 0 where not scored. Sutton and Barto 2018, eq. 3.9.
    """
    return gae(rewards, torch.zeros_like(rewards), scored, discount, lam=1.0)[1]


def leave_one_out(values: Tensor, group: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean of the others of one's group: a baseline that doesn't depend on the sample it is subtracted from.

        b_i = 1 / (k - 1) sum_{j != i} R_j

    Values that are not valid are left out of every mean. Who has no other gets its own value, hence an advantage of 0.

    values (B,); group (B,) integers; valid (B,) bool, default all -> (B,).

    Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free; Ahmadian et al. 2024, Back to basics.
    """
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    exact, weight = torch.where(valid, values, 0).double(), valid.double()
    member = group.unique(return_inverse=True)[1]
    sums, counts = (torch.zeros_like(x).index_add(0, member, x)[member] for x in (exact, weight))
    others = counts - weight
    return torch.where(others > 0, ((sums - exact) / others.clamp(min=1)).to(values.dtype), values)


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
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    member, weight = group.unique(return_inverse=True)[1], valid.double()

    def summed(x: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(0, member, x * weight)[member]

    exact, count = torch.where(valid, values, 0).double(), summed(weight)
    mean = summed(exact) / count.clamp(min=1)
    deviation = (exact - mean) * weight
    variance = summed(deviation**2) / (count - 1).clamp(min=1)
    advantages = deviation / (variance.sqrt() + epsilon) if scale else deviation
    return torch.where(variance > rounding(mean, values.dtype), advantages, 0).to(values.dtype)


def rounding(mean: Tensor, dtype: torch.dtype) -> Tensor:
    """The variance up to which numbers of this mean, stored as `dtype`, may be equal but for their rounding: a standard
    deviation of a few units in the last place; of float64, in which they are summed, a few thousand."""
    return ((1e-12 if dtype == torch.float64 else 5e-7) * mean) ** 2


def _identity(x: Tensor) -> Tensor:
    return x


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
