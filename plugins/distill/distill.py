"""Distillation of a teacher, on its samples, on data, or on the student's own samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import forward_kl, generalised_jsd, reverse_kl

from .distilling import LAM, SOURCE, TEMPERATURE, Distilling, Source


class Divergence(Enum):
    forward_kl = "forward_kl"  # KL(teacher || student)
    reverse_kl = "reverse_kl"  # KL(student || teacher)
    jsd = "jsd"  # generalised Jensen-Shannon
    nll = "nll"  # the likelihood of the teacher's samples: sequence-level distillation


@dataclass(kw_only=True)
class Distill(Distilling):
    """L = E_(x, y) mean_t D(teacher(. | x, y_<t), student(. | x, y_<t)), y the student's with probability lam, else off-policy.

    Agarwal et al. 2024 (GKD), algorithm 1; with divergence=nll Kim and Rush 2016. No gradient flows through sampling.
    """

    divergence: Divergence = field(default=Divergence.jsd, metadata={"help": "distance between the token distributions"})
    beta: float = field(
        default=0.5, metadata={"help": "of the JSD: near 0 like forward, near 1 like reverse KL", "search": Search(0.1, 0.9)}
    )
    temperature: float = field(default=1.0, metadata=TEMPERATURE)
    lam: float = field(default=0.5, metadata=LAM)
    source: Source = field(default=Source.data, metadata=SOURCE)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.beta < 1, "algorithm.beta", self.beta, "in (0, 1); its limits are divergence=forward_kl and reverse_kl"
        )
        jsd, nll = self.divergence is Divergence.jsd, self.divergence is Divergence.nll
        teacher = self.source is Source.teacher and self.lam == 0
        require(jsd or self.beta == 0.5, "algorithm.beta", self.beta, "left at 0.5 unless algorithm.divergence=jsd")
        require(not nll or self.temperature == 1, "algorithm.temperature", self.temperature, "left at 1 where divergence=nll")
        require(not nll or teacher, "algorithm.divergence", "nll", "used with algorithm.source=teacher algorithm.lam=0")

    def learns_by(self) -> str:
        return "logprobs" if self.divergence is Divergence.nll else "tokens"

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        if self.divergence is Divergence.nll:
            return -models.policy.logprobs(batch), {}
        return super().loss(models, batch)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.divergence is Divergence.jsd:
            return generalised_jsd(student, teacher, self.beta, self.temperature)
        divergence = forward_kl if self.divergence is Divergence.forward_kl else reverse_kl
        return divergence(student, teacher, self.temperature)
