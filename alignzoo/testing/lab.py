"""A run that is built but not started: its records and its objective, one call each, in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from alignzoo.batch import Batch
from alignzoo.engine.objective import named_terms, weight_of
from alignzoo.models.networks import PolicyNetwork
from alignzoo.models.roles import main_role
from alignzoo.setup import RunConfig
from alignzoo.testing import toys

ROWS, PROMPTS = 8, 4


@dataclass
class Minimised:
    """What the engine minimises on some micro-batches: its value, gradient by role, and what the last of them returned."""

    value: float
    gradients: dict[str, Tensor]  # (n,) by role
    terms: dict[str, Tensor]  # (B,) or (B, T), 0 where the weight is 0
    metrics: dict[str, float]

    @property
    def gradient(self) -> Tensor:
        return torch.cat(list(self.gradients.values()))


class Lab:
    """The networks, records and objective of an algorithm.

    The policy is moved away from the reference, before and after a rollout, so that nothing holds only because two networks
    agree; `still` leaves all as they start.
    """

    def __init__(self, setup: RunConfig, folder: Path, online: bool, still: bool = False) -> None:
        self.setup, self.online, self.still = setup, online, still
        self.trainer = toys.trainer(setup, folder)
        self.main = main_role(list(self.trainer.trained.roles))
        if not still:
            self.stir(1)

    @torch.no_grad()
    def stir(self, seed: int) -> None:
        """Move every trained weight a little."""
        noise = torch.Generator().manual_seed(seed)
        for p in self.trainer.trained.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=noise, dtype=torch.float64))

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply the logits of every policy, by the norm before its head."""
        for module in {v.module for v in self.trainer.roles.networks.values() if isinstance(v, PolicyNetwork)}:
            module.get_parameter("model.norm.weight").mul_(factor)

    def inputs(self) -> Batch:
        """What the loader reads for one rollout, or for one optimizer step."""
        return self.trainer.loader.order.records(0, PROMPTS if self.online else ROWS)

    def rollout(self, inputs: Batch | None = None) -> Batch:
        return self.trainer.sample(0, self.inputs() if inputs is None else inputs)

    def fresh_records(self) -> Batch:
        """What `loss` is given: the data, or the experience of one rollout."""
        return self.rollout() if self.online else self.inputs()

    @cached_property
    def records(self) -> Batch:
        records = self.fresh_records()
        if self.online and not self.still:
            self.stir(2)
        return records

    @cached_property
    def plain(self) -> Minimised:
        return self.objective(self.records)

    def objective(self, batch: Batch) -> Minimised:
        """The engine's objective over one optimizer step of these records."""
        trainer = self.trainer
        (batch,), sums = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
        trainer.trained.zero_grad()
        for module in self.frozen().values():
            module.zero_grad()
        trainer.step_meter.clear()
        total = trainer.compute_loss(trainer.trained, batch, num_items_in_batch=sums)
        if total.requires_grad:
            total.backward()
        last, terms = trainer.step_terms.pop()
        weights = trainer.weights(last)
        counted = {n: torch.where(weight_of(n, x, weights, sums)[0] > 0, x, 0).double() for n, x in terms.items()}
        gradients = {name: flat_gradient(module.parameters()) for name, module in trainer.trained.roles.items()}
        return Minimised(total.item(), gradients, counted, trainer.step_meter.means())

    def terms(self, batch: Batch, gradient: bool = False) -> dict[str, Tensor]:
        """What `loss` returns, before the engine looks at it."""
        algorithm, models = self.trainer.algorithm, self.trainer.views[""]
        with torch.no_grad():
            (batch,) = algorithm.prepare(models, [batch])
        with torch.set_grad_enabled(gradient):
            return named_terms(algorithm.loss(models, batch))[0]

    def frozen(self) -> dict[str, nn.Module]:
        """The modules of roles that are not trained, made to accept gradients, so that one that reaches them shows."""
        networks = {n: v for n, v in self.trainer.roles.networks.items() if n not in self.trainer.trained.roles}
        return {n: network.module.requires_grad_(True) for n, network in networks.items() if hasattr(network, "module")}


def flat_gradient(parameters: Iterable[Tensor]) -> Tensor:
    """(n,): 0 where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten() for p in parameters])


def distance(a: Tensor, b: Tensor) -> float:
    """How far b is from a, relative to a."""
    return ((a - b).norm() / a.norm().clamp(min=1e-12)).item()
