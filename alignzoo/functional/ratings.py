"""Losses on completions that were rated one by one."""

import torch
from torch import Tensor


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: gains and losses of the implicit reward beta h against a reference point.

        L = w_D (1 - sigma(beta (h - z)))    where desirable
        L = w_U (1 - sigma(beta (z - h)))    elsewhere                 h = sum_t log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)

    With z = 0 it is the unpaired APO-zero of D'Oosterlinck et al. 2024. At pi = ref and z = 0 the loss is w / 2.

    log_ratio (B,): h; desirable (B,) bool; reference_point (B,) or (): z, which carries no gradient -> (B,).

    Ethayarajh et al. 2024, KTO: model alignment as prospect theoretic optimization, section 4.1.
    """
    gain = beta * (log_ratio - reference_point.detach())
    return torch.where(desirable, desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid())
