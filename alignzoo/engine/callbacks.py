"""When to log, evaluate, save and stop; and the signals that ask for a stop."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from omegaconf import OmegaConf
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignzoo.common.folder import CONFIG
from alignzoo.common.signals import caught
from alignzoo.engine.run_trainer import RunTrainer

Row = dict[str, float]


class Interrupt:
    """Set by Ctrl-C, SIGTERM or SIGHUP; looked at after each optimizer step. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def listening(self) -> AbstractContextManager[None]:
        """Handles the signals inside."""
        return caught(self._request)

    def _request(self, number: int) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


class Flow(TrainerCallback):
    """The steps at which to log, evaluate and save. Log and evaluate come first, so that a checkpoint's rows are on disk
    before it is.
    """

    def __init__(self, trainer: RunTrainer, interrupt: Interrupt) -> None:
        self.trainer, self.interrupt = trainer, interrupt

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object) -> None:
        self.trainer.cost.started()
        if self.trainer.settings.eval_steps and state.global_step == 0:
            self.trainer.evaluate()

    def on_pre_optimizer_step(self, *event: object, **rest: object) -> None:
        self.trainer.cost.begin("training")

    def on_optimizer_step(self, *event: object, **rest: object) -> None:
        self.trainer.cost.end()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object) -> None:
        self.trainer.finish_step()
        settings, step, last = self.trainer.settings, state.global_step, self.trainer.at_end()
        requested = torch.tensor(self.interrupt.requested, device=args.device)
        stopped = bool(self.trainer.roles.any(requested)) and not last
        control.should_log = last or _due(step, settings.logging_steps)
        control.should_evaluate = last or _due(step, settings.eval_steps)
        control.should_save = stopped or (not last and _due(step, settings.save_steps))
        control.should_training_stop = last or stopped

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object) -> None:
        control.should_log = control.should_evaluate = control.should_save = False


class Show(TrainerCallback):
    """Hands log and evaluation rows to a display on the main process."""

    def __init__(self, update: Callable[[int, Row], None]) -> None:
        self.update = update

    def on_log(self, args: object, state: TrainerState, control: object, logs: Row | None = None, **rest: object) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            self.update(state.global_step, logs)

    def on_evaluate(
        self, args: object, state: TrainerState, control: object, metrics: Row | None = None, **rest: object
    ) -> None:
        if state.is_world_process_zero and metrics:
            self.update(state.global_step, metrics)


class Settings(TrainerCallback):
    """Hands the run's own settings, those of its config.yaml, to trackers that keep a run's settings: transformers hands them
    its own alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object) -> None:
        keep = {"wandb", "trackio", "mlflow"} & set(args.report_to or ())
        if not keep or not state.is_world_process_zero:
            return
        settings = OmegaConf.to_container(OmegaConf.load(self.folder / CONFIG))
        for name in keep:
            tracker = importlib.import_module(name)
            if name == "mlflow":
                tracker.log_dict(settings, CONFIG)
            else:
                tracker.config.update(settings, allow_val_change=True)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
