"""The engine: `transformers.Trainer`, told how to take the mean, sample, checkpoint and evaluate for any algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from alignzoo.batch import Batch, Completions
from alignzoo.common.account import peak_memory, tokens_in
from alignzoo.common.folder import CHECKPOINTS, MODEL
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import EMA, Algorithm, Kind, Next, OnlineAlgorithm, learning
from alignzoo.data.lazy import LateRow
from alignzoo.engine import checkpoint, records
from alignzoo.engine.callbacks import Flow, Interrupt
from alignzoo.engine.loader import OfflineLoader, OnlineLoader
from alignzoo.engine.meters import Meter
from alignzoo.engine.objective import Measures, Terms, averaging_weight, named_terms, weight_of, weighted_sum, weights_of
from alignzoo.engine.optimizer_step import StepInProgress
from alignzoo.engine.refill import Refilled, prompts_of, refilled
from alignzoo.engine.reward_training import Lessons
from alignzoo.engine.run_trainer import RunParts, RunTrainer
from alignzoo.errors import UserError, tell
from alignzoo.models.roles import bound

EMPTY = "terms_without_weight"  # how many a step; reported only where there were any, for such a term contributes 0
REWARD = "reward/"  # before the names of terms that the reward learns by
T = TypeVar("T")


class AlignTrainer(RunTrainer, Trainer):
    """Runs an algorithm. The forward of the trained module is "run this method": the loss of a micro-batch, or the sampling
    of a rollout.
    """

    def __init__(
        self, parts: RunParts, args: TrainingArguments, loader: OfflineLoader | OnlineLoader, micro_batch: int,
        interrupt: Interrupt, callbacks: Sequence[TrainerCallback],
    ) -> None:  # fmt: skip
        Trainer.__init__(self, model=parts.trained, args=args, callbacks=[Flow(self, interrupt), *callbacks])
        RunTrainer.__init__(self, parts, self, self._ahead)
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True  # says the same to transformers before 5.19, which would divide once more
        assert isinstance(parts.setup.algorithm, Algorithm)
        self.algorithm, self.views, self.followers = parts.setup.algorithm, parts.views, parts.followers
        self.reward, self.scored = parts.reward, parts.scored
        self.loader, self.step_meter, self.window = loader, Meter(), parts.window
        self.refills, self.told_of_missing = 0, False
        self.asks = any(role.kind is Kind.REWARD for role in self.algorithm.roles().values())
        if isinstance(parts.setup.algorithm, OnlineAlgorithm):
            given = parts.setup.rollout.refill
            self.refills = parts.setup.algorithm.refills() if given is None else given
            parts.models.shared.more = self._more
        self.step_terms: list[tuple[Batch, Terms]] = []
        self.step_inputs: tuple[list[Batch], dict[str, Tensor]] = ([], {})
        self.wraps_step = type(self.algorithm).around_step is not Algorithm.around_step
        self.drawn_before = 0.0  # samples in all rollouts
        self.drawn: list[float] = []  # in those still to be learnt from, the one in progress first
        self.logged_tokens, self.logged_seconds, self.saved_step = 0.0, 0.0, -1
        self.lessons = None
        self.reward_learner = learning(self.reward)
        if self.reward_learner.teaches():
            self.lessons = Lessons(self.reward_learner, self.roles, self, self.window, self.cost, micro_batch)

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        output = Trainer.train(self, *arguments, **keywords)
        self.finish()
        return output

    # --- data ---

    def get_train_dataloader(self) -> Any:
        loader = self.loader
        return loader if isinstance(loader, OfflineLoader) else loader.batches(self.sample, self.rollout_done, self._steps_left)

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one optimizer step, and the sums of their weights over all ranks, known before the first
        backward.
        """
        try:
            batches = [next(epoch_iterator).to(device) for _ in range(num_batches)]
        except LateRow as error:  # the same one on every rank
            if self.state.global_step == 0:
                raise
            self._save_checkpoint(self.trained, None)
            raise self.saved_before(error, self.saved_step) from error
        if isinstance(self.loader, OfflineLoader):
            for batch in batches:
                self.cost.delivered(batch, len(self.order.table))
        if type(self.algorithm).prepare is not Algorithm.prepare:
            with self.cost.phase("training"), torch.no_grad(), self._noise_of_step():
                batches = self.model_wrapped(bound(self.algorithm.prepare, self.views[""], batches))
        sums: dict[str, Tensor] = {}
        for batch in batches:
            for name, weight in self.weights(batch).items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + weight.double().sum()
        self.step_inputs = batches, {name: self.roles.sum(total) for name, total in sorted(sums.items())}
        return self.step_inputs

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        """Weights by term name, beside the defaults."""
        weights = weights_of(self.algorithm, batch)
        if REWARD in self.views:
            weights |= {REWARD + name: weight for name, weight in self.reward_learner.weights(batch).items()}
        return weights

    def _prepare_inputs(self, inputs: T) -> T:
        return inputs

    def floating_point_ops(self, inputs: object) -> int:
        return 0

    # --- loss ---

    def training_step(self, *arguments: Any, **keywords: Any) -> Tensor:
        with self.cost.phase("training"), self._noise_of_step():
            return super().training_step(*arguments, **keywords)

    def _noise_of_step(self) -> AbstractContextManager[None]:
        return self.roles.shared.noise.during("training", self.state.global_step)

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Sum over terms of sum(term * weight) / W, with W over all micro-batches and ranks of the optimizer step."""
        terms, metrics = model(bound(self._objective, inputs))
        self.step_terms.append((inputs, {name: term.detach() for name, term in terms.items()}))
        # the weight of one micro-batch's share of a sum, such that means are means over optimizer steps
        per_step = 1 / (self.args.gradient_accumulation_steps * self.accelerator.num_processes)
        weights, total = self.weights(inputs), torch.zeros((), device=self.args.device)
        for name, term in terms.items():
            weight, over_step = weight_of(name, term, weights, num_items_in_batch)
            share = weighted_sum(term, weight, over_step)
            total = total + share
            self.step_meter.add_share(EMPTY, (over_step == 0) * per_step, per_step)
            if len(terms) > 1:
                self.step_meter.add_share(f"loss/{name}", share, per_step)
        self.step_meter.add_share("loss", total, per_step)
        self._record(metrics, inputs)
        # gradients are averaged over ranks by the data-parallel wrapper, but W already counts all of them
        return total * self.accelerator.num_processes

    def _objective(self, batch: Batch) -> tuple[Terms, Measures]:
        terms, metrics = named_terms(self.algorithm.loss(self.views[""], batch))
        if REWARD in self.views:
            more, measured = named_terms(self.reward_learner.loss(self.views[REWARD], batch))
            terms |= {REWARD + name: term for name, term in more.items()}
            metrics |= {REWARD + name: value for name, value in measured.items()}
        return terms, {name: (value.detach(), mask) for name, (value, mask) in metrics.items()}

    def _record(self, metrics: Measures, batch: Batch) -> None:
        for name, (value, mask) in metrics.items():
            self.step_meter.add(name, value, averaging_weight(value, mask, batch))
        self.cost.count(trained_tokens=tokens_in(batch))

    # --- optimizer ---

    def create_optimizer(self, model: object = None) -> Optimizer:
        """One group a role, so that learning rates may differ; no weight decay on vectors (norms, biases)."""
        if self.optimizer is None:
            groups = []
            for name, module in self.trained.roles.items():
                rate = self.settings.role_learning_rates.get(name, self.args.learning_rate)
                learnt = [p for p in module.parameters() if p.requires_grad]
                for decay, wide in ((self.args.weight_decay, True), (0.0, False)):
                    chosen = [p for p in learnt if (p.dim() > 1) == wide]
                    if chosen:
                        groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        optimizer = optimizer or self.optimizer
        if self.allowance.limited and self.lr_scheduler is None and optimizer:
            self.lr_scheduler = self.allowance.schedule(self.settings, optimizer)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _steps_left(self) -> int:
        return self.state.max_steps - self.state.global_step

    def _ahead(self) -> float:
        if not isinstance(self.loader, OnlineLoader):
            return 0.0
        self.drawn = self.drawn[-1 - len(self.loader.waiting) :]
        return sum(self.drawn[1:]) + sum(self.drawn[:1]) * self.loader.ahead()

    def _clip_grad_norm(self, model: object) -> Tensor:
        """Clips each role's gradient by itself, so that one role's spike does not silence another; returns the norm over
        all.
        """
        limit = self.args.max_grad_norm
        norms = [self.accelerator.clip_grad_norm_(module.parameters(), limit) for module in self.trained.roles.values()]
        return torch.linalg.vector_norm(torch.stack([torch.as_tensor(norm) for norm in norms]))

    def _get_grad_norm(self, model: object, grad_norm: Any = None) -> Any:
        """The gradient norm, looked at before the optimizer uses it."""
        norm = super()._get_grad_norm(model, grad_norm)
        bad = [self.roles.any(~torch.isfinite(torch.as_tensor(x))).item() for x in (norm, self.step_meter.sums["loss"][0])]
        if any(bad):
            raise UserError(self._diverged())
        self.step_terms.clear()
        if self.wraps_step:
            self._around_step()
        return norm

    def _around_step(self) -> None:
        """The algorithm's own step. Without gradients that of the optimizer, which then follows, does nothing."""
        batches, sums = self.step_inputs
        assert self.optimizer is not None
        step = StepInProgress(
            learner=self.algorithm, models=self.views[""], trained=dict(self.trained.roles), batches=batches, sums=sums,
            optimizer=self.optimizer, autocast=self.accelerator.autocast,
        )  # fmt: skip
        with self.cost.phase("training"):
            for name, value in self.algorithm.around_step(self.views[""], step).items():
                self.step_meter.add(name, value)
        self.optimizer.zero_grad()

    def _diverged(self) -> str:
        size = len(self.order.table)
        rows = sorted({row % size for batch, terms in self.step_terms for row in _bad_rows(batch, terms)})
        where = f"rows {', '.join(map(str, rows[:10]))}" if rows else "the gradient, with a finite loss in every row"
        last = checkpoint.latest(self.folder / CHECKPOINTS)
        remedy = f"resume from {last.name}" if last else "there is no checkpoint yet: set trainer.save_steps"
        return (
            f"the loss or gradient is not finite at step {self.state.global_step + 1} ({where}); nothing was updated.\n"
            f"Last good checkpoint: {last or 'none'}. Lower trainer.learning_rate, or {remedy}."
        )

    def finish_step(self) -> None:
        """After the optimizer's step: followers follow, the algorithm hears of it, the step's sums join the window's."""
        super().finish_step()
        self._follow()
        listens = type(self.algorithm).after_step is not Algorithm.after_step  # else spare the reduction over ranks
        if listens and self.algorithm.after_step(self.step_meter.means()) is Next.ROLLOUT:
            self.loader.drop()
        self.window.merge(self.step_meter)
        self.step_meter.clear()
        if self.lessons:
            self.lessons.after(self.state.global_step)

    @torch.no_grad()
    def _follow(self) -> None:
        for module, rule in self.followers.values():
            if self.state.global_step % rule.steps:
                continue
            weight, leader = 1 - rule.decay if isinstance(rule, EMA) else 1.0, self.trained.roles[rule.role]
            for here, there in zip(module.state_dict().values(), leader.state_dict().values(), strict=True):
                here.lerp_(there, weight) if here.is_floating_point() else here.copy_(there)

    # --- rollouts ---

    def sample(self, index: int, batch: Batch) -> Batch:
        """This rank's part of rollout `index`, without gradient and without dropout."""
        self.model_wrapped.eval()
        self.cost.delivered(batch, len(self.order.table))
        with self.cost.phase("rollout"), torch.no_grad(), self.roles.shared.noise.during("rollout", index):
            models, records = self.views[""], batch.to(self.args.device)
            experience = partial(cast(OnlineAlgorithm, self.algorithm).experience, models)
            if not self.refills:
                sampled: Batch = self.model_wrapped(bound(experience, records))
                if self.asks and hasattr(sampled, "row"):
                    self._note_dropped(prompts_of(models, sampled), prompts_of(models, records))
                return sampled
            rollout: Refilled = self.model_wrapped(bound(refilled, experience, models, records, self.refills))
        self._note_refills(rollout)
        return rollout.experience

    def _more(self, count: int) -> Batch:
        assert isinstance(self.loader, OnlineLoader)
        batch = self.loader.more(count)
        self.cost.delivered(batch, len(self.order.table))
        return batch.to(self.args.device)

    def _note_dropped(self, kept: int, drawn: int) -> None:
        if drawn and self.is_world_process_zero():
            self.window.add("prompts_dropped", 1 - kept / drawn)

    def _note_refills(self, rollout: Refilled) -> None:
        if not self.is_world_process_zero():
            return
        missing = rollout.wanted - rollout.kept
        self.window.add("refills", float(rollout.refills))
        self._note_dropped(rollout.kept, rollout.drawn)
        self.window.add("prompts_missing", float(missing))
        if missing and not self.told_of_missing:
            self.told_of_missing = True
            tell(
                f"a rollout has {rollout.kept} prompts instead of {rollout.wanted}: of {rollout.drawn} drawn, with "
                f"{rollout.refills} refills, the others had equal rewards or were left out (prompts_missing tells how many)"
            )

    def rollout_done(self, rollout: Batch) -> None:
        """Means over the rollout, for the log and for the algorithm; the loader has made it the same on every rank."""
        columns = {
            name: value for name, value in vars(rollout).items()
            if isinstance(value, Tensor) and value.dim() == 1 and value.is_floating_point()
        }  # fmt: skip
        if isinstance(rollout, Completions):
            columns |= {"length": rollout.length, "truncated": rollout.truncated.float()}
            if rollout.logprobs is not None:
                columns["entropy"] = -rollout.mean(rollout.logprobs)  # an unbiased estimate, from the samples themselves
        drawn = self.cost.used()["samples"]
        assert isinstance(self.loader, OnlineLoader)
        self.drawn = [*self.drawn[-1 - len(self.loader.waiting) :], drawn - self.drawn_before]
        self.drawn_before = drawn
        here, counted = Meter(), rollout.counted
        for name, values in columns.items():
            here.add(name, values, counted)
        means = {name: value / weight for name, (value, weight) in here.state_dict().items() if weight}
        if self.is_world_process_zero():
            self.window.merge(here)
        self.algorithm.after_rollout(means | {"samples": float(len(rollout))})
        if self.scored:
            self.scored.rollout_done()

    # --- logs ---

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:
            return
        means, used, seconds = self.window.means(), self.cost.used(), self.cost.seconds["total"]
        self.window.clear()
        rate = (used["tokens"] - self.logged_tokens) / max(used["seconds"] - self.logged_seconds, 1e-9)
        self.logged_tokens, self.logged_seconds = used["tokens"], used["seconds"]
        if not means[EMPTY]:
            del means[EMPTY]
        if self.allowance.limited:
            means["budget_progress"] = self.allowance.progress()
        logs = logs | means | {"tokens_per_second": rate, "seconds": seconds, "peak_memory": float(peak_memory())}
        # first: the parent adds an epoch to `logs`, which it counts from the start of the process, not of the run
        self.metrics_file.write({"step": self.state.global_step, **logs})
        super().log(logs, start_time)

    # --- checkpoints ---

    def _save_checkpoint(self, model: object, trial: object) -> None:
        step = self.state.global_step
        if step == self.saved_step:
            return
        sizes = [lines.sync() for lines in (self.metrics_file, self.completions_file)]
        self.cost.begin("checkpoint")
        state = self._state() | {"lines": sizes}  # a collective: every rank takes part
        rng = gather_objects(torch.random.get_rng_state())
        if self.is_world_process_zero():
            folder = self.folder / CHECKPOINTS / f"{checkpoint.PREFIX}{step}"
            checkpoint.write(folder, lambda partial: self._fill(partial, state | {"rng": rng}))
            checkpoint.rotate(folder.parent, self.settings.keep_checkpoints)
        self.accelerator.wait_for_everyone()
        self.saved_step = step
        self.cost.end()

    def _fill(self, folder: Path, state: Mapping[str, object]) -> None:
        self._save(str(folder))
        for name, module in self._other_roles().items():
            checkpoint.save_module(module, folder / name)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))
        records.save(state, folder / "state")

    def _save(self, output_dir: str | None = None, state_dict: object = None) -> None:
        checkpoint.save_main(self.trained.main, Path(output_dir or self.folder / MODEL), self.tokenizer, self.encoder)

    def _other_roles(self) -> dict[str, nn.Module]:
        trained = {name: module for name, module in self.trained.roles.items() if module is not self.trained.main}
        learnt = self.lessons.modules if self.lessons else {}
        return trained | learnt | {name: module for name, (module, _) in self.followers.items()}

    def _stateful(self) -> dict[str, Any]:
        """By name in a checkpoint, what of this run has a state that is the same on every rank."""
        parts = {"loader": self.loader, "algorithm": self.algorithm, "reward": self.reward, "lessons": self.lessons}
        return {name: part for name, part in {**parts, "early_stop": self.stopping}.items() if part is not None}

    def _state(self) -> dict[str, object]:
        return {
            **{name: {} for name in ("reward", "lessons")},
            **{name: part.state_dict() for name, part in self._stateful().items()},
            "window": gather_objects(self.window.state_dict()),
            "cost": gather_objects(self.cost.state_dict()),
            "logged": [self.logged_tokens, self.logged_seconds],
            "drawn": [self.drawn_before, *self.drawn],
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: object = None) -> None:
        folder = Path(resume_from_checkpoint)
        state = records.load(folder / "state")
        window, cost, self._rng = (records.of_rank(state[name], self.args) for name in ("window", "cost", "rng"))
        checkpoint.load_main(self.trained.main, folder)
        for name, module in self._other_roles().items():
            checkpoint.load_module(module, folder / name)
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self.window.load_state_dict(window)
        self.cost.load_state_dict(cost)
        self.logged_tokens, self.logged_seconds = state["logged"]
        self.drawn_before, *self.drawn = state["drawn"]
        self.saved_step = checkpoint.step_of(folder)
        sizes = state.get("lines", (0, 0))  # not there in checkpoints of before
        for lines, size in zip((self.metrics_file, self.completions_file), sizes, strict=True):
            lines.cut(self.saved_step, size)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            torch.random.set_rng_state(self._rng)


def _bad_rows(batch: Batch, terms: Terms) -> list[int]:
    rows: Tensor | None = getattr(batch, "row", None)
    bad = [~torch.isfinite(term).reshape(len(term), -1).all(1) for term in terms.values()]
    numbers: list[int] = [] if rows is None or not bad else rows[torch.stack(bad).any(0)].tolist()
    return numbers
