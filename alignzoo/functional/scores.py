"""Losses of reward models that learn from rankings and from ratings; those from pairs are in `preference`."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def plackett_luce_loss(scores: Tensor, present: Tensor) -> Tensor:
    """Minus the log-likelihood of a ranking under Plackett-Luce: the best is chosen among all, the next among the rest.

        L = - sum_k log( exp(r_k) / sum_{j >= k} exp(r_j) )

    Plackett 1975, The analysis of permutations; as a loss of reward models Zhu et al. 2023, Principled reinforcement learning
    with human feedback from pairwise or K-wise comparisons (MLE_K). Of two it is Bradley-Terry. At equal scores it is
    log K!.

    scores (G, K), best first; present (G, K) bool: False beyond the end of shorter rankings, where scores are not read -> (G,).
    """
    scores = torch.where(present, scores, torch.finfo(scores.dtype).min / 2)  # not -inf, whose gradient is not a number
    rest = scores.flip(1).logcumsumexp(1).flip(1)
    return torch.where(present, rest - scores, 0).sum(1)


def rating_squared_error(score: Tensor, rating: Tensor) -> Tensor:
    """(r - z)^2: least squares (as Wang et al. 2024, HelpSteer2). score, rating (B,) -> (B,)."""
    return (score - rating) ** 2


def rating_cross_entropy(score: Tensor, rating: Tensor) -> Tensor:
    """Cross-entropy of sigma(r) with a rating in [0, 1], the share of raters who approve.

        L = - z log sigma(r) - (1 - z) log(1 - sigma(r))

    Cobbe et al. 2021, Training verifiers to solve math word problems, where z is 0 or 1.

    score, rating (B,) -> (B,).
    """
    return binary_cross_entropy_with_logits(score, rating.to(score.dtype), reduction="none")
