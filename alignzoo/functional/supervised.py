"""Learning from demonstrations: losses of their tokens, and how often a token stands where its successors look for it."""

import math

from torch import Tensor


def dft_loss(logprobs: Tensor) -> Tensor:
    """Likelihood weighed by the probability itself, which carries no gradient: unlikely tokens, whose gradient is large, count
    less.

        L_t = - sg(p_t) log p_t

    logprobs (...): log p -> (...). Its gradient is that of 1 - p_t.

    Wu et al. 2025, On the generalization of SFT: a reinforcement learning perspective with reward rectification.
    """
    return -logprobs.detach().exp() * logprobs


def linear_decay(step: float, pace: float) -> float:
    """max(0, 1 - i / pace): the probability of a demonstrated token at step i (Bengio et al. 2015, Scheduled sampling for
    sequence prediction with recurrent neural networks, section 2.4: k = 1, c = 1 / pace)."""
    return max(0.0, 1 - step / pace)


def exponential_decay(step: float, pace: float) -> float:
    """exp(-i / pace) (Bengio et al. 2015, section 2.4: k^i with k = exp(-1 / pace))."""
    return math.exp(-step / pace)


def inverse_sigmoid_decay(step: float, pace: float) -> float:
    """pace / (pace + exp(i / pace)) (Bengio et al. 2015, section 2.4: k = pace). It is near 1 at first where pace is large."""
    return 1 / (1 + math.exp(min(step / pace - math.log(pace), 700.0)))
