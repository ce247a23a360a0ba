"""Foreign trainers: built from the same parts, and watched so that a run of theirs leaves what any run leaves."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer

from alignzoo.batch import Completions
from alignzoo.common.folder import CHECKPOINTS, COMPLETIONS, METRICS, PARTIAL, Lines
from alignzoo.contracts import Context, Hosting, Scores
from alignzoo.data.lazy import LateRow
from alignzoo.engine import budget, checkpoint, checks, records
from alignzoo.engine.budget import Allowance
from alignzoo.engine.build import Builder, arguments, keywords
from alignzoo.engine.callbacks import Flow, Interrupt, Show
from alignzoo.engine.cost import Cost, watch_networks
from alignzoo.engine.evaluate import Evaluator
from alignzoo.engine.foreign import watch_trainer
from alignzoo.engine.loader import Order, with_late
from alignzoo.engine.stopping import Stopping
from alignzoo.engine.trainer import keep_best, measured, saved_before
from alignzoo.errors import UserError
from alignzoo.models.forward.flops import head_product
from alignzoo.models.roles import Models, Trained, gather_objects
from alignzoo.rewards.checked import Checked, checked
from alignzoo.settings import EarlyStop, Training

COST = "cost"  # in a checkpoint: the account of each rank
STOPPING = "early_stop"  # in a checkpoint


class HostBuilder(Builder):
    """Builds a run whose algorithm is a `TrainerPlugin`."""

    def trainer(self, interrupt: Interrupt, show: Callable[[int, dict[str, float]], None]) -> Any:
        setup, name = self.setup, self.setup.name
        args = arguments(setup.training, self.folder, setup.seed, hosted=True)
        micro = self.check(args.world_size)
        self._connect()
        context, config = self.context(args)
        tables = self._tables(context, args)
        budget.check_data(setup, tables)
        with args.main_process_first(local=False, desc="models"):
            models, trained, _ = self._models(context, config)
        context.models, cost = models, Cost()
        cost.begin("setup")
        scored: Checked | None = None
        if self.reward:
            self.reward.setup(context)
            rows = len(tables.train)
            scored = checked(
                self.reward, str(setup.choices["reward"]), models.shared, rows, lambda completions, scores: None, setup.scoring
            )
            models.score = cost.timed("reward", scored)
        sizes = {
            # its checkpoints become the run's once they are sealed
            "output_dir": str(self.folder / CHECKPOINTS / f"{PARTIAL}hosted"),
            "ignore_data_skip": False,  # its loader is its own: a resumed run finds its place by skipping
            "max_steps": self._steps(tables),
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": setup.training.batch // args.world_size // micro,
        }
        start = Path(tempfile.mkdtemp(prefix="alignzoo-start-"))
        checkpoint.save_main(trained.main, start, context.tokenizer)
        order = Order(tables.train, setup.seed)
        hosting = Hosting(
            settings=setup, arguments=keywords(setup.training, self.folder, setup.seed) | sizes, tables=tables,
            tokenizer=context.tokenizer, policy=trained.main, start=start, models=models,
            modules={role: network.module for role, network in models.networks.items() if hasattr(network, "module")},
            records=order.records, support=models.shared.support,
            reward=partial(_reward_of_samples, models, scored), rollout=partial(cost.phase, "rollout"), multiplied=head_product,
            sampled=lambda prompt, completion: cost.count(prompt_tokens=prompt, completion_tokens=completion),
        )  # fmt: skip
        foreign = self.algorithm.build(hosting)
        if not isinstance(foreign, Trainer):
            raise UserError(f"{name} built a {type(foreign).__name__}: `build` must return a transformers.Trainer")
        watch_networks(cost, models, self.reward, setup.gold)
        watch_trainer(cost, foreign, self.main)
        flow = HostedFlow(setup.training, interrupt)
        flow.trainer = Hosted(foreign, trained, models, self._evaluator(tables, context), context, self.folder)
        flow.trainer.tables_report, flow.trainer.order = tables.report, order
        flow.trainer.stopping = Stopping(setup.early_stop)
        if foreign.is_fsdp_enabled or foreign.is_deepspeed_enabled:
            checks.refuse_sharded(setup.early_stop)
        flow.trainer.keep, flow.trainer.cost = setup.training.keep_checkpoints, cost
        flow.trainer.renamed = self.algorithm.renamed
        flow.trainer.samples = partial(budget.samples, setup, tables)
        flow.trainer.limit(Allowance(setup.budget, cost.used, lambda: 0.0), setup.training)
        weakref.finalize(flow.trainer, shutil.rmtree, start, ignore_errors=True)
        foreign.remove_callback(PrinterCallback)
        for callback in (flow, Show(show)):
            foreign.add_callback(callback)
        return flow.trainer

    def _micro_batch(self, ranks: int) -> int:
        self.algorithm.check(self.setup, ranks)
        return checks.micro_batch(self.setup.training, ranks)


class Hosted:
    """A foreign trainer with the files, evaluation and costs of `AlignTrainer`; what is not here is the trainer's own."""

    keep: int
    allowance: Allowance
    ended: bool
    cost: Cost
    samples: Callable[[int], int]
    renamed: Mapping[str, str | None]
    tables_report: dict[str, Any]
    order: Order

    def __init__(
        self, foreign: Trainer, trained: Trained, models: Models, evaluator: Evaluator, context: Context, folder: Path,
    ) -> None:  # fmt: skip
        self.foreign, self.trained, self.roles, self.evaluator = foreign, trained, models, evaluator
        self.folder = folder
        self.tokenizer, self.encoder = context.tokenizer, context.encoder
        self.model_wrapped = trained
        self.metrics_file = Lines(folder / METRICS, foreign.is_world_process_zero())
        self.completions_file = Lines(folder / COMPLETIONS, foreign.is_world_process_zero())
        self.evaluated: tuple[int, dict[str, float]] = (-1, {})
        self.stopping = Stopping(EarlyStop())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["foreign"], name)

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        if resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
            self.cost.load_state_dict(records.of_rank(records.load(folder / COST), self.foreign.accelerator))
            self.stopping.load_state_dict(records.load(folder / STOPPING))
            for lines in (self.metrics_file, self.completions_file):
                lines.cut(checkpoint.step_of(folder))
        self.cost.started()
        with self.cost.phase("training"):
            try:
                self.foreign.train(resume_from_checkpoint=resume_from_checkpoint)
            except LateRow as error:
                raise self._stopped(error) from error
        self.take_weights()
        keep_best(self)
        self.tables_report = with_late(self.order, self.evaluator.tables)

    def _stopped(self, error: LateRow) -> UserError:
        """Saves what was trained before; of several processes, which read different rows, one alone can't."""
        step = self.foreign.state.global_step
        if step == 0 or self.foreign.accelerator.num_processes > 1:
            return error
        model: Any = self.foreign.model
        self.foreign._save_checkpoint(model, None)
        self.keep_checkpoint()
        return saved_before(error, self.folder, step)

    def finish_step(self) -> None:
        self.roles.shared.updates += 1

    def limit(self, allowance: Allowance, training: Training) -> None:
        """Steer by this budget: when training ends, and the learning rate."""
        self.allowance, self.ended = allowance, False
        if allowance.limited:

            def scheduler(num_training_steps: int, optimizer: Any = None) -> Any:
                return allowance.scheduler(self.foreign, training, optimizer)

            self.foreign.create_scheduler = scheduler  # type: ignore[method-assign]

    def count_samples(self) -> None:
        """Those of the step that is being finished, and all before: of the whole run, so on the account of one process."""
        steps = self.foreign.state.global_step + 1
        self.cost.counts["samples"] = self.samples(steps) * self.foreign.is_world_process_zero()

    def rename(self, logs: dict[str, float]) -> None:
        """To our names, in place: what shows logs comes after."""
        theirs = dict(logs)
        logs.clear()
        for name, value in theirs.items():
            ours = self.renamed.get(name, name)
            if ours is not None:
                logs[ours] = value

    def note(self, logs: dict[str, float]) -> None:
        row = {name: value for name, value in logs.items() if name != "epoch"}
        self.cost.used()
        seconds = self.cost.seconds["total"]
        self.metrics_file.write({"step": self.foreign.state.global_step, **row, "seconds": seconds})

    def evaluate(self) -> dict[str, float]:
        """As `AlignTrainer.evaluate`, on the weights that the foreign trainer has now."""
        if self.evaluated[0] != self.foreign.state.global_step:
            self.take_weights()
        return measured(self, self.foreign)

    def keep_checkpoint(self) -> None:
        """Seal what the foreign trainer has just saved, and put it where checkpoints are."""
        folder, cost = self.folder / CHECKPOINTS, gather_objects(self.cost.state_dict())
        if self.foreign.is_world_process_zero():
            saved = Path(str(self.foreign.args.output_dir)) / f"{checkpoint.PREFIX}{self.foreign.state.global_step}"
            records.save(cost, saved / COST)
            records.save(self.stopping.state_dict(), saved / STOPPING)
            checkpoint.seal(saved)
            checkpoint.place(saved, folder / saved.name)
            checkpoint.rotate(folder, self.keep)
        self.foreign.accelerator.wait_for_everyone()

    def take_weights(self) -> None:
        """The policy, or scorer, becomes what was trained, where the foreign trainer made a model of its own."""
        model: Any = self.foreign.accelerator.unwrap_model(self.foreign.model)
        if model is not self.trained.main:
            self.trained.main.load_state_dict(model.state_dict(), strict=True)


def _reward_of_samples(models: Models, scored: Checked | None, c: Completions) -> Scores:
    """The reward of what is sampled to train on; noise in it is a function of the draws alone."""
    with models.shared.noise.during("rollout", 0):
        scores = models.reward(c)
    if scored:
        scored.rollout_done()
    return scores


class HostedFlow(Flow):
    """Evaluates and records beside the foreign trainer, which would evaluate its own way."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        super().on_optimizer_step(args, state, control, **rest)
        self.trainer.count_samples()  # before the learning rate's schedule asks

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        super().on_step_end(args, state, control, **rest)
        if control.should_evaluate:
            control.should_evaluate, due = False, control.should_log
            self.trainer.evaluate()
            control.should_log = due  # which telling the trackers has taken for done

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self.trainer.rename(logs)
            self.trainer.note(logs)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.trainer.keep_checkpoint()
