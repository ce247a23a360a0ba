"""What every run's trainer has beside training, ours and those that are hosted alike: files, costs, evaluations, an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import Trainer

from alignzoo.common.account import Account
from alignzoo.common.folder import CHECKPOINTS, COMPLETIONS, METRICS, Lines
from alignzoo.contracts import EMA, Context, Every, Reward, Tables
from alignzoo.data.lazy import LateRow
from alignzoo.engine import checkpoint
from alignzoo.engine.budget import Allowance
from alignzoo.engine.evaluate import Evaluator
from alignzoo.engine.loader import Order, with_late
from alignzoo.engine.meters import Meter
from alignzoo.engine.stopping import Stopping
from alignzoo.errors import UserError, tell
from alignzoo.models.roles import RoleNetworks, Trained
from alignzoo.rewards.checked import Checked
from alignzoo.setup import RunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.data.encode import Encoder

Followers = Mapping[str, tuple[nn.Module, EMA | Every]]


@dataclass(kw_only=True)
class RunParts:
    """What a run's trainer is made from, each part finished."""

    setup: RunConfig
    folder: Path
    context: Context
    tables: Tables
    order: Order
    models: RoleNetworks
    trained: Trained
    views: Mapping[str, RoleNetworks]  # what each learner may see, by the prefix of its terms: "" and "reward/"
    followers: Followers
    reward: Reward | None
    scored: Checked | None  # the reward, as what is sampled to train on asks for it
    evaluator: Evaluator
    cost: Account
    window: Meter = field(default_factory=Meter)  # what the next log line averages


class RunTrainer:
    """`inner` is the trainer that the run's loop, trackers and callbacks belong to; `ahead` tells how many of the samples drawn
    are still to be learnt from."""

    model_wrapped: nn.Module

    def __init__(self, parts: RunParts, inner: Trainer, ahead: Callable[[], float] = lambda: 0.0) -> None:
        self.inner, self.folder, self.settings = inner, parts.folder, parts.setup.training
        self.trained, self.roles, self.order, self.evaluator = parts.trained, parts.models, parts.order, parts.evaluator
        self.tokenizer: PreTrainedTokenizerBase = parts.context.tokenizer
        self.encoder: Encoder | None = parts.context.encoder
        self.cost, self.stopping = parts.cost, Stopping(parts.setup.early_stop)
        self.allowance, self.ended = Allowance(parts.setup.budget, self.cost.used, ahead), False
        self.tables, self.tables_report = parts.tables, dict(parts.tables.report)
        self.metrics_file = Lines(self.folder / METRICS, inner.is_world_process_zero())
        self.completions_file = Lines(self.folder / COMPLETIONS, inner.is_world_process_zero())
        self.evaluated: tuple[int, dict[str, float]] = (-1, {})

    def train(self, resume_from_checkpoint: str | None = None) -> object:
        raise NotImplementedError

    def evaluate(self, *arguments: object, **keywords: object) -> dict[str, float]:
        """Held-out metrics, once a step, with randomness of their own; leaves no trace in training."""
        inner, step = self.inner, self.inner.state.global_step
        if self.evaluated[0] == step:
            return self.evaluated[1]
        module, training = self.model_wrapped, self.model_wrapped.training
        module.eval()
        with self.cost.phase("evaluation"), torch.no_grad(), self.roles.shared.noise.during("evaluation", step):
            measures, rows = self.evaluator(module, step)
        module.train(training)
        for row in rows:
            self.completions_file.write({"step": step, **row})
        metrics = {f"eval/{name}": value for name, value in measures.items()}
        self.evaluated = (step, metrics)
        used = {f"cost/{unit}": amount for unit, amount in {"steps": step, **self.cost.used()}.items()}
        self.metrics_file.write({"step": step, **metrics, **used, "seconds": self.cost.seconds["total"]})
        Trainer.log(inner, {f"eval_{name}": value for name, value in measures.items()})  # as trackers name them
        inner.control = inner.callback_handler.on_evaluate(inner.args, inner.state, inner.control, metrics)
        if self.stopping.look(step, metrics, self.trained):
            inner.control.should_training_stop = self.ended = True
            if inner.is_world_process_zero():
                reason, best = self.stopping.reason, self.stopping.step
                tell(f"stopped at step {step}: {reason}; the weights are those of step {best}")
        return metrics

    def take_weights(self) -> None:
        """The networks of `trained` become what was trained, where the trainer made others of them."""

    def finish_step(self) -> None:
        """After the optimizer's step."""
        self.roles.shared.updates += 1

    def at_end(self) -> bool:
        """Whether this step is the run's last: its steps are done, its budget is used up, or early stopping said so."""
        state = self.inner.state
        spent = self.allowance.limited and self.allowance.progress() >= 1
        if spent:
            self.allowance.check_first_step(state.global_step)
        stopped = bool(self.stopping.reason)  # before a restart
        self.ended = spent or stopped or state.global_step >= state.max_steps
        return self.ended

    def finish(self) -> None:
        """Once training is over: the weights and metrics of the evaluation that early stopping chose, where it does."""
        if self.ended and self.stopping.active:
            self.stopping.restore(self.trained)
            self.evaluated = (self.stopping.step, self.stopping.metrics)
        self.ended = self.ended or self.inner.state.global_step >= self.inner.state.max_steps
        self.tables_report = with_late(self.order, self.tables)

    def saved_before(self, error: LateRow, step: int) -> UserError:
        """What to say of a row that ended the run once this step was saved."""
        saved = self.folder / CHECKPOINTS / f"{checkpoint.PREFIX}{step}"
        return UserError(
            f"{error}\n{saved} has all until then: go on with resume={self.folder} accept=[data] once the row is mended"
        )
