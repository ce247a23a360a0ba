"""Foreign trainers: built from the same parts, and watched so that a run of theirs leaves what any run leaves."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignzoo.batch import Completions
from alignzoo.common.folder import CHECKPOINTS, PARTIAL
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import Hosting, Scores, TrainerPlugin
from alignzoo.data.lazy import LateRow
from alignzoo.engine import budget, checkpoint, checks, records
from alignzoo.engine.build import Builder, keywords
from alignzoo.engine.callbacks import Flow, Interrupt, Row
from alignzoo.engine.hosted_costs import watch_trainer
from alignzoo.engine.run_trainer import RunParts, RunTrainer
from alignzoo.errors import UserError
from alignzoo.models.forward.flops import head_product
from alignzoo.setup import RunConfig

COST = "cost"  # in a checkpoint: the account of each rank
STOPPING = "early_stop"  # in a checkpoint


class HostBuilder(Builder):
    """Builds a run whose algorithm is a `TrainerPlugin`."""

    def __init__(self, setup: RunConfig, folder: Path, cache: Path) -> None:
        super().__init__(setup, folder, cache)
        assert isinstance(setup.algorithm, TrainerPlugin)
        self.plugin = setup.algorithm

    def _micro_batch(self, ranks: int) -> int:
        self.plugin.check(self.setup, ranks)
        return checks.micro_batch(self.setup.training, ranks)

    def _trainer(
        self, parts: RunParts, args: TrainingArguments, micro: int, interrupt: Interrupt, callbacks: list[TrainerCallback]
    ) -> RunTrainer:
        setup, models, cost, main = self.setup, parts.models, parts.cost, parts.trained.main
        sizes = {
            # its checkpoints become the run's once they are sealed
            "output_dir": str(self.folder / CHECKPOINTS / f"{PARTIAL}hosted"),
            "ignore_data_skip": False,  # its loader is its own: a resumed run finds its place by skipping
            "max_steps": args.max_steps,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
        }
        start = Path(tempfile.mkdtemp(prefix="alignzoo-start-"))
        checkpoint.save_main(main, start, parts.context.tokenizer)
        hosting = Hosting(
            settings=setup, arguments=keywords(setup.training, self.folder, setup.seed) | sizes, tables=parts.tables,
            tokenizer=parts.context.tokenizer, policy=main, start=start, models=models,
            modules={role: network.module for role, network in models.networks.items() if hasattr(network, "module")},
            records=parts.order.records, support=models.shared.support,
            reward=partial(_reward_of_samples, parts), rollout=partial(cost.phase, "rollout"), multiplied=head_product,
            sampled=lambda prompt, completion: cost.count(prompt_tokens=prompt, completion_tokens=completion),
        )  # fmt: skip
        foreign = self.plugin.build(hosting)
        if not isinstance(foreign, Trainer):
            raise UserError(f"{setup.name} built a {type(foreign).__name__}: `build` must return a transformers.Trainer")
        self._watch(parts)
        watch_trainer(cost, foreign, self.main)
        trainer = Hosted(parts, foreign, self.plugin.renamed)
        weakref.finalize(trainer, shutil.rmtree, start, ignore_errors=True)
        foreign.remove_callback(PrinterCallback)
        for callback in (HostedFlow(trainer, interrupt), *callbacks):
            foreign.add_callback(callback)
        return trainer


class Hosted(RunTrainer):
    """A foreign trainer with the files, evaluation and costs of `AlignTrainer`."""

    def __init__(self, parts: RunParts, foreign: Trainer, renamed: Mapping[str, str | None]) -> None:
        super().__init__(parts, foreign)
        self.setup, self.renamed = parts.setup, renamed
        self.foreign, self.model_wrapped = foreign, parts.trained
        if self.allowance.limited:

            def schedule(num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
                optimizer = optimizer or foreign.optimizer
                assert optimizer is not None
                if foreign.lr_scheduler is None:
                    foreign.lr_scheduler = self.allowance.schedule(self.settings, optimizer)
                    foreign._created_lr_scheduler = True
                return foreign.lr_scheduler

            foreign.create_scheduler = schedule  # type: ignore[method-assign]

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        if resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
            self.cost.load_state_dict(records.of_rank(records.load(folder / COST), self.foreign.args))
            self.stopping.load_state_dict(records.load(folder / STOPPING))
            for lines in (self.metrics_file, self.completions_file):
                lines.cut(checkpoint.step_of(folder))
        self.cost.started()
        with self.cost.phase("training"):
            try:
                self.foreign.train(resume_from_checkpoint=resume_from_checkpoint)
            except LateRow as error:
                step, model = self.foreign.state.global_step, self.foreign.model
                assert model is not None
                if step == 0 or self.foreign.accelerator.num_processes > 1:  # one of several, which read different rows
                    raise
                self.foreign._save_checkpoint(model, None)
                self.keep_checkpoint()
                raise self.saved_before(error, step) from error
        self.take_weights()
        self.finish()

    def evaluate(self, *arguments: object, **keywords: object) -> dict[str, float]:
        """As any run, on the weights that the foreign trainer has now."""
        if self.evaluated[0] != self.foreign.state.global_step:
            self.take_weights()
        return super().evaluate()

    def count_samples(self) -> None:
        """Those of the step that is being finished, and all before: of the whole run, so on the account of one process."""
        samples = budget.samples(self.setup, self.tables, self.foreign.state.global_step + 1)
        self.cost.counts["samples"] = samples * self.foreign.is_world_process_zero()

    def note(self, logs: dict[str, float]) -> None:
        """A line of metrics.jsonl. The names in `logs` become ours, in place: what shows logs comes after."""
        renamed = {self.renamed.get(name, name): value for name, value in logs.items()}
        logs.clear()
        logs.update({name: value for name, value in renamed.items() if name is not None})
        row = {name: value for name, value in logs.items() if name != "epoch"}
        self.cost.used()
        seconds = self.cost.seconds["total"]
        self.metrics_file.write({"step": self.foreign.state.global_step, **row, "seconds": seconds})

    def keep_checkpoint(self) -> None:
        """Seal what the foreign trainer has just saved, and put it where checkpoints are."""
        folder, cost = self.folder / CHECKPOINTS, gather_objects(self.cost.state_dict())
        if self.foreign.is_world_process_zero():
            saved = Path(str(self.foreign.args.output_dir)) / f"{checkpoint.PREFIX}{self.foreign.state.global_step}"
            records.save(cost, saved / COST)
            records.save(self.stopping.state_dict(), saved / STOPPING)
            checkpoint.seal(saved)
            checkpoint.place(saved, folder / saved.name)
            checkpoint.rotate(folder, self.settings.keep_checkpoints)
        self.foreign.accelerator.wait_for_everyone()

    def take_weights(self) -> None:
        model = self.foreign.accelerator.unwrap_model(self.foreign.model)
        if model is not self.trained.main:
            self.trained.main.load_state_dict(model.state_dict(), strict=True)


def _reward_of_samples(parts: RunParts, c: Completions) -> Scores:
    """The reward of what is sampled to train on; noise in it is a function of the draws alone."""
    with parts.models.shared.noise.during("rollout", 0):
        scores = parts.models.reward(c)
    if parts.scored:
        parts.scored.rollout_done()
    return scores


class HostedFlow(Flow):
    """Evaluates and records beside the foreign trainer, which would evaluate its own way."""

    trainer: Hosted

    def on_optimizer_step(self, *event: object, **rest: object) -> None:
        super().on_optimizer_step(*event, **rest)
        self.trainer.count_samples()  # before the learning rate's schedule asks

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object) -> None:
        super().on_step_end(args, state, control, **rest)
        if control.should_evaluate:
            control.should_evaluate, due = False, control.should_log
            self.trainer.evaluate()
            control.should_log = due  # which telling the trackers has taken for done

    def on_log(self, args: object, state: object, control: object, logs: Row | None = None, **rest: object) -> None:
        if logs and "loss" in logs:
            self.trainer.note(logs)

    def on_save(self, *event: object, **rest: object) -> None:
        self.trainer.keep_checkpoint()
