"""Alignment by optimal transport, unpaired."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .aot import AOT


@dataclass(kw_only=True)
class AOTUnpaired(AOT):
    """L = - (1 - e) log sigma(beta d_i) - e log sigma(-beta d_i), d_i the i-th smallest h of the batch's chosen side less the
    i-th smallest of its rejected one, h = log pi(y|x) - log ref(y|x): which were of one prompt doesn't matter.

    Melnyk et al. 2024, Distributional preference alignment of LLMs via optimal transport, the unpaired variant.
    """

    def compared(self, policy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        chosen, rejected = policy - reference
        return chosen, rejected
