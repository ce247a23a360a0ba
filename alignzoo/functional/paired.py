"""Losses on pairs as functions of h = log pi(y|x) - log ref(y|x), summed over the completion unless said otherwise.

Everywhere chosen, rejected (B,): h of each side -> (B,); Delta = h_chosen - h_rejected. DPO's own is in `preference`.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


def robust_dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, flipped: float) -> Tensor:
    """DPO whose mean over labels that are flipped with probability e is DPO's on the true labels.

        L = ( - (1 - e) log sigma(beta Delta) + e log sigma(-beta Delta) ) / (1 - 2 e)

    Chowdhury et al. 2024, Provably robust DPO, eq. 9. It has no lower bound. 0 <= flipped < 0.5.
    """
    scaled = beta * (chosen - rejected)
    return (-(1 - flipped) * logsigmoid(scaled) + flipped * logsigmoid(-scaled)) / (1 - 2 * flipped)


def hinge_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta Delta): a support vector machine on h (Liu et al. 2024, Statistical rejection sampling, eq. 10, without
    its normalisation by length; after Zhao et al. 2023, SLiC-HF, which has no reference)."""
    return (1 - beta * (chosen - rejected)).clamp(min=0)


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(Delta - 1 / (2 beta))^2 (Azar et al. 2024, A general theoretical paradigm, eq. 17, where beta is called tau)."""
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def exo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Reverse KL between the policy's preference q = sigma(beta Delta) and the label's, smoothed.

        L = q log(q / (1 - e)) + (1 - q) log((1 - q) / e)

    Ji et al. 2024, Towards efficient exact optimization, eq. 16 for K = 2. 0 < label_smoothing < 0.5. At pi = ref it is
    - log(2 sqrt(e (1 - e))).
    """
    scaled = beta * (chosen - rejected)
    wins = scaled.sigmoid() * (logsigmoid(scaled) - math.log1p(-label_smoothing))
    return wins + (-scaled).sigmoid() * (logsigmoid(-scaled) - math.log(label_smoothing))


def nca_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Noise-contrastive alignment: each side is told from the reference's samples, so that the chosen one's likelihood, too, is
    kept from falling.

        L = - log sigma(beta h_c) - 1/2 log sigma(-beta h_c) - 1/2 log sigma(-beta h_r)

    Chen et al. 2024, Noise contrastive alignment, eq. 11 for pairs. At pi = ref it is 2 log 2.
    """
    return -logsigmoid(beta * chosen) - (logsigmoid(-beta * chosen) + logsigmoid(-beta * rejected)) / 2


def bco_pair_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """- log sigma(beta h_c) - log sigma(-beta h_r): a classifier of both sides, without a shift of the reward. At pi = ref it
    is 2 log 2. Jung et al. 2024, Binary classifier optimization, eq. 9 with delta = 0."""
    return -logsigmoid(beta * chosen) - logsigmoid(-beta * rejected)


def sppo_hard_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(h_c - 1 / (2 beta))^2 + (h_r + 1 / (2 beta))^2: self-play preference optimisation with the label in the place of the
    probability to win (Wu et al. 2024, eq. 4.7 with P = 1 and 0; its eta is 1 / beta)."""
    return (chosen - 1 / (2 * beta)) ** 2 + (rejected + 1 / (2 * beta)) ** 2


def apo_zero_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """1 - sigma(beta h_c) + sigma(beta h_r): the chosen side up, the rejected one down (D'Oosterlinck et al. 2024, Anchored
    preference optimization, eq. 7). At pi = ref it is 1."""
    return (-beta * chosen).sigmoid() + (beta * rejected).sigmoid()


def apo_down_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """sigma(beta h_c) + 1 - sigma(beta Delta): both down, the rejected one further, where the policy is better than what was
    chosen (D'Oosterlinck et al. 2024, Anchored preference optimization, eq. 8). At pi = ref it is 1."""
    return (beta * chosen).sigmoid() + (-beta * (chosen - rejected)).sigmoid()


def discopop_loss(chosen: Tensor, rejected: Tensor, beta: float, tau: float) -> Tensor:
    """DiscoPOP: logistic for pairs that are wrong, exponential for those that are right.

        L = - (1 - m) log sigma(rho) + m exp(-rho)        rho = beta Delta, m = sigma(rho / tau)

    Lu et al. 2024, Discovering preference optimization algorithms, eq. 5 (the log-ratio modulated loss). At pi = ref it is
    (log 2 + 1) / 2, and for tau < (1 - log 2) / 3 rises there with Delta.
    """
    scaled = beta * (chosen - rejected)
    exponential = (logsigmoid(scaled / tau) - scaled).exp()  # the product, each of whose factors may overflow or vanish
    return exponential - (-scaled / tau).sigmoid() * logsigmoid(scaled)


def dpop_loss(chosen: Tensor, rejected: Tensor, beta: float, penalty: float) -> Tensor:
    """DPO-positive: DPO that pays where the chosen side gets less likely than under the reference.

        L = - log sigma( beta (Delta - lambda max(0, -h_c)) )

    Pal et al. 2024, Smaug, eq. 3.
    """
    return -logsigmoid(beta * (chosen - rejected - penalty * (-chosen).clamp(min=0)))


def forward_kl_score(ratio: Tensor) -> Tensor:
    """f'(u) = 1 - 1 / u at u = exp(h), of the forward KL (Wang et al. 2023, Beyond reverse KL, table 1)."""
    return -(-ratio).expm1()


def jensen_shannon_score(ratio: Tensor) -> Tensor:
    """f'(u) = log(2 u / (1 + u)) at u = exp(h), of the Jensen-Shannon divergence (Wang et al. 2023, Beyond reverse KL)."""
    return math.log(2) + logsigmoid(ratio)


def alpha_score(ratio: Tensor, alpha: float) -> Tensor:
    """f'(u) = (1 - u^-alpha) / alpha at u = exp(h), of the alpha divergence (Wang et al. 2023, Beyond reverse KL, table 1). It
    tends to h for alpha -> 0, and is the forward KL's at 1. 0 < alpha < 1."""
    return -(-alpha * ratio).expm1() / alpha


def cpl_loss(chosen: Tensor, rejected: Tensor, bias: float) -> Tensor:
    """Contrastive preference learning, on discounted sums of advantages A = alpha log pi instead of h.

        L = - log( exp(A_c) / (exp(A_c) + exp(lambda A_r)) )

    Hejna et al. 2023, Contrastive preference learning, eq. 5 (lambda = 1) and its conservative form, eq. 10 (lambda < 1).
    """
    return softplus(bias * rejected - chosen)


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, margin: float) -> Tensor:
    """- log sigma(beta (l_c - l_r) - gamma), l a token's mean log-prob, in the place of h (Meng et al. 2024, SimPO, eq. 6)."""
    return -logsigmoid(beta * (chosen - rejected) - margin)


def slic_loss(chosen: Tensor, rejected: Tensor, margin: float) -> Tensor:
    """max(0, delta - log pi(y_c) + log pi(y_r)), log-probs in the place of h (Zhao et al. 2023, SLiC-HF, eq. 1, its first
    term)."""
    return (margin - chosen + rejected).clamp(min=0)


def log_odds(logprob: Tensor) -> Tensor:
    """log p / (1 - p) of log p < 0, (...) -> (...): of a mean log-prob in ORPO (Hong et al. 2024, eq. 4)."""
    return logprob - (-logprob.expm1()).log()
