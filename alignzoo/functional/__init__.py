"""Formulas as pure functions: tensors in, an unreduced tensor out."""

from alignzoo.functional.advantages import discounted_returns, gae, leave_one_out, masked_mean, whiten
from alignzoo.functional.divergences import forward_kl, generalised_jsd, k1, k2, k3, reverse_kl
from alignzoo.functional.logprobs import entropy, selective_log_softmax
from alignzoo.functional.policy import adapted_kl_coefficient, clipped_surrogate, clipped_value_loss, reinforce
from alignzoo.functional.preference import bradley_terry_loss, dpo_loss

__all__ = [
    "adapted_kl_coefficient",
    "bradley_terry_loss",
    "clipped_surrogate",
    "clipped_value_loss",
    "discounted_returns",
    "dpo_loss",
    "entropy",
    "forward_kl",
    "gae",
    "generalised_jsd",
    "k1",
    "k2",
    "k3",
    "leave_one_out",
    "masked_mean",
    "reinforce",
    "reverse_kl",
    "selective_log_softmax",
    "whiten",
]
