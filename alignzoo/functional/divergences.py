"""Distances between a policy and a reference or teacher: estimated from samples, or exact from logits.

In the estimators the samples are the policy's own. In the exact divergences P is the teacher and Q the student; tokens outside
the support of both (logits of -inf) contribute 0, with finite gradients; a token that only one of them can write
makes a KL infinite where the definition says so.
"""

import torch
from torch import Tensor

from alignzoo.functional.logprobs import supported_log_softmax


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || ref) from a sample of pi: unbiased, of high variance, negative at times.

        k1 = log pi(a) - log ref(a)

    Right in a reward. As a loss its gradient has expectation 0: use k2 or k3 there.

    logprobs, reference (...) -> (...). Schulman 2020, Approximating KL divergence.
    """
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || ref) from a sample of pi: biased, of low variance; its expected gradient is that of the KL.

        k2 = (log pi(a) - log ref(a))^2 / 2

    logprobs, reference (...) -> (...). Schulman 2020, Approximating KL divergence.
    """
    return (logprobs - reference) ** 2 / 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || ref) from a sample of pi: unbiased, of low variance, never negative.

        k3 = r - 1 - log r        r = ref(a) / pi(a)

    As a loss its expected gradient is that of the other one, KL(ref || pi): multiply it by pi(a) / sg(pi(a)) for this one's.

    logprobs, reference (...) -> (...). Schulman 2020, Approximating KL divergence.
    """
    log_ratio = reference - logprobs
    return log_ratio.expm1() - log_ratio


def forward_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL from the teacher to the student, the mode-covering one.

        KL(P || Q) = sum_v P(v) (log P(v) - log Q(v))

    student, teacher (..., V) logits, both divided by the temperature -> (...). Infinite where the student
    lacks a token of the teacher.
    """
    return _kl(teacher / temperature, student / temperature)


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL from the student to the teacher, the mode-seeking one.

        KL(Q || P) = sum_v Q(v) (log Q(v) - log P(v))

    student, teacher (..., V) logits, both divided by the temperature -> (...). Infinite where the teacher
    lacks a token of the student.
    """
    return _kl(student / temperature, teacher / temperature)


def generalised_jsd(student: Tensor, teacher: Tensor, beta: float, temperature: float = 1.0) -> Tensor:
    """The generalised Jensen-Shannon divergence.

        JSD_beta(P || Q) = beta KL(P || M) + (1 - beta) KL(Q || M)        M = beta P + (1 - beta) Q

    Divided by beta it tends to KL(P || Q) for beta -> 0, divided by 1 - beta to KL(Q || P) for beta -> 1. At 0 and at 1
    it is 0 by this definition: use `forward_kl` and `reverse_kl`.

    student, teacher (..., V) logits, both divided by the temperature; 0 < beta < 1 -> (...).

    Agarwal et al. 2024, On-policy distillation of language models, eq. 1.
    """
    log_p, p = supported_log_softmax(teacher / temperature)
    log_q, q = supported_log_softmax(student / temperature)
    mixture = _log_mixture(q, p, beta)
    return beta * (p * (log_p - mixture)).sum(-1) + (1 - beta) * (q * (log_q - mixture)).sum(-1)


def skew_kl(student: Tensor, teacher: Tensor, skew: float, temperature: float = 1.0) -> Tensor:
    """KL from the teacher to its mixture with the student.

        KL(P || a P + (1 - a) Q)

    At most log(1 / a), finite whatever the student lacks.

    student, teacher (..., V) logits, both divided by the temperature; 0 < a < 1 -> (...).

    Ko et al. 2024, DistiLLM (the skew KL divergence).
    """
    log_p, p = supported_log_softmax(teacher / temperature)
    _, q = supported_log_softmax(student / temperature)
    return (p * (log_p - _log_mixture(q, p, skew))).sum(-1)


def skew_reverse_kl(student: Tensor, teacher: Tensor, skew: float, temperature: float = 1.0) -> Tensor:
    """KL from the student to its mixture with the teacher, KL(Q || a Q + (1 - a) P): `skew_kl` the other way round (Ko et al.
    2024, DistiLLM, the skew reverse KL divergence)."""
    return skew_kl(teacher, student, skew, temperature)


def _log_mixture(q: Tensor, p: Tensor, share: float) -> Tensor:
    """log((1 - share) q + share p) of probabilities."""
    return torch.lerp(q, p, share).clamp(min=torch.finfo(q.dtype).tiny).log()  # where it underflows, p and q are 0 anyway


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """sum_v P(v) (log P(v) - log Q(v)) between softmax(p) and softmax(q)."""
    log_p, probs = supported_log_softmax(p)
    log_q = q.log_softmax(-1).masked_fill(p.isneginf(), 0)
    return (probs * (log_p - log_q)).sum(-1)
