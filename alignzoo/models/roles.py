"""The networks of a run, by role: what algorithms see (`Models`) and what the trainer wraps (`Trained`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.contracts import Scores
from alignzoo.models.build import checkpoint_activations
from alignzoo.models.networks import Network, Shared
from alignzoo.models.sampling.generation import Finished
from alignzoo.settings import Sampling

T = TypeVar("T")
Score = Callable[[Completions], Scores]


class Models:
    """`contracts.Models`: networks by role name, the reward, and the collectives, which are identities in one process."""

    def __init__(self, networks: Mapping[str, Any], shared: Shared, sampling: Sampling, score: Score | None = None) -> None:
        self.networks, self.shared, self.sampling, self.score = dict(networks), shared, sampling, score

    def __getattr__(self, role: str) -> Any:
        networks = self.__dict__.get("networks", {})
        if role not in networks:
            raise AttributeError(f"no role {role!r}: declare it in `roles`. Declared: {', '.join(networks) or 'none'}")
        return networks[role]

    def only(self, roles: Collection[str], learning: Collection[str]) -> Models:
        """These roles alone, those outside `learning` without gradient."""
        seen = {n: v.view(n not in learning) if isinstance(v, Network) else v for n, v in self.networks.items() if n in roles}
        return Models(seen, self.shared, self.sampling, self.score if "reward" in roles else None)

    @property
    def has_reward(self) -> bool:
        return self.score is not None

    def reward(self, c: Completions) -> Scores:
        if self.score is None:
            raise AttributeError("no reward: declare the role 'reward' in `roles`")
        with torch.no_grad():
            return self.score(c)

    def uniform(self, purpose: str, row: Tensor) -> Tensor:
        return self.shared.noise.named(purpose, row)

    def sum(self, x: Tensor) -> Tensor:
        return _reduced(x, dist.ReduceOp.SUM) if _ranks() > 1 else x

    def any(self, x: Tensor) -> Tensor:
        return _reduced(x.to(torch.uint8), dist.ReduceOp.MAX).bool() if _ranks() > 1 else x

    def gather(self, x: Tensor) -> Tensor:
        return torch.cat(gather_objects(x.cpu())).to(x.device) if _ranks() > 1 else x


class Trained(nn.Module):
    """All trained roles as one module whose forward is "run this method", so that data-parallel wrappers see one forward a
    micro-batch, whatever networks the method calls and how often. What the trainer looks for on a model is the main role's."""

    def __init__(self, roles: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.roles = nn.ModuleDict(roles)

    def forward(self, method: Callable[[], T]) -> T:
        return method()

    @property
    def policy(self) -> Any:
        return self.roles["policy"]

    @property
    def main(self) -> Any:
        """What the run is for: the policy, or without one, the scorer."""
        return self.roles[main_role(list(self.roles))]

    @property
    def config(self) -> Any:
        return self.main.config

    @property
    def generation_config(self) -> Any:
        return self.main.generation_config

    @property
    def _no_split_modules(self) -> Any:
        return self.main._no_split_modules

    def generate(self, *arguments: Any, **keywords: Any) -> Any:
        return self.main.generate(*arguments, **keywords)

    def activation_checkpointing_enable(self, *arguments: Any, **keywords: Any) -> None:
        for module in self.roles.values():
            trunk = getattr(module, "trunk", module)
            if trunk is not None:
                checkpoint_activations(trunk)

    gradient_checkpointing_enable = activation_checkpointing_enable


def main_role(names: Collection[str]) -> str:
    """Of the trained roles, the one whose network is the run's result."""
    return "policy" if "policy" in names else next(iter(names))


def bound(method: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """`method` with everything bound: passed as arguments of the forward, mixed precision would cast records to bfloat16."""
    return partial(method, *arguments)


def together(models: Models) -> Finished:
    """For sharded weights, which every forward gathers from all ranks: generation ends when all rows of all ranks have."""
    return lambda done: not models.any(~done.all()).item()


def gather_objects(x: T) -> list[T]:
    """x of every rank, in rank order."""
    if _ranks() == 1:
        return [x]
    gathered: list[Any] = [None] * _ranks()
    dist.all_gather_object(gathered, x)
    return gathered


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _reduced(x: Tensor, operation: Any) -> Tensor:
    reduced = x.detach().clone()
    dist.all_reduce(reduced, operation)
    return reduced
