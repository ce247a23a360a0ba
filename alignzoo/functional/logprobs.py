"""From logits to log-probabilities and entropies. A logit of -inf marks a token outside the support."""

from torch import Tensor


def selective_log_softmax(logits: Tensor, ids: Tensor) -> Tensor:
    """log softmax(logits)[id].

        log pi(a) = z_a - log sum_v exp z_v

    logits (..., V); ids (...) -> (...). Not a number where every logit is -inf.
    """
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)


def supported_log_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax with 0 in place of -inf, and the probabilities, so that p * log p and its gradient are finite.

    logits (..., V) -> log-probs (..., V), probabilities (..., V).
    """
    logprobs = logits.log_softmax(-1)
    return logprobs.masked_fill(logits.isneginf(), 0), logprobs.exp()


def entropy(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits), in nats.

        H(pi) = - sum_v pi(v) log pi(v)

    logits (..., V) -> (...). Tokens with a logit of -inf contribute 0.
    """
    logprobs, probs = supported_log_softmax(logits)
    return -(probs * logprobs).sum(-1)
