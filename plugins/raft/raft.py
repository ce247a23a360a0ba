"""Reward-ranked fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import equal_groups


@dataclass(frozen=True, eq=False, kw_only=True)
class Best(Completions):
    reward: Tensor  # (B,)
    equal_groups: Tensor | None = None  # (B,): 1 where the rewards of its prompt are all equal, so that none is best


@dataclass(kw_only=True)
class RAFT(OnlineAlgorithm):
    """L = - 1/N sum over the tokens of the `kept` best of a prompt's samples of log pi(y_t | x, y_<t).

    Dong et al. 2023, RAFT: reward ranked finetuning for generative foundation model alignment.
    """

    data = Prompts
    published_rate = 2e-5  # that of `sft`, which it is, on samples
    needs_logprobs_of_samples = False

    kept: int = field(default=1, metadata={"help": "how many of a prompt's samples are learned from"})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout", "search": Search(1, 4)})

    def __post_init__(self) -> None:
        for name in ("kept", "epochs"):
            require(getattr(self, name) >= 1, f"algorithm.{name}", getattr(self, name), ">= 1")

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}))
        return {"policy": policy, "reward": Role(kind=Kind.REWARD)}

    def least_samples(self) -> int:
        return self.kept + 1

    def passes(self) -> int:
        return self.epochs

    def experience(self, models: Models, batch: Prompts) -> Best:
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        reward = scores.summed(c)
        equal = equal_groups(reward, c.prompt_of, scores.usable)
        return Best(**vars(c), reward=reward, equal_groups=equal).take(c.best(reward, self.kept, scores.usable).sort().values)

    def loss(self, models: Models, batch: Best) -> tuple[Tensor, dict[str, Tensor]]:
        return -models.policy.logprobs(batch), {}
