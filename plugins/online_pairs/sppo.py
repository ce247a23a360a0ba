"""Self-play preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import equal_groups, sppo_loss, win_rates


@dataclass(frozen=True, eq=False, kw_only=True)
class Played(Completions):
    """What a rollout leaves behind, per completion (B,)."""

    old_logprobs: Tensor
    win_rate: Tensor
    reward: Tensor
    equal_groups: Tensor | None = None  # 1 where the rewards of its prompt are all equal, so that none wins


@dataclass(kw_only=True)
class SPPO(OnlineAlgorithm):
    """L = (log pi(y|x) - log pi_t(y|x) - eta (P(y beats pi_t) - 1/2))^2, y and what it is compared with samples of pi_t.

    Wu et al. 2024, Self-play preference optimization for language model alignment, with P(a beats b) = sigma(r_a - r_b). An
    iteration t is a rollout.
    """

    data = Prompts
    published_rate = 5e-7  # its authors' code

    eta: float = field(default=1000.0, metadata={"help": "how far an iteration goes", "search": Search(1.0, 1000.0, log=True)})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout", "search": Search(1, 8)})

    def __post_init__(self) -> None:
        require(self.eta > 0, "algorithm.eta", self.eta, "> 0")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}))
        return {"policy": policy, "reward": Role(kind=Kind.REWARD)}

    def least_samples(self) -> int:
        return 2

    def passes(self) -> int:
        return self.epochs

    def experience(self, models: Models, batch: Prompts) -> Played:
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        reward = scores.summed(c)
        wins, old = win_rates(reward, c.prompt_of, scores.usable), c.sum(models.policy.logprobs(c))
        equal = equal_groups(reward, c.prompt_of, scores.usable)
        return Played(**vars(c), old_logprobs=old, win_rate=wins, reward=reward, equal_groups=equal).take(scores.usable)

    def loss(self, models: Models, batch: Played) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = batch.sum(models.policy.logprobs(batch)) - batch.old_logprobs
        return sppo_loss(ratio, batch.win_rate, self.eta), {"ratio": ratio.detach().exp()}
