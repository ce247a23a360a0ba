"""Trust region policy optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Prompts
from alignzoo.contracts import Models, OptimizerStep, Search, UserError, require
from alignzoo.functional import conjugate_gradient, dot, k2, k3

from .critic import Trajectories, ValueModel, WithGAE

PROBE = 1e-4  # the KL of the small steps by which curvature is measured
LEAST = 1e-12  # of what is divided by


@dataclass(kw_only=True)
class TRPO(WithGAE):
    """Maximise mean r_t A_t subject to mean KL(pi_old || pi) <= max_kl: along F^-1 g as far as that is, halved until it holds.

    Schulman et al. 2015, Trust region policy optimization, appendix C. The optimizer's own step is the value model's alone.
    """

    api_version = "1.1"
    data = Prompts
    published_rate = 3e-6  # of the value model, as PPO's: the paper's is no gradient step

    max_kl: float = field(
        default=0.01, metadata={"help": "KL of a token from the sampler, at most", "search": Search(1e-3, 0.1, log=True)}
    )
    damping: float = field(default=0.1, metadata={"help": "added to F, as a share of its curvature along the gradient"})
    iterations: int = field(default=10, metadata={"help": "of conjugate gradients, each a forward and backward pass"})
    halvings: int = field(default=10, metadata={"help": "of a step that is too long, before none is taken"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_kl > 0, "algorithm.max_kl", self.max_kl, "> 0")
        require(self.damping >= 0, "algorithm.damping", self.damping, ">= 0")
        require(self.iterations >= 1, "algorithm.iterations", self.iterations, ">= 1")
        require(self.halvings >= 0, "algorithm.halvings", self.halvings, ">= 0")
        if self.value_model is ValueModel.shared:
            raise UserError("algorithm.value_model=shared: two kinds of step can't share a trunk. Use policy or reward")

    def surrogate(self, models: Models, batch: Trajectories) -> Tensor:
        """- r_t A_t, (B, T)."""
        return -(models.policy.logprobs(batch) - batch.old_logprobs).exp() * batch.advantages

    def loss(self, models: Models, batch: Trajectories) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"policy": self.surrogate(models, batch), **self.tied(models, batch, batch.old_logprobs, None)}, {}

    def around_step(self, models: Models, step: OptimizerStep) -> Mapping[str, float]:
        gradient = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in step.parameters("policy")]
        before = step.means(self.surrogate)["loss"]
        step.take()
        if float(dot(gradient, gradient)) > 0:  # else all advantages are 0
            natural, scale = self._natural(step, gradient)
            for _ in range(self.halvings + 1):
                step.place("policy", natural, scale)
                kl = step.means(divergence)["loss"]
                if kl <= self.max_kl and step.means(self.surrogate)["loss"] < before:
                    return {"step_kl": kl, "step_scale": scale}
                scale /= 2
        step.place("policy", gradient, 0.0)
        return {"step_kl": 0.0, "step_scale": 0.0}

    def _natural(self, step: OptimizerStep, gradient: list[Tensor]) -> tuple[list[Tensor], float]:
        """F^-1 (- gradient), and how many times that a KL of `max_kl` is, both by F's products alone."""
        curvature, damping = 1.0, 0.0  # per squared length

        def product(direction: list[Tensor]) -> list[Tensor]:
            """The gradient of k2 a small step along the direction, over the step's length: exact in expectation on policy."""
            nonlocal curvature
            squared = float(dot(direction, direction))
            scale = (2 * PROBE / curvature / squared) ** 0.5
            step.place("policy", direction, scale)
            curved = [g / scale for g in step.gradient(distance, "policy")]
            curvature = max(float(dot(direction, curved)) / squared, LEAST)
            return [c + damping * v for c, v in zip(curved, direction, strict=True)]

        product(gradient)
        damping = self.damping * curvature
        natural = conjugate_gradient(product, [-g for g in gradient], self.iterations)
        return natural, (2 * self.max_kl / max(float(dot(natural, product(natural))), LEAST)) ** 0.5


def distance(models: Models, batch: Trajectories) -> Tensor:
    return k2(models.policy.logprobs(batch), batch.old_logprobs)


def divergence(models: Models, batch: Trajectories) -> Tensor:
    """KL(pi_old || pi) of each token, estimated on what pi_old wrote."""
    return k3(batch.old_logprobs, models.policy.logprobs(batch))
