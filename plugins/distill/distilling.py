"""What distillation shares: whose sequences are learned from, and a mean over their tokens of a distance to the teacher."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

from torch import Tensor

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require


class Source(Enum):
    data = "data"
    teacher = "teacher"


TEMPERATURE = {"help": "divides both logits inside the divergence", "search": Search(0.5, 2.0, log=True)}
LAM = {"help": "probability that a sequence is the student's own sample", "search": Search(0, 1)}
SOURCE = {"help": "where the other sequences come from"}


class Distilling(OnlineAlgorithm):
    """L = E_(x, y) mean_t D(teacher(. | x, y_<t), student(. | x, y_<t)), y the student's with probability lam, else off-policy.

    Agarwal et al. 2024 (GKD), algorithm 1. No gradient flows through sampling.
    """

    published_rate = 5e-6  # Gu et al. 2024, MiniLLM
    needs_logprobs_of_samples = False

    # a loss has these after those of its own: tuning draws in the order of the fields
    temperature: float
    lam: float
    source: Source

    def __post_init__(self) -> None:
        require(0 <= self.lam <= 1, "algorithm.lam", self.lam, "in [0, 1]")
        require(self.temperature > 0, "algorithm.temperature", self.temperature, "> 0")

    @abstractmethod
    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (n, V) -> (n,)."""

    @property
    def data(self) -> type[Batch]:
        return Completions if self.lam < 1 and self.source is Source.data else Prompts

    def learns_by(self) -> str:
        """What the loss asks of policy and teacher."""
        return "tokens"

    def roles(self) -> Mapping[str, Role]:
        learn = {self.learns_by()}
        sample = {"generate"} if self.lam > 0 else set()
        teach = {"generate"} if self.lam < 1 and self.source is Source.teacher else set()
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset(learn | sample))
        return {"policy": policy, "teacher": Role(kind=Kind.POLICY, needs=frozenset(learn | teach), start="config")}

    def experience(self, models: Models, batch: Prompts | Completions) -> Completions:
        batch = batch.draws() if isinstance(batch, Completions) else batch
        prompts = batch.prompts if isinstance(batch, Completions) else batch
        sampled = models.uniform("mix", prompts.row) < self.lam  # (P,)
        parts = []
        if models.any(sampled.any()):  # of any rank: all must sample equally often
            parts.append(models.policy.generate(prompts.take(sampled), models.sampling))
        if isinstance(batch, Completions):
            parts.append(batch.take((~sampled).nonzero()[:, 0].repeat_interleave(models.sampling.samples)))
        elif models.any(~sampled.all()):
            taught = models.teacher.generate(prompts.take(~sampled), models.sampling)
            parts.append(replace(taught, logprobs=None))  # not the policy's, so no measure of its entropy
        return Completions.cat(parts)

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        return models.policy.tokens(batch, self.distance, beside=[models.teacher]), {}
