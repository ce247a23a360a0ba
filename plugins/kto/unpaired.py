"""What losses on completions that were judged one by one share: a log-ratio, a label, and the point that gains count from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions, Rated
from alignzoo.contracts import Algorithm, Context, Couples, Kind, Models, Role, Search, require
from alignzoo.functional import kto_loss


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged(Rated):
    reference_point: Tensor  # (B,)


@dataclass(kw_only=True)
class Unpaired(Algorithm):
    """A loss of h = log pi(y|x) - log ref(y|x), of whether y is desirable, and of a point z that the whole step decides."""

    data = Rated
    published_rate = 1e-6  # the default of TRL 1.16's KTOTrainer
    couples = Couples.STEP

    beta: float = field(
        default=0.1, metadata={"help": "strength of the tie to the reference", "search": Search(0.01, 1.0, log=True)}
    )
    threshold: float = field(default=0.5, metadata={"help": "completions rated above it are desirable"})

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {
            "policy": Role(kind=Kind.POLICY, trained=True),
            "reference": Role(kind=Kind.POLICY, start="reference"),
        }

    def check_data(self, batches: Iterable[Rated], context: Context) -> str:
        rated = [(float(batch.rating.min()), float(batch.rating.max())) for batch in batches]
        low, high = min(least for least, _ in rated), max(most for _, most in rated)
        if low <= self.threshold < high:
            return ""
        side, between = ("desirable", "above") if low > self.threshold else ("undesirable", "not above")
        return (
            f"all completions are {side}: their ratings, {low:g} to {high:g}, are {between} algorithm.threshold="
            f"{self.threshold:g}, and what tells good from bad is not learnt: choose one between them, or data with both kinds"
        )

    @abstractmethod
    def points(self, models: Models, records: Rated, at_once: int) -> Tensor:
        """z of each of the step's records of this rank, (N,) or (); networks read `at_once` of them at a time."""

    @abstractmethod
    def link(self, ratio: Tensor, desirable: Tensor, point: Tensor) -> Tensor:
        """The loss (B,) of h, label and z, each (B,)."""

    def prepare(self, models: Models, batches: list[Rated]) -> list[Judged]:
        records, at_once = Rated.cat(batches), len(batches[0])
        points = self.points(models, records, at_once).to(records.rating.device).expand(len(records))
        parts = points.split([len(batch) for batch in batches])
        return [Judged(**vars(batch), reference_point=part) for batch, part in zip(batches, parts, strict=True)]

    def loss(self, models: Models, batch: Judged) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = log_ratio(models, batch)  # (B,)
        desirable, point = batch.rating > self.threshold, batch.reference_point.to(ratio.dtype)
        gained = ratio.detach() > point
        metrics = {"rewards/accuracy": (gained == desirable).float(), "reference_point": self.beta * point}
        return self.link(ratio, desirable, point), metrics


@dataclass(kw_only=True)
class Prospect(Unpaired):
    """L = w_D (1 - sigma(beta (h - z))) where desirable, w_U (1 - sigma(beta (z - h))) elsewhere."""

    desirable_weight: float = field(default=1.0, metadata={"help": "w_D", "search": Search(0.5, 2.0, log=True)})
    undesirable_weight: float = field(default=1.0, metadata={"help": "w_U", "search": Search(0.5, 2.0, log=True)})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("desirable_weight", "undesirable_weight"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")

    def link(self, ratio: Tensor, desirable: Tensor, point: Tensor) -> Tensor:
        return kto_loss(ratio, desirable, point, self.beta, self.desirable_weight, self.undesirable_weight)


def log_ratio(models: Models, c: Completions) -> Tensor:
    """h, (B,)."""
    return c.sum(models.policy.logprobs(c) - models.reference.logprobs(c))
