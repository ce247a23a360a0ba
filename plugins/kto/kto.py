"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from alignzoo.batch import Completions, Rated
from alignzoo.contracts import Algorithm, Couples, Kind, Models, Role, Search, require
from alignzoo.functional import kto_loss, masked_mean

from .mismatch import mismatched


class ReferencePoint(Enum):
    kl = "kl"  # an estimate of the KL to the reference
    zero = "zero"


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged(Rated):
    reference_point: Tensor  # (B,), the same for all


@dataclass(kw_only=True)
class KTO(Algorithm):
    """L = w_D (1 - sigma(beta (h - z))) where desirable, w_U (1 - sigma(beta (z - h))) elsewhere, h = log pi / ref.

    Ethayarajh et al. 2024. z = max(0, mean of h over prompts with another's completion), over the optimizer step.
    """

    data = Rated
    published_rate = 1e-6  # the default of TRL 1.16
    couples = Couples.STEP

    beta: float = field(
        default=0.1, metadata={"help": "strength of the tie to the reference", "search": Search(0.01, 1.0, log=True)}
    )
    desirable_weight: float = field(default=1.0, metadata={"help": "w_D", "search": Search(0.5, 2.0, log=True)})
    undesirable_weight: float = field(default=1.0, metadata={"help": "w_U", "search": Search(0.5, 2.0, log=True)})
    threshold: float = field(default=0.5, metadata={"help": "completions rated above it are desirable"})
    reference_point: ReferencePoint = field(default=ReferencePoint.kl, metadata={"help": "z, from which gains are counted"})

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")
        for name in ("desirable_weight", "undesirable_weight"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {
            "policy": Role(kind=Kind.POLICY, trained=True),
            "reference": Role(kind=Kind.POLICY, start="reference"),
        }

    def prepare(self, models: Models, batches: list[Rated]) -> list[Judged]:
        point = torch.zeros(()) if self.reference_point is ReferencePoint.zero else _kl(models, batches)
        return [Judged(**vars(batch), reference_point=point.to(batch.rating.device).expand(len(batch))) for batch in batches]

    def loss(self, models: Models, batch: Judged) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = _log_ratio(models, batch)  # (B,)
        desirable, point = batch.rating > self.threshold, batch.reference_point.to(ratio.dtype)
        loss = kto_loss(ratio, desirable, point, self.beta, self.desirable_weight, self.undesirable_weight)
        gained = ratio.detach() > point
        return loss, {"rewards/accuracy": (gained == desirable).float(), "reference_point": self.beta * point}


def _kl(models: Models, batches: list[Rated]) -> Tensor:
    """max(0, the mean log-ratio of the step's mismatched completions), of all ranks; as many at once as a micro-batch has."""
    own = Rated.cat(batches)
    others = mismatched(own, models)
    ratio = torch.cat(
        [_log_ratio(models, others.take(rows)) for rows in torch.arange(len(own), device=own.ids.device).split(len(batches[0]))]
    )
    return masked_mean(ratio, own.scored.any(1), models.sum).clamp(min=0)


def _log_ratio(models: Models, c: Completions) -> Tensor:
    return c.sum(models.policy.logprobs(c) - models.reference.logprobs(c))
