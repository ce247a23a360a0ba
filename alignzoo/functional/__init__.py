"""Formulas as pure functions: tensors in, an unreduced tensor out."""

from alignzoo.functional.advantages import discounted_returns, gae, group_advantages, leave_one_out, masked_mean, whiten
from alignzoo.functional.adversarial import airl_reward, discriminator_loss, gail_reward, seqgan_reward
from alignzoo.functional.divergences import forward_kl, generalised_jsd, k1, k2, k3, reverse_kl
from alignzoo.functional.logprobs import entropy, selective_log_softmax
from alignzoo.functional.policy import adapted_kl_coefficient, clipped_surrogate, clipped_value_loss, reinforce
from alignzoo.functional.preference import bradley_terry_loss, dpo_loss
from alignzoo.functional.ratings import kto_loss, mismatches
from alignzoo.functional.scores import plackett_luce_loss, rating_cross_entropy, rating_squared_error

__all__ = [
    "adapted_kl_coefficient",
    "airl_reward",
    "bradley_terry_loss",
    "clipped_surrogate",
    "clipped_value_loss",
    "discounted_returns",
    "discriminator_loss",
    "dpo_loss",
    "entropy",
    "forward_kl",
    "gae",
    "gail_reward",
    "generalised_jsd",
    "group_advantages",
    "k1",
    "k2",
    "k3",
    "kto_loss",
    "leave_one_out",
    "masked_mean",
    "mismatches",
    "plackett_luce_loss",
    "rating_cross_entropy",
    "rating_squared_error",
    "reinforce",
    "reverse_kl",
    "selective_log_softmax",
    "seqgan_reward",
    "whiten",
]
