"""The engine: `transformers.Trainer`, told how to take the mean, sample, checkpoint and evaluate for any algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from alignzoo.batch import Batch
from alignzoo.common.folder import CHECKPOINTS, COMPLETIONS, METRICS, MODEL, Lines
from alignzoo.contracts import EMA, Algorithm, Every, Metrics, Next, OnlineAlgorithm, Reward, Tables
from alignzoo.data.encode import Encoder
from alignzoo.data.lazy import LateRow
from alignzoo.engine import allocator, checkpoint, records
from alignzoo.engine.budget import Allowance
from alignzoo.engine.cost import Cost, peak_memory, tokens_in
from alignzoo.engine.loader import OfflineLoader, OnlineLoader, with_late
from alignzoo.engine.meters import Meter
from alignzoo.engine.stopping import Stopping, announce
from alignzoo.errors import UserError
from alignzoo.models.roles import Models, Trained, bound, gather_objects
from alignzoo.rewards.checked import Checked
from alignzoo.settings import Budget, EarlyStop, Training

Terms = dict[str, Tensor]
EMPTY = "terms_without_weight"  # how many a step; reported only where there were any, for such a term contributes 0


class AlignTrainer(Trainer):
    """Runs an algorithm. The forward of the trained module is "run this method": the loss of a micro-batch, or the sampling
    of a rollout.
    """

    def __init__(
        self, *, trained: Trained, args: TrainingArguments, algorithm: Algorithm, models: Models, reward: Reward | None,
        learning_rates: dict[str, float], tokenizer: Any, encoder: Encoder | None,
        evaluator: Callable[[AlignTrainer], dict[str, float]], folder: Path,
        training: Training, budget: Budget, callbacks: list[TrainerCallback],
    ) -> None:  # fmt: skip
        super().__init__(model=trained, args=args, callbacks=callbacks)
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True  # says the same to transformers before 5.19, which would divide once more
        self.trained, self.algorithm, self.tokenizer, self.evaluator, self.settings = (
            trained,
            algorithm,
            tokenizer,
            evaluator,
            training,
        )
        self.roles, self.reward, self.encoder = models, reward, encoder
        self.scored: Checked | None = None
        self.lessons: Any = None  # `engine.lessons.Lessons`, where the reward learns apart from the policy
        self.learning_rates = learning_rates
        self.loader: OfflineLoader | OnlineLoader
        self.followers: dict[str, tuple[nn.Module, EMA | Every]] = {}
        self.step_meter, self.window, self.cost = Meter(), Meter(), Cost()
        self.cost.begin("setup")
        self.drawn_before, self.drawn_last = 0.0, 0.0  # samples before the rollout in progress, and in it
        self.allowance = Allowance(budget, self.cost.used, self._ahead)
        self.step_terms: list[tuple[Any, Terms]] = []
        self.folder = folder
        self.metrics_file = Lines(folder / METRICS, self.is_world_process_zero())
        self.completions_file = Lines(folder / COMPLETIONS, self.is_world_process_zero())
        self.evaluated: tuple[int, dict[str, float]] = (-1, {})
        self.saved_step, self.ended, self.stopping = -1, False, Stopping(EarlyStop())
        self.logged_tokens, self.logged_seconds = 0.0, 0.0
        self.views = self.make_views()
        self.tables: Tables
        self.tables_report: dict[str, Any] = {}

    def make_views(self) -> dict[str, Models]:
        """What each learner may see: its own roles, with gradient only into those it trains."""
        learners: dict[str, Any] = {"": self.algorithm}
        if self.reward and set(self.reward.roles()) - self.reward.apart():
            learners["reward/"] = self.reward
        views = {}
        apart = self.reward.apart() if self.reward else frozenset()
        for prefix, learner in learners.items():
            roles = learner.roles()
            views[prefix] = self.roles.only(set(roles), {name for name, role in roles.items() if role.trained} - apart)
        return views

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """As the parent; the result has the weights, and the metrics, that early stopping keeps."""
        if self.settings.keep_memory:
            allocator.keep_freed()
        output = super().train(*arguments, **keywords)
        keep_best(self)
        self.tables_report = with_late(self.loader.order, self.tables)
        return output

    def _stopped(self, error: LateRow) -> UserError:
        """Saves what was trained before a row, the same one on every rank, turned out unusable."""
        if self.state.global_step == 0:
            return error
        self._save_checkpoint(self.model, None)
        return saved_before(error, self.folder, self.saved_step)

    # --- data ---

    def get_train_dataloader(self) -> Any:
        return self.loader

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro-batches of one optimizer step, and the sums of their weights over all ranks, known before the first
        backward.
        """
        try:
            batches = [next(epoch_iterator).to(device) for _ in range(num_batches)]
        except LateRow as error:
            raise self._stopped(error) from error
        if isinstance(self.loader, OfflineLoader):
            for batch in batches:
                self.cost.delivered(batch, len(self.loader.order.table))
        if type(self.algorithm).prepare is not Algorithm.prepare:
            with self.cost.phase("training"), torch.no_grad():
                batches = self.model_wrapped(bound(self.algorithm.prepare, self.views[""], batches))
        sums: dict[str, Tensor] = {}
        for batch in batches:
            for name, weight in self.weights(batch).items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + weight.double().sum()
        return batches, {name: self.roles.sum(total) for name, total in sorted(sums.items())}

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        """Weights by term name, beside the defaults."""
        weights = default_weights(batch)
        for prefix, learner in (("", self.algorithm), ("reward/", self.reward)):
            if prefix in self.views and learner is not None:
                weights |= {prefix + name: weight for name, weight in learner.weights(batch).items()}
        return weights

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    # --- loss ---

    def training_step(self, *arguments: Any, **keywords: Any) -> Tensor:
        with self.cost.phase("training"):
            return super().training_step(*arguments, **keywords)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Sum over terms of sum(term * weight) / W, with W over all micro-batches and ranks of the optimizer step."""
        terms, metrics = model(bound(self._objective, inputs))
        self.step_terms.append((inputs, {name: term.detach() for name, term in terms.items()}))
        weights, total = self.weights(inputs), torch.zeros((), device=self.args.device)
        for name, term in terms.items():
            weight, over_step = weight_of(name, term, weights, num_items_in_batch)
            share = weighted_sum(term, weight, over_step)
            total = total + share
            self.step_meter.add_share(EMPTY, (over_step == 0) * self._per_step(), self._per_step())
            if len(terms) > 1:
                self.step_meter.add_share(f"loss/{name}", share, self._per_step())
        self.step_meter.add_share("loss", total, self._per_step())
        self._record(metrics, inputs)
        # gradients are averaged over ranks by the data-parallel wrapper, but W already counts all of them
        return total * self.accelerator.num_processes

    def _objective(self, batch: Any) -> tuple[Terms, Metrics]:
        terms, metrics = named_terms(self.algorithm.loss(self.views[""], batch))
        if "reward/" in self.views and self.reward is not None:
            more, measured = named_terms(self.reward.loss(self.views["reward/"], batch))
            terms |= {f"reward/{name}": term for name, term in more.items()}
            metrics |= {f"reward/{name}": value for name, value in measured.items()}
        return terms, {name: value.detach() for name, value in metrics.items()}

    def _per_step(self) -> float:
        """The weight of one micro-batch's share of a sum, such that means are means over optimizer steps."""
        return 1 / (self.args.gradient_accumulation_steps * self.accelerator.num_processes)

    def _record(self, metrics: Metrics, batch: Any) -> None:
        for name, value in metrics.items():
            shaped = {1: lambda: batch.counted, 2: lambda: batch.scored}.get(value.dim())
            weight = shaped() if shaped else 1.0
            self.step_meter.add(name, value, weight)
        self.cost.count(trained_tokens=tokens_in(batch))

    # --- optimizer ---

    def create_optimizer(self, model: Any = None) -> Any:
        """One group a role, so that learning rates may differ; no weight decay on vectors (norms, biases)."""
        if self.optimizer is None:
            groups = []
            for name, module in self.trained.roles.items():
                rate = self.learning_rates.get(name, self.args.learning_rate)
                learnt = [p for p in module.parameters() if p.requires_grad]
                for decay, wide in ((self.args.weight_decay, True), (0.0, False)):
                    chosen = [p for p in learnt if (p.dim() > 1) == wide]
                    if chosen:
                        groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.allowance.limited:
            return self.allowance.scheduler(self, self.settings, optimizer)
        return super().create_scheduler(num_training_steps, optimizer)

    def _ahead(self) -> float:
        return self.drawn_last * self.loader.ahead() if isinstance(self.loader, OnlineLoader) else 0.0

    def _clip_grad_norm(self, model: Any) -> Tensor:
        """Clips each role's gradient by itself, so that one role's spike does not silence another; returns the norm over
        all.
        """
        limit = self.args.max_grad_norm
        norms = [self.accelerator.clip_grad_norm_(module.parameters(), limit) for module in self.trained.roles.values()]
        return torch.linalg.vector_norm(torch.stack([torch.as_tensor(norm) for norm in norms]))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient norm, looked at before the optimizer uses it."""
        norm = super()._get_grad_norm(model, grad_norm)
        bad = [self.roles.any(~torch.isfinite(torch.as_tensor(x))).item() for x in (norm, self.step_meter.sums["loss"][0])]
        if any(bad):
            raise UserError(self._diverged())
        self.step_terms.clear()
        return norm

    def _diverged(self) -> str:
        size = len(self.loader.order.table)
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
        self.roles.shared.updates += 1
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
            if isinstance(rule, Every) and self.state.global_step % rule.steps:
                continue
            weight = 1 - rule.decay if isinstance(rule, EMA) else 1.0
            for mine, theirs in zip(module.state_dict().values(), self.trained.policy.state_dict().values(), strict=True):
                mine.lerp_(theirs, weight) if mine.is_floating_point() else mine.copy_(theirs)

    # --- rollouts ---

    def sample(self, index: int, batch: Any) -> Batch:
        """This rank's part of rollout `index`, without gradient and without dropout."""
        self.model_wrapped.eval()
        self.cost.delivered(batch, len(self.loader.order.table))
        with self.cost.phase("rollout"), torch.no_grad(), self.roles.shared.noise.during("rollout", index):
            algorithm = cast(OnlineAlgorithm, self.algorithm)
            return self.model_wrapped(bound(algorithm.experience, self.views[""], batch.to(self.args.device)))

    def rollout_done(self, rollout: Any) -> None:
        """Means over the rollout, for the log and for the algorithm; the loader has made it the same on every rank."""
        counted = rollout.counted
        columns = {name: value for name, value in vars(rollout).items() if _is_measure(value)}
        if hasattr(rollout, "length"):
            columns |= {"length": rollout.length, "truncated": rollout.truncated.float()}
        if getattr(rollout, "logprobs", None) is not None:
            columns["entropy"] = -rollout.mean(rollout.logprobs)  # an unbiased estimate, from the samples themselves
        drawn = self.cost.used()["samples"]
        self.drawn_before, self.drawn_last = drawn, drawn - self.drawn_before
        here = Meter()
        for name, values in columns.items():
            here.add(name, values, counted)
        means = {name: value / weight for name, (value, weight) in here.state_dict().items() if weight}
        if self.is_world_process_zero():
            self.window.merge(here)
        self.algorithm.after_rollout(means | {"samples": float(len(rollout))})
        if self.scored:
            self.scored.rollout_done()

    # --- logs and evaluation ---

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

    def evaluate(self, *arguments: Any, **keywords: Any) -> dict[str, float]:
        """Held-out metrics, once a step."""
        return measured(self, self)

    # --- checkpoints ---

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
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

    def _fill(self, folder: Path, state: dict[str, Any]) -> None:
        self._save(str(folder))
        for name, module in self._other_roles().items():
            checkpoint.save_module(module, folder / name)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))
        records.save(state, folder / "state")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        checkpoint.save_main(self.trained.main, Path(output_dir or self.folder / MODEL), self.tokenizer, self.encoder)

    def _other_roles(self) -> dict[str, nn.Module]:
        trained = {name: module for name, module in self.trained.roles.items() if module is not self.trained.main}
        learnt = self.lessons.modules if self.lessons else {}
        return trained | learnt | {name: module for name, (module, _) in self.followers.items()}

    def _state(self) -> dict[str, Any]:
        return {
            "loader": self.loader.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "reward": self.reward.state_dict() if self.reward else {},
            "lessons": self.lessons.state_dict() if self.lessons else {},
            "window": gather_objects(self.window.state_dict()),
            "cost": gather_objects(self.cost.state_dict()),
            "logged": [self.logged_tokens, self.logged_seconds],
            "drawn": [self.drawn_before, self.drawn_last],
            "early_stop": self.stopping.state_dict(),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        state = records.load(folder / "state")
        window, cost, self._rng = (records.of_rank(state[name], self.accelerator) for name in ("window", "cost", "rng"))
        checkpoint.load_main(self.trained.main, folder)
        for name, module in self._other_roles().items():
            checkpoint.load_module(module, folder / name)
        self.loader.load_state_dict(state["loader"])
        self.algorithm.load_state_dict(state["algorithm"])
        if self.reward:
            self.reward.load_state_dict(state["reward"])
        if self.lessons:
            self.lessons.load_state_dict(state["lessons"])
        self.window.load_state_dict(window)
        self.cost.load_state_dict(cost)
        self.logged_tokens, self.logged_seconds = state["logged"]
        self.drawn_before, self.drawn_last = state["drawn"]
        self.stopping.load_state_dict(state["early_stop"])
        self.saved_step = checkpoint.step_of(folder)
        sizes = state.get("lines", (0, 0))  # not there in checkpoints of before
        for lines, size in zip((self.metrics_file, self.completions_file), sizes, strict=True):
            lines.cut(self.saved_step, size)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            torch.random.set_rng_state(self._rng)


def measured(run: Any, inner: Trainer) -> dict[str, float]:
    """Held-out metrics of a run, once a step, with randomness of their own; leaves no trace in training. `inner` is the trainer
    that the run's loop, trackers and callbacks belong to."""
    step = inner.state.global_step
    if run.evaluated[0] != step:
        module, training = run.model_wrapped, run.model_wrapped.training
        module.eval()
        with run.cost.phase("evaluation"), torch.no_grad(), run.roles.shared.noise.during("evaluation", step):
            found = {f"eval/{name}": value for name, value in run.evaluator(run).items()}
        module.train(training)
        run.evaluated = (step, found)
        run.metrics_file.write(evaluation_row(step, found, run.cost))
        Trainer.log(inner, {name.replace("eval/", "eval_", 1): value for name, value in found.items()})  # as trackers name them
        inner.control = inner.callback_handler.on_evaluate(inner.args, inner.state, inner.control, found)
        if run.stopping.look(step, found, run.trained):
            inner.control.should_training_stop = run.ended = True
            if inner.is_world_process_zero():
                announce(run.stopping, step)
    return run.evaluated[1]


def saved_before(error: LateRow, folder: Path, step: int) -> UserError:
    """What to say of a row that ended a run once this step was saved."""
    saved = folder / CHECKPOINTS / f"{checkpoint.PREFIX}{step}"
    return UserError(f"{error}\n{saved} has all until then: go on with resume={folder} accept=[data] once the row is mended")


def keep_best(run: Any) -> None:
    """At the end of a run: the weights and metrics of the evaluation that early stopping chose, where it does."""
    if run.ended and run.stopping.active:
        run.stopping.restore(run.trained)
        run.evaluated = (run.stopping.step, run.stopping.metrics)


def evaluation_row(step: int, found: dict[str, float], cost: Cost) -> dict[str, Any]:
    """A line of metrics.jsonl: the metrics, and what the run has cost up to there."""
    used = {f"cost/{unit}": amount for unit, amount in {"steps": step, **cost.used()}.items()}
    return {"step": step, **found, **used, "seconds": cost.seconds["total"]}


def named_terms(result: Any) -> tuple[Terms, Metrics]:
    """What `loss` returned: terms by name, and metrics as tensors. Raises UserError where it returned something else."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        kinds = ", ".join(type(part).__name__ for part in (result if isinstance(result, tuple) else [result]))
        raise UserError(f"`loss` returned {kinds}: return the loss and a dict of metrics, as in `return loss, {{}}`")
    terms, metrics = result
    terms = terms if isinstance(terms, dict) else {"loss": terms}
    wrong = {n: v for n, v in terms.items() if not isinstance(v, Tensor)}
    wrong |= {n: v for n, v in metrics.items() if not isinstance(v, Tensor | int | float)}
    for name, value in wrong.items():
        raise UserError(f"`loss` returned a {type(value).__name__} as {name!r}: return a tensor")
    return terms, {name: torch.as_tensor(value) for name, value in metrics.items()}


def default_weights(batch: Any) -> dict[str, Tensor]:
    """The weights of terms that declare none: "(B,)" and "(B, T)" hold those of these shapes."""
    return {"(B,)": batch.counted} | ({"(B, T)": batch.scored} if hasattr(batch, "scored") else {})


def weight_of(name: str, term: Tensor, weights: dict[str, Tensor], totals: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A term's weights and their total: those declared for it, else the default for its shape."""
    key = name if name in weights else ("(B,)" if term.dim() == 1 else "(B, T)")
    if term.dim() == 0:
        raise UserError(
            f"the term {name!r} is one number, a mean or sum: return one a record, (B,), or a token, (B, T), unreduced"
        )
    if key not in weights or weights[key].shape != term.shape:
        shape = tuple(weights[key].shape) if key in weights else "none"
        raise UserError(
            f"the term {name!r} has shape {tuple(term.shape)}, its weights {shape}: return one value a record, (B,), or a "
            "token, (B, T), or weights of the term's shape from `weights`"
        )
    return weights[key], totals[key]


def weighted_sum(term: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """sum(term * weight) / total; entries of weight 0 are not read; 0 where the total is 0."""
    summed = torch.where(weight > 0, term, 0) * weight
    return summed.sum() / torch.where(total > 0, total, 1)


def _is_measure(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.is_floating_point()


def _bad_rows(batch: Any, terms: Terms) -> list[int]:
    rows = getattr(batch, "row", None)
    bad = [~torch.isfinite(term).reshape(len(term), -1).all(1) for term in terms.values()]
    return [] if rows is None or not bad else rows[torch.stack(bad).any(0)].tolist()
