"""What losses on pairs share: a value of each side, a link between the two, roles and metrics. A loss is its `link`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from alignzoo.batch import Completions, Pairs
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, require

Terms = Tensor | dict[str, Tensor]


@dataclass(kw_only=True)
class Sides(Algorithm):
    """Learns from one number of the chosen and one of the rejected completion, by the log-probs of their tokens."""

    data: ClassVar[type[Pairs]] = Pairs
    published_rate = 1e-6  # the default of TRL 1.16's trainers of pairs

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    @abstractmethod
    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss (B,) of the numbers of both sides (B,)."""

    def per_token(self, models: Models, both: Completions, logprobs: Tensor) -> Tensor:
        """What is summed, (2B, T), of the policy's log-probs."""
        return logprobs

    def pooled(self, both: Completions, values: Tensor) -> Tensor:
        """A side's number, (2B,), of its tokens' values (2B, T)."""
        return both.sum(values)

    def terms(self, loss: Tensor, models: Models, both: Completions, logprobs: Tensor) -> Terms:
        """What is minimised: the link's loss (B,), unless an algorithm weighs it or adds to it."""
        return loss

    def measured(self, chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
        """Metrics of the numbers of both sides."""
        return _metrics(chosen, rejected, "sides", 1.0)

    def loss(self, models: Models, batch: Pairs) -> tuple[Terms, dict[str, Tensor]]:
        both = batch.both
        logprobs = models.policy.logprobs(both)
        chosen, rejected = self.pooled(both, self.per_token(models, both, logprobs)).chunk(2)
        return self.terms(self.link(chosen, rejected), models, both, logprobs), self.measured(chosen, rejected)


@dataclass(kw_only=True)
class Paired(Sides):
    """A side's number is h = log pi(y|x) - log ref(y|x), in units of 1 / beta."""

    beta: float = field(
        default=0.1,
        metadata={"help": "strength of the tie to the reference: larger stays nearer", "search": Search(0.01, 1.0, log=True)},
    )

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {**super().roles(), "reference": Role(kind=Kind.POLICY, start="reference")}

    def measured(self, chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
        return _metrics(chosen, rejected, "rewards", self.beta)

    def per_token(self, models: Models, both: Completions, logprobs: Tensor) -> Tensor:
        return logprobs - models.reference.logprobs(both)


def _metrics(chosen: Tensor, rejected: Tensor, prefix: str, scale: float) -> dict[str, Tensor]:
    sides = {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected}
    scaled = {f"{prefix}/{name}": scale * value for name, value in sides.items()}
    return {"rewards/accuracy": (chosen > rejected).float(), **scaled}
