"""Budgets: what a run may use, in one unit for every algorithm; the end of training, and the horizon of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from alignzoo.batch import Completions, Pairs, Prompts, Rankings, Triples
from alignzoo.common.account import completions_in
from alignzoo.contracts import Algorithm, OnlineAlgorithm, Tables, TrainerPlugin
from alignzoo.errors import UserError
from alignzoo.settings import Budget, Schedule, Training, Unit
from alignzoo.setup import RunConfig

ENDLESS = 10**9  # optimizer steps, where a budget ends the run


def check(setup: RunConfig) -> None:
    """Raises UserError for a budget that this config can't meet, as far as that is known before data and models are loaded."""
    budget, training, rollout = setup.budget, setup.training, setup.rollout
    if budget.unit is Unit.none:
        return
    if "lr_scheduler_kwargs" in training.arguments:
        raise UserError("trainer.arguments.lr_scheduler_kwargs can't be used with a budget, which is the schedule's horizon")
    if budget.unit is not Unit.samples:
        return
    name = setup.name
    if isinstance(setup.algorithm, OnlineAlgorithm):
        least = rollout.prompts * rollout.samples
        size = f"one rollout of {name} takes {least}: rollout.prompts={rollout.prompts} x rollout.samples={rollout.samples}"
    else:
        least = training.batch * (_each(setup.algorithm) or 1)
        size = f"one optimizer step of {name} takes {least}: trainer.batch={training.batch}"
    if budget.amount < least:
        raise UserError(f"budget.amount={budget.amount:g} samples can't be met: {size}")


def check_data(setup: RunConfig, tables: Tables) -> None:
    """Raises UserError where an algorithm that only reads would never use up a budget in samples: later epochs are nothing
    new."""
    each = _each(setup.algorithm)
    samples_itself = isinstance(setup.algorithm, OnlineAlgorithm) or _sampled(setup) > 0
    if setup.budget.unit is not Unit.samples or samples_itself or each is None:
        return
    most = each * len(tables.train)
    if most < setup.budget.amount:
        raise UserError(
            f"budget.amount={setup.budget.amount:g} samples, and the data have {most}; reading them again is nothing new: "
            "give more data (data=exact: data.rows), or a smaller budget"
        )


def steps(setup: RunConfig, tables: Tables) -> int:
    """Optimizer steps that are enough to use up the budget, where that is known beforehand."""
    if setup.budget.unit is not Unit.samples:
        return ENDLESS
    if sampled := _sampled(setup):
        return math.ceil(setup.budget.amount / sampled)
    return ENDLESS if isinstance(setup.algorithm, OnlineAlgorithm) else math.ceil(len(tables.train) / setup.training.batch)


def samples(setup: RunConfig, tables: Tables, steps: int) -> int:
    """Completions that so many steps of a hosted trainer read, each row once, and sample."""
    batch, rows = setup.training.batch, len(tables.train)
    first = range(min(rows, batch))
    delivered = min(steps * batch, rows) * completions_in(tables.train.batch(first), rows) // len(first)
    return delivered + steps * _sampled(setup)


def _sampled(setup: RunConfig) -> int:
    """Completions that a hosted trainer samples by itself for an optimizer step."""
    return setup.algorithm.sampled(setup.training.batch) if isinstance(setup.algorithm, TrainerPlugin) else 0


def _each(algorithm: Algorithm | TrainerPlugin) -> int | None:
    """Completions in a record; None where that is only seen in the data."""
    kind = algorithm.data
    if issubclass(kind, Pairs):
        return 3 if issubclass(kind, Triples) else 2
    return None if issubclass(kind, Rankings) or not issubclass(kind, Completions | Prompts) else 1


class Allowance:
    """How much of a budget is used. `used` gives the amounts in every unit; `ahead` those samples that are drawn, but not
    learnt from yet."""

    def __init__(self, budget: Budget, used: Callable[[], dict[str, float]], ahead: Callable[[], float]) -> None:
        self.budget, self._used, self._ahead = budget, used, ahead
        self.share = 0.0  # as `progress` has said last, for displays

    @property
    def limited(self) -> bool:
        return self.budget.unit is not Unit.none

    def used(self) -> float:
        """In the budget's unit, over all ranks."""
        return self._used()[self.budget.unit.value]

    def progress(self) -> float:
        """The share used: 1 and more once it is used up, and all that was drawn has been learnt from."""
        ahead = self._ahead() if self.budget.unit is Unit.samples else 0.0
        self.share = (self.used() - ahead) / self.budget.amount
        return self.share

    def check_first_step(self, step: int) -> None:
        """Raises UserError where one step is more than was allowed."""
        if step == 1 and self.budget.unit is not Unit.samples:
            unit = self.budget.unit.value
            raise UserError(
                f"the budget of {self.budget.amount:g} {unit} was used up by step 1, which took {self.used():.4g}: "
                f"give enough for many steps"
            )

    def schedule(self, training: Training, optimizer: Optimizer) -> LambdaLR:
        """The learning rate's schedule, with the budget as its horizon."""
        return LambdaLR(optimizer, lambda step: factor(training.schedule, step, training.warmup_steps, self.progress()))


def factor(schedule: Schedule, step: int, warmup: int, progress: float) -> float:
    """Of the learning rate after `step` steps that used this share of the budget: what `transformers` has for a run of
    step / progress steps."""
    if schedule is Schedule.constant:
        return 1.0
    if step < warmup:
        return step / warmup
    if schedule is Schedule.constant_with_warmup:
        return 1.0
    before = warmup * progress / step if step else 0.0  # the share of the budget that warming up took, were all steps alike
    left = (1 - progress) / (1 - before) if before < 1 else 0.0
    left = min(max(left, 0.0), 1.0)
    return left if schedule is Schedule.linear else 0.5 * (1 - math.cos(math.pi * left))
