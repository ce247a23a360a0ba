"""The networks of a run, by role: what algorithms see (`RoleNetworks`) and what the trainer wraps (`Trained`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.common import ranks
from alignzoo.common.account import Account
from alignzoo.contracts import Reward, Scores, TextTools
from alignzoo.models.forward.flops import watch
from alignzoo.models.modules import checkpoint_activations
from alignzoo.models.networks import Network, Shared
from alignzoo.settings import Sampling

if TYPE_CHECKING:
    from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel

T = TypeVar("T")
Score = Callable[[Completions], Scores]
Compare = Callable[[Completions, Completions], Scores]


class RoleNetworks:
    """`contracts.Models`: networks by role name, the reward, and the collectives, which are identities in one process."""

    def __init__(
        self, networks: Mapping[str, Any], shared: Shared, sampling: Sampling, score: Score | None = None,
        compare: Compare | None = None,
    ) -> None:  # fmt: skip
        self.networks, self.shared, self.sampling, self.score = dict(networks), shared, sampling, score
        self.compare = compare  # none: by the scores

    def __getattr__(self, role: str) -> Any:
        networks = self.__dict__.get("networks", {})
        if role not in networks:
            raise AttributeError(f"no role {role!r}: declare it in `roles`. Declared: {', '.join(networks) or 'none'}")
        return networks[role]

    def only(self, roles: Collection[str], learning: Collection[str]) -> RoleNetworks:
        """These roles alone, those outside `learning` without gradient."""
        seen = {n: v.view(n not in learning) if isinstance(v, Network) else v for n, v in self.networks.items() if n in roles}
        reward = (self.score, self.compare) if "reward" in roles else (None, None)
        return RoleNetworks(seen, self.shared, self.sampling, *reward)

    @property
    def tokenizer(self) -> TextTools:
        assert self.shared.tokenizer is not None
        return self.shared.tokenizer

    @property
    def has_reward(self) -> bool:
        return self.score is not None

    def reward(self, c: Completions) -> Scores:
        if self.score is None:
            raise AttributeError("no reward: declare the role 'reward' in `roles`")
        with torch.no_grad():
            return self.score(c)

    def preference(self, first: Completions, second: Completions) -> Scores:
        if self.compare is not None:
            with torch.no_grad():
                return self.compare(first, second)
        scores = self.reward(first), self.reward(second)
        difference = scores[0].summed(first) - scores[1].summed(second)
        return Scores(total=difference.sigmoid(), valid=scores[0].usable & scores[1].usable)

    def uniform(self, purpose: str, row: Tensor, tokens: int | None = None) -> Tensor:
        noise = self.shared.noise
        return noise.named(purpose, row) if tokens is None else noise.positions(row, 1, tokens, purpose, 0).to(row.device)

    def more_prompts(self, n: int) -> Any:
        if self.shared.more is None or self.shared.noise.purpose != "rollout":
            raise RuntimeError("more_prompts is for `experience`: nothing else reads on in the data")
        return self.shared.more(n)

    sum, any, gather = staticmethod(ranks.summed), staticmethod(ranks.anywhere), staticmethod(ranks.gather)


class Trained(nn.Module):
    """All trained roles as one module whose forward is "run this method", so that data-parallel wrappers see one forward a
    micro-batch, whatever networks the method calls and how often. What the trainer looks for on a model is the main role's."""

    def __init__(self, roles: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.roles = nn.ModuleDict(roles)

    def forward(self, method: Callable[[], T]) -> T:
        return method()

    @property
    def policy(self) -> PreTrainedModel:
        return cast("PreTrainedModel", self.roles["policy"])

    @property
    def main(self) -> PreTrainedModel:
        """What the run is for: the policy, or without one, the scorer."""
        return cast("PreTrainedModel", self.roles[main_role(list(self.roles))])

    @property
    def config(self) -> PretrainedConfig:
        return self.main.config

    @property
    def generation_config(self) -> GenerationConfig | None:
        return self.main.generation_config

    @property
    def _no_split_modules(self) -> set[str] | list[str] | None:
        return self.main._no_split_modules

    def generate(self, *arguments: object, **keywords: object) -> object:
        return cast("GenerationMixin", self.main).generate(*arguments, **keywords)

    def activation_checkpointing_enable(self, *arguments: object, **keywords: object) -> None:
        for module in self.roles.values():
            trunk = getattr(module, "trunk", module)
            if trunk is not None:
                checkpoint_activations(trunk)

    gradient_checkpointing_enable = activation_checkpointing_enable


def main_role(names: Collection[str]) -> str:
    """Of the trained roles, the one whose network is the run's result."""
    return "policy" if "policy" in names else next(iter(names))


def bound(method: Callable[..., T], *arguments: object) -> Callable[[], T]:
    """`method` with everything bound: passed as arguments of the forward, mixed precision would cast records to bfloat16."""
    return partial(method, *arguments)


def together(models: RoleNetworks) -> Callable[[Tensor], bool]:
    """For sharded weights, which every forward gathers from all ranks: generation ends when all rows of all ranks have."""
    return lambda done: not bool(models.any(~done.all()))


def watch_networks(account: Account, models: RoleNetworks, reward: Reward | None, gold: Reward | None) -> None:
    """Count what all networks of a run do from now on. A trunk that two roles share is the first one's."""
    models.shared.account = account
    for name, network in models.networks.items():
        if isinstance(getattr(network, "module", None), nn.Module):
            watch(network.module, account, name)
    for name, judge in (("reward", reward), ("gold", gold)):
        for module in modules_in(judge):
            watch(module, account, name)


def modules_in(part: object) -> list[nn.Module]:
    """The networks that a reward, or the rewards it is made of, keeps among its attributes."""
    if isinstance(part, nn.Module):
        return [part]
    if isinstance(part, Reward):
        return modules_in(list(vars(part).values()))
    if isinstance(part, dict):
        return modules_in(list(part.values()))
    return [module for value in part for module in modules_in(value)] if isinstance(part, list | tuple) else []
