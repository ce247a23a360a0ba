"""Skewed divergences from the teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import skew_kl, skew_reverse_kl

from .distilling import LAM, SOURCE, TEMPERATURE, Distilling, Source


class Side(Enum):
    teacher = "teacher"  # KL(teacher || its mixture with the student)
    student = "student"  # KL(student || its mixture with the teacher)


@dataclass(kw_only=True)
class Skew(Distilling):
    """L = mean_t KL(P || a P + (1 - a) Q), or with side=student KL(Q || a Q + (1 - a) P), P the teacher and Q the student.

    Ko et al. 2024, DistiLLM: towards streamlined distillation for large language models.
    """

    side: Side = field(default=Side.teacher, metadata={"help": "whose divergence from the mixture"})
    skew: float = field(
        default=0.1,
        metadata={"help": "a, its own share of the mixture: larger is tamer", "search": Search(0.01, 0.5, log=True)},
    )
    temperature: float = field(default=1.0, metadata=TEMPERATURE)
    lam: float = field(default=0.5, metadata=LAM)
    source: Source = field(default=Source.data, metadata=SOURCE)

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "in (0, 1): at 0 it is algorithm=distill with divergence=forward_kl or reverse_kl"
        require(0 < self.skew < 1, "algorithm.skew", self.skew, remedy)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        divergence = skew_kl if self.side is Side.teacher else skew_reverse_kl
        return divergence(student, teacher, self.skew, self.temperature)
