"""What an algorithm that wraps the optimizer's step is given: the step's records, gradients and weights, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignzoo.batch import Batch
from alignzoo.contracts import Algorithm, Measured
from alignzoo.engine.objective import weight_of, weighted_sum, weights_of
from alignzoo.models.roles import RoleNetworks


@dataclass(kw_only=True)
class StepInProgress:
    """`contracts.OptimizerStep`, over this rank's micro-batches; `sums` are the weights of all ranks."""

    learner: Algorithm
    models: RoleNetworks
    trained: Mapping[str, nn.Module]
    batches: Sequence[Batch]
    sums: Mapping[str, Tensor]
    optimizer: Optimizer
    autocast: Callable[[], AbstractContextManager[None]]
    starts: dict[str, list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = {role: [p.detach().clone() for p in self.parameters(role)] for role in self.trained}

    def parameters(self, role: str) -> list[nn.Parameter]:
        return [p for p in self.trained[role].parameters() if p.requires_grad]

    def take(self) -> None:
        self.optimizer.step()
        self.models.shared.updates += 1

    def moved(self, role: str) -> list[Tensor]:
        return [p.detach() - start for p, start in zip(self.parameters(role), self.starts[role], strict=True)]

    @torch.no_grad()
    def place(self, role: str, direction: Sequence[Tensor], scale: float) -> None:
        for p, start, way in zip(self.parameters(role), self.starts[role], direction, strict=True):
            p.copy_(start + scale * way if scale else start)

    def undo(self) -> None:
        for role, starts in self.starts.items():
            self.place(role, starts, 0.0)

    def means(self, fn: Measured) -> dict[str, float]:
        total: dict[str, Tensor] = {}
        with torch.no_grad():
            for batch in self.batches:
                for name, share in self._shares(fn, batch).items():
                    total[name] = total[name] + share if name in total else share
        return {name: self.models.sum(value).item() for name, value in sorted(total.items())}

    def gradient(self, fn: Measured, role: str) -> list[Tensor]:
        learnt = self.parameters(role)
        total = [torch.zeros_like(p) for p in learnt]
        for batch in self.batches:
            with torch.enable_grad():
                whole = torch.stack([*self._shares(fn, batch).values()]).sum()
                parts = torch.autograd.grad(whole, learnt, allow_unused=True, materialize_grads=True)
            total = [before + part for before, part in zip(total, parts, strict=True)]
        return [self.models.sum(part) for part in total]

    def _shares(self, fn: Measured, batch: Batch) -> dict[str, Tensor]:
        with self.autocast():
            result = fn(self.models, batch)
        weights = weights_of(self.learner, batch)
        terms = result if isinstance(result, dict) else {"loss": result}
        return {name: weighted_sum(term, *weight_of(name, term, weights, self.sums)) for name, term in terms.items()}
