"""Adversarial imitation: a discriminator between demonstrations and samples, and the rewards made of it.

s = logit of D, the probability that a completion is a demonstration: D = sigma(s), log D = -softplus(-s), log(1 - D) =
-softplus(s). Where D is the best there can be, s = log p_demonstrations - log pi.
"""

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(demonstrations: Tensor, samples: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, by side.

        L = E_demonstrations[- (1 - e) log D - e log(1 - D)] + E_samples[- log(1 - D)]

    Goodfellow et al. 2014 (Generative adversarial nets, eq. 1), with demonstrations as the real data, as in Ho and Ermon 2016
    (Generative adversarial imitation learning, algorithm 1, whose D is the probability of a sample). e > 0 is one-sided label
    smoothing (Salimans et al. 2016, Improved techniques for training GANs, section 3.4), under which D of what is surely a
    demonstration is 1 - e. At s = 0 each side is log 2.

    demonstrations (A,) and samples (B,): s of each -> (A,), (B,).
    """
    real = (1 - label_smoothing) * softplus(-demonstrations) + label_smoothing * softplus(demonstrations)
    return real, softplus(samples)


def gail_reward(logit: Tensor) -> Tensor:
    """-log(1 - D) = softplus(s) > 0 (Ho and Ermon 2016, algorithm 1)."""
    return softplus(logit)


def airl_reward(logit: Tensor) -> Tensor:
    """log D - log(1 - D) = s (Fu et al. 2018, Learning robust rewards with adversarial inverse reinforcement learning,
    algorithm 1). Under the best D its mean is -KL(pi || demonstrations)."""
    return logit


def seqgan_reward(logit: Tensor) -> Tensor:
    """D in (0, 1) (Yu et al. 2017, SeqGAN, eq. 2, of whole sequences)."""
    return logit.sigmoid()
