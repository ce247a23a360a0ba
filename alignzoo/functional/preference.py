"""Losses on pairs of completions of which one is preferred."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation: the log-likelihood of the preference under the implicit reward beta log(pi / ref).

        L = - (1 - e) log sigma(beta Delta) - e log sigma(-beta Delta)        Delta = h_chosen - h_rejected

    Where h = sum_t log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t), and e is the share of labels taken to be wrong. e = 0 is
    DPO (Rafailov et al. 2023, Direct preference optimization, eq. 7); e > 0 is conservative DPO (Mitchell 2023, A note on DPO
    with noisy preferences, eq. 3). At pi = ref the loss is log 2.

    chosen, rejected (B,): h of each side -> (B,).
    """
    scaled = beta * (chosen - rejected)
    return -(1 - label_smoothing) * logsigmoid(scaled) - label_smoothing * logsigmoid(-scaled)


def win_rates(values: Tensor, group: Tensor, valid: Tensor) -> Tensor:
    """How often each beats one of its group, drawn at random, itself among them.

        P_i = 1/k sum_j sigma(r_i - r_j)

    values (B,): scores under which a beats b with probability sigma(r_a - r_b); group (B,) integers; valid (B,) bool: the
    others are nobody's opponents, and have a half -> (B,).

    Wu et al. 2024, Self-play preference optimization: its estimate of the probability to beat the policy.
    """
    opponents = (group[:, None] == group[None, :]) & valid[None, :]
    scores = torch.where(valid, values, 0)
    wins = torch.where(opponents, (scores[:, None] - scores[None, :]).sigmoid(), 0).sum(1)
    return torch.where(valid, wins / opponents.sum(1).clamp(min=1), 0.5).to(values.dtype)


def sppo_loss(log_ratio: Tensor, win_rate: Tensor, eta: float) -> Tensor:
    """(log pi / pi_t - eta (P - 1/2))^2: the log-ratio that multiplicative weights ask for, where the partition function is
    taken to be exp(eta / 2). log_ratio, win_rate (B,) -> (B,). Its gradient at pi = pi_t is - 2 eta (P - 1/2) that of log pi.

    Wu et al. 2024, Self-play preference optimization for language model alignment.
    """
    return (log_ratio - eta * (win_rate - 0.5)) ** 2


def nash_advantages(preference: Tensor, log_ratio: Tensor, tau: float) -> Tensor:
    """What the gradient of log pi(y|x) is weighed by, on policy, on the way to the regularised game's equilibrium.

        A = P(y beats y') - 1/2 - tau log(pi(y|x) / ref(y|x))

    preference (B,): P; log_ratio (B,): of whole completions -> (B,). The half leaves the mean gradient as it is, which is that
    of E[P] - tau KL(pi || ref), and makes its variance smaller.

    Munos et al. 2024, Nash learning from human feedback (Nash-MD-PG).
    """
    return preference - 0.5 - tau * log_ratio


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0, centring: float = 0.0
) -> Tensor:
    """Cross-entropy of a reward model's preference sigma(d) with the label, and a pull of its scores towards a mean of 0.

        L = - (1 - e) log sigma(d) - e log sigma(-d) + c (r_chosen + r_rejected)^2        d = r_chosen - r_rejected - m

    e = c = m = 0: Bradley and Terry 1952, as in Ouyang et al. 2022 (Training language models to follow instructions, eq. 1,
    K = 2). m: how much better the chosen one is (Touvron et al. 2023, Llama 2, eq. 2). e: the share of labels taken to be
    wrong, by noisy raters (conservative, Mitchell 2023, eq. 3). c: centring (Eisenstein et al. 2023, Helping or herding?),
    which leaves preferences as they are: they don't depend on a common shift of the scores. At equal scores of 0
    and m = 0 the loss is log 2.

    chosen, rejected, margin (B,): scores of each side, and m -> (B,).
    """
    difference = chosen - rejected - margin
    fit = -(1 - label_smoothing) * logsigmoid(difference) - label_smoothing * logsigmoid(-difference)
    return fit + centring * (chosen + rejected) ** 2
