"""REINFORCE with the baselines of its descendants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import discounted_returns, equal_groups, reinforce
from alignzoo.kl import Estimator, FlatKL

from .baselines import Baseline, baseline


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighed(Completions):
    advantages: Tensor  # (B, T)
    reward: Tensor  # (B,)
    kl: Tensor | None  # (B,), None without a reference
    equal_groups: Tensor | None = None  # (B,), where the baseline is of the prompt's samples: 1 where its rewards are all equal


@dataclass(kw_only=True)
class Reinforce(OnlineAlgorithm):
    """L = - 1/B sum_i sum_t (R_it - b_i) log pi(y_it | x_i, y_i<t), R the reward minus beta times the KL. Williams 1992."""

    data = Prompts
    published_rate = 1e-6  # Ahmadian et al. 2024; the default of TRL 1.16's RLOO

    beta: float = field(
        default=0.05,
        metadata={"help": "KL coefficient in the reward; 0 needs no reference", "search": Search(0.01, 1.0, log=True)},
    )
    kl_estimator: Estimator = field(default=Estimator.k1, metadata={"help": "of the KL of one token"})
    baseline: Baseline = field(default=Baseline.leave_one_out, metadata={"help": "what is subtracted from the return"})
    reward_to_go: bool = field(default=False, metadata={"help": "weigh a token by what follows it, not by the whole return"})
    decay: float = field(
        default=0.9, metadata={"help": "weight of the past in the moving average", "search": Search(0.5, 0.99)}
    )

    def __post_init__(self) -> None:
        require(self.beta >= 0, "algorithm.beta", self.beta, ">= 0")
        used = self.beta > 0 or self.kl_estimator is Estimator.k1
        require(used, "algorithm.kl_estimator", self.kl_estimator.value, "left at k1 where algorithm.beta=0")
        self.kl = FlatKL(beta=self.beta, estimator=self.kl_estimator)
        require(0 <= self.decay < 1, "algorithm.decay", self.decay, "in [0, 1)")
        used = self.baseline is Baseline.moving_average or self.decay == 0.9
        require(used, "algorithm.decay", self.decay, "left at 0.9 unless algorithm.baseline=moving_average")
        self.average: float | None = None

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}))
        reference = {"reference": Role(kind=Kind.POLICY, start="reference")} if self.beta else {}
        return {"policy": policy, "reward": Role(kind=Kind.REWARD), **reference}

    def least_samples(self) -> int:
        return 2 if self.baseline in (Baseline.leave_one_out, Baseline.length_weighted) else 1

    def experience(self, models: Models, batch: Prompts) -> Weighed:
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        reward = c.at_last(scores.total)  # (B, T)
        penalised, kl = reward, None
        if self.beta:
            logprobs, reference = models.policy.logprobs(c), models.reference.logprobs(c)
            penalised, kl = reward - self.kl.penalty(logprobs, reference), c.sum(logprobs - reference)
        total = c.sum(penalised)
        subtracted, usable = baseline(self.baseline, models, c, total, scores.usable, self.average)
        returns = discounted_returns(penalised, c.scored) if self.reward_to_go else total[:, None].expand_as(reward)
        raw, grouped = c.sum(reward), self.least_samples() > 1
        return Weighed(
            **vars(c), advantages=returns - subtracted[:, None], reward=raw, kl=kl,
            equal_groups=equal_groups(raw, c.prompt_of, usable) if grouped else None,
        ).take(usable)  # fmt: skip

    def loss(self, models: Models, batch: Weighed) -> tuple[Tensor, dict[str, Tensor]]:
        return batch.sum(reinforce(models.policy.logprobs(batch), batch.advantages)), {}

    def after_rollout(self, metrics: Mapping[str, float]) -> None:
        if self.baseline is not Baseline.moving_average or "reward" not in metrics:
            return
        latest = metrics["reward"] - self.beta * metrics.get("kl", 0.0)
        self.average = latest if self.average is None else self.decay * self.average + (1 - self.decay) * latest

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = state["average"]
