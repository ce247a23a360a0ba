"""Losses on pairs of completions of which one is preferred."""

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
