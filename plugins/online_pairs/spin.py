"""Self-play fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alignzoo.batch import Completions, Pairs
from alignzoo.contracts import Every, Kind, Models, Role, require

from .online_pairs import OnlinePairs


@dataclass(kw_only=True)
class SPIN(OnlinePairs):
    """L = - log sigma(beta Delta), the demonstration chosen, a sample of the opponent rejected, h relative to the opponent.

    Chen et al. 2024, Self-play fine-tuning converts weak language models to strong language models. The opponent is the policy
    of the iteration before. No reward.
    """

    data = Completions

    iteration: int | None = field(
        default=None,
        metadata={"help": "optimizer steps after which the opponent becomes the policy; none: it stays as the run starts"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iteration is None or self.iteration >= 1, "algorithm.iteration", self.iteration, ">= 1, or none")

    def against(self) -> str:
        return "opponent"

    def roles(self) -> Mapping[str, Role]:
        opponent = Role(
            kind=Kind.POLICY, needs=frozenset({"logprobs", "generate"}),
            follows=None if self.iteration is None else Every(self.iteration),
        )  # fmt: skip
        return {"policy": Role(kind=Kind.POLICY, trained=True), "opponent": opponent}

    def experience(self, models: Models, batch: Completions) -> Pairs:
        batch = batch.draws()
        c = models.opponent.generate(batch.prompts, models.sampling)
        return Pairs(chosen=batch.take(c.prompt_of), rejected=c)
