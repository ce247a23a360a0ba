"""The minimum of an algorithm's objective over all policies, by its own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, root
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.contracts import Algorithm
from alignzoo.engine.objective import named_terms, weight_of, weighted_sum, weights_of
from alignzoo.testing.fakes import FakeModels
from benchmarks.optima.task import Categorical, Task

CLOSE, FAR = 1e-8, 50.0  # the largest part of the gradient at a minimum; log-odds that count as infinite
Array = NDArray[np.float64]


class Drawn(Exception):
    """A loss that is random, hence not a function of the policy."""


class Models(FakeModels):
    def uniform(self, purpose: str, row: Tensor, tokens: int | None = None) -> Tensor:
        raise Drawn


@dataclass(frozen=True)
class Optimum:
    """`logprobs` (completions,) where the search ended, None where there is nothing finite; `gradient`: its largest part there,
    more than CLOSE at a kink."""

    logprobs: Tensor | None
    gradient: float
    favoured: int  # the completion that got most


def objective(algorithm: Algorithm, task: Task, batch: Batch, mass: Tensor) -> Callable[[Tensor], Tensor]:
    """Of the log-odds of completions: the engine's mean over records of probabilities `mass` (B,)."""
    reference = Categorical(task, task.reference)
    weights = {}
    for name, weight in weights_of(algorithm, batch).items():
        weights[name] = weight * (mass if weight.dim() == 1 else mass[:, None])
    totals = {name: weight.sum() for name, weight in weights.items()}

    def value(scores: Tensor) -> Tensor:
        models: Any = Models(policy=Categorical(task, scores), reference=reference)
        terms, _ = named_terms(algorithm.loss(models, batch))
        parts = [weighted_sum(term, *weight_of(name, term, weights, totals)) for name, term in terms.items()]
        return torch.stack(parts).sum()

    return value


def minimum(value: Callable[[Tensor], Tensor], task: Task) -> Optimum:
    """From the reference by Newton's method in a trust region; where that runs off, the lowest of this and of what comes from
    pi* of beta 1 and of 1/3. Where the gradient is not that of the value, since parts of it are held fixed, the zero of the
    gradient is searched for from where that stops."""

    def loss(x: Array) -> tuple[float, Array]:
        scores = torch.from_numpy(x).requires_grad_()
        result = value(scores)
        return result.item(), torch.autograd.grad(result, scores)[0].numpy()

    def hessian(x: Array) -> Array:
        return torch.autograd.functional.hessian(value, torch.from_numpy(x), vectorize=True).numpy()

    def far(x: Array) -> None:
        if np.ptp(x) > FAR:
            raise StopIteration

    def size(x: Array) -> float:
        return float(np.abs(loss(x)[1]).max())

    def end(start: Tensor) -> Array:
        return minimize(
            loss, start.numpy(), jac=True, hess=hessian, method="trust-exact", callback=far, options={"gtol": CLOSE}
        ).x

    x = end(task.reference)
    if np.ptp(x) > FAR:
        x = min([x, end(task.tilted(1.0)), end(task.tilted(3.0))], key=lambda at: loss(at)[0])
    if size(x) >= CLOSE and np.ptp(x) <= FAR:
        solved = root(lambda at: loss(at)[1], x, method="lm", tol=1e-14).x
        x = solved if size(solved) < CLOSE else x
    return Optimum(torch.from_numpy(x).log_softmax(0) if np.ptp(x) <= FAR else None, size(x), int(x.argmax()))
