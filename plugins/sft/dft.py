"""Dynamic fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models
from alignzoo.functional import dft_loss

from .sft import SFT


@dataclass(kw_only=True)
class DFT(SFT):
    """L = - 1/N sum over the scored tokens of all completions of sg(pi(y_t | x, y_<t)) log pi(y_t | x, y_<t).

    Wu et al. 2025, On the generalization of SFT: a reinforcement learning perspective with reward rectification.
    """

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        return dft_loss(models.policy.logprobs(batch)), {}
