"""Distillation of a teacher, on its samples, on data, or on the student's own samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from torch import Tensor

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import forward_kl, generalised_jsd, reverse_kl


class Divergence(Enum):
    forward_kl = "forward_kl"  # KL(teacher || student)
    reverse_kl = "reverse_kl"  # KL(student || teacher)
    jsd = "jsd"  # generalised Jensen-Shannon
    nll = "nll"  # the likelihood of the teacher's samples: sequence-level distillation


class Source(Enum):
    data = "data"
    teacher = "teacher"


@dataclass(kw_only=True)
class Distill(OnlineAlgorithm):
    """L = E_(x, y) mean_t D(teacher(. | x, y_<t), student(. | x, y_<t)), y the student's with probability lam, else off-policy.

    Agarwal et al. 2024 (GKD), algorithm 1; with divergence=nll Kim and Rush 2016. No gradient flows through sampling.
    """

    published_rate = 5e-6  # Gu et al. 2024, MiniLLM
    needs_logprobs_of_samples = False

    divergence: Divergence = field(default=Divergence.jsd, metadata={"help": "distance between the token distributions"})
    beta: float = field(
        default=0.5, metadata={"help": "of the JSD: near 0 like forward, near 1 like reverse KL", "search": Search(0.1, 0.9)}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "divides both logits inside the divergence", "search": Search(0.5, 2.0, log=True)}
    )
    lam: float = field(
        default=0.5, metadata={"help": "probability that a sequence is the student's own sample", "search": Search(0, 1)}
    )
    source: Source = field(default=Source.data, metadata={"help": "where the other sequences come from"})

    def __post_init__(self) -> None:
        require(
            0 < self.beta < 1, "algorithm.beta", self.beta, "in (0, 1); its limits are divergence=forward_kl and reverse_kl"
        )
        require(0 <= self.lam <= 1, "algorithm.lam", self.lam, "in [0, 1]")
        require(self.temperature > 0, "algorithm.temperature", self.temperature, "> 0")
        jsd, nll = self.divergence is Divergence.jsd, self.divergence is Divergence.nll
        teacher = self.source is Source.teacher and self.lam == 0
        require(jsd or self.beta == 0.5, "algorithm.beta", self.beta, "left at 0.5 unless algorithm.divergence=jsd")
        require(not nll or self.temperature == 1, "algorithm.temperature", self.temperature, "left at 1 where divergence=nll")
        require(not nll or teacher, "algorithm.divergence", "nll", "used with algorithm.source=teacher algorithm.lam=0")

    @property
    def data(self) -> type[Batch]:
        return Completions if self.lam < 1 and self.source is Source.data else Prompts

    def roles(self) -> Mapping[str, Role]:
        learn = {"logprobs"} if self.divergence is Divergence.nll else {"tokens"}
        own = {"generate"} if self.lam > 0 else set()
        teach = {"generate"} if self.lam < 1 and self.source is Source.teacher else set()
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset(learn | own))
        return {"policy": policy, "teacher": Role(kind=Kind.POLICY, needs=frozenset(learn | teach), start="config")}

    def experience(self, models: Models, batch: Prompts | Completions) -> Completions:
        batch = batch.draws() if isinstance(batch, Completions) else batch
        prompts = batch.prompts if isinstance(batch, Completions) else batch
        own = models.uniform("mix", prompts.row) < self.lam  # (P,)
        parts = []
        if models.any(own.any()):  # of any rank: all must sample equally often
            parts.append(models.policy.generate(prompts.take(own), models.sampling))
        if isinstance(batch, Completions):
            parts.append(batch.take((~own).nonzero()[:, 0].repeat_interleave(models.sampling.samples)))
        elif models.any(~own.all()):
            taught = models.teacher.generate(prompts.take(~own), models.sampling)
            parts.append(replace(taught, logprobs=None))  # not the policy's, so no measure of its entropy
        return Completions.cat(parts)

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        if self.divergence is Divergence.nll:
            return -models.policy.logprobs(batch), {}
        return models.policy.tokens(batch, self._distance, beside=[models.teacher]), {}

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (n, V) -> (n,)."""
        if self.divergence is Divergence.jsd:
            return generalised_jsd(student, teacher, self.beta, self.temperature)
        divergence = forward_kl if self.divergence is Divergence.forward_kl else reverse_kl
        return divergence(student, teacher, self.temperature)
