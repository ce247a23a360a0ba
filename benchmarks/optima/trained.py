"""Where training ends: how far a run on a task such as `task`'s is from the minimum of its own loss, and from pi*."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.config import compose, instantiate
from alignzoo.data.exact.language import policy_table
from alignzoo.data.exact.optimum import completion_logprobs
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt
from benchmarks.optima.solve import minimum, objective
from benchmarks.optima.task import Task, divergence

SETTINGS = ["experiment=exact", "data.prompts=1", "data.vocabulary=4", "data.length=3", "budget.unit=samples"]
SAMPLES = 100_000


@dataclass(frozen=True)
class RunTask(Task):
    """The task of a run, whose reference is a network that was trained into it."""

    tables: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))  # (completions,) log-probs and rewards

    @cached_property
    def reference(self) -> Tensor:
        return self.tables[0]

    @cached_property
    def rewards(self) -> Tensor:
        return self.tables[1]

    @cached_property
    def pairs(self) -> tuple[Pairs, Tensor]:
        """As above, but the second completion is drawn among those that the first is not."""
        pairs, mass = super().pairs
        a, b = torch.cartesian_prod(*[torch.arange(self.tree.completions)] * 2).T
        others = 1 / -torch.special.expm1(self.reference)
        return pairs, torch.where(a == b, 0, mass / 2 * (others[a] + others[b]))


@dataclass(frozen=True)
class Distances:
    """KLs in nats, from the policy that training started and ended with. None where the loss has no finite minimum."""

    end_to_own: float | None
    start_to_own: float | None
    end_to_optimum: float
    start_to_optimum: float


def distances(name: str, samples: int = SAMPLES) -> Distances:
    """Of a run of algorithm `name` with the settings of `experiment=exact`, on `samples` completions."""
    setup = instantiate(compose([*SETTINGS, f"budget.amount={samples}", f"algorithm={name}"]))
    source: Any = setup.data
    tables: list[Tensor] = []
    measure = source.evaluate

    def evaluate(models: Any) -> dict[str, float]:
        tables.append(policy_table(source.language, models.policy, source.device))
        return measure(models)

    source.evaluate = evaluate
    torch.set_default_dtype(torch.float32)  # as everybody trains; what is solved is in float64
    with tempfile.TemporaryDirectory() as folder:
        Builder(setup, Path(folder), Path(folder) / "cache").trainer(Interrupt(), lambda step, row: None).train()
    torch.set_default_dtype(torch.float64)
    end = completion_logprobs(source.tree, tables[-1])[0]
    task = RunTask(tables=(completion_logprobs(source.tree, source.reference)[0], source.rewards[0]))
    algorithm: Any = setup.algorithm
    records = task.records(algorithm.data)
    assert records is not None, name
    own = minimum(objective(algorithm, task, *records), task).logprobs
    best = task.tilted(1.0)
    return Distances(
        end_to_own=None if own is None else divergence(end, own),
        start_to_own=None if own is None else divergence(task.reference, own),
        end_to_optimum=divergence(end, best), start_to_optimum=divergence(task.reference, best),
    )  # fmt: skip
