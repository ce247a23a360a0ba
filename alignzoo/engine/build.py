"""From the parts of a config to a trainer ready to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from alignzoo.batch import Completions, Prompts
from alignzoo.common.folder import CHECKPOINTS, TENSORBOARD
from alignzoo.common.noise import Noise
from alignzoo.contracts import (
    Algorithm,
    Context,
    Couples,
    Kind,
    OnlineAlgorithm,
    Role,
    Scores,
    Source,
    Table,
    Tables,
    TrainerPlugin,
)
from alignzoo.data.lazy import LazyTable
from alignzoo.engine import beside, budget, checks, hf_arguments, memory, precision
from alignzoo.engine.callbacks import Flow, Interrupt, Settings, Show
from alignzoo.engine.cost import watch_networks
from alignzoo.engine.evaluate import Evaluator
from alignzoo.engine.lessons import Lessons, labelled
from alignzoo.engine.loader import OfflineLoader, OnlineLoader, Order, Share, bind
from alignzoo.engine.stopping import Stopping
from alignzoo.engine.trainer import AlignTrainer
from alignzoo.errors import UserError, nearest
from alignzoo.making.labeller import check as check_making
from alignzoo.making.made import tables as made_tables
from alignzoo.models import build as modules
from alignzoo.models.forward.flat import unpadded
from alignzoo.models.networks import HeadedNetwork, PolicyNetwork, Shared
from alignzoo.models.roles import Models, Trained, main_role, together
from alignzoo.models.sampling import vllm_loop
from alignzoo.models.scorer import ScorerNetwork, scorer
from alignzoo.models.tokenizers import padding
from alignzoo.models.vocabulary import decoder, ends, support
from alignzoo.rewards.checked import Checked, checked
from alignzoo.settings import Decoding, Made, Sampling, Training, Unit
from alignzoo.setup import RunConfig


class Builder:
    """Builds one run, step by step, cheap checks first: nothing large is loaded before what can be known to be wrong has
    been looked at.
    """

    def __init__(self, setup: RunConfig, folder: Path, cache: Path) -> None:
        self.setup, self.folder, self.cache = setup, folder, cache
        self.algorithm, self.source = setup.algorithm, setup.data
        declared = self.algorithm.roles()
        self.main = main_role([name for name, role in declared.items() if role.trained] or list(declared))
        self.reward = setup.reward.resolve(setup.data) if self.main == "policy" else None
        self.online = isinstance(self.algorithm, OnlineAlgorithm) or getattr(self.algorithm, "online", False)
        self.sampling = Sampling(**vars(setup.generation), samples=setup.rollout.samples)
        # who learns from prompts samples for itself, and needs nothing made
        self.makes = setup.making.kind is not Made.none and self.algorithm.data is not Prompts

    def trainer(self, interrupt: Interrupt, show: Callable[[int, dict[str, float]], None]) -> AlignTrainer:
        setup = self.setup
        args = arguments(setup.training, self.folder, setup.seed)
        share = Share(args.process_index, args.world_size)
        micro = self.check(share.ranks)
        self._connect()
        context, config = self.context(args)
        records = self._records(context)
        tables = self._tables(context, args)
        budget.check_data(setup, tables)
        args.max_steps = self._steps(tables)
        with args.main_process_first(local=False, desc="models"):
            models, trained, followers = self._models(context, config)
        micro = self._that_fits(micro, tables, config, trained, args.device)
        args.gradient_accumulation_steps = setup.training.batch // share.ranks // micro
        context.models = models
        if self.reward:
            context.records = records
            self.reward.setup(context)
        flow = Flow(setup.training, interrupt)
        trainer = AlignTrainer(
            trained=trained, args=args, algorithm=self.algorithm, models=models, reward=self.reward,
            learning_rates=self._learning_rates(trained), tokenizer=context.tokenizer, encoder=context.encoder,
            evaluator=self._evaluator(tables, context),
            folder=self.folder, training=setup.training, budget=setup.budget,
            callbacks=[flow, Show(show), *self._trackers()],
        )  # fmt: skip
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            checks.refuse_sharded(setup.early_stop)
            models.shared.finished = together(models)
        flow.trainer = trainer
        trainer.followers, trainer.stopping = followers, Stopping(setup.early_stop)
        trainer.loader = self._loader(tables, trainer, micro, share)
        if self.reward:
            self._connect_reward(trainer, context, micro)
        watch_networks(trainer.cost, models, self.reward, self.setup.gold)
        trainer.tables, trainer.tables_report = tables, tables.report
        return trainer

    def check(self, ranks: int) -> int:
        """The records of a micro-batch. Raises UserError for what is wrong, as far as it is known without data and models."""
        setup, name = self.setup, self.setup.name
        hf_arguments.check(setup.training, isinstance(self.algorithm, TrainerPlugin))
        checks.check_adapter(setup.reference, setup.peft)
        checks.check_main(name, self.main, setup.choices, labels=self.makes and setup.gold is None)
        if self.makes:
            check_making(setup, self.algorithm.data)
        checks.check_roles(name, self.algorithm, self.reward, setup.reference, self.source, setup.roles)
        checks.check_lessons(setup.choices, self.algorithm, self.reward, setup.gold)
        checks.check_sampling(name, self.algorithm, setup.generation)
        if self.main == "policy":
            checks.check_decoding(name, self.algorithm, setup.generation)
        checks.check_early_stop(setup.early_stop, setup.training, setup.gold is not None)
        budget.check(setup)
        return self._micro_batch(ranks)

    def _connect(self) -> None:
        """Find the server that samples, before data and models are loaded. Raises UserError where it doesn't answer."""
        if self.main == "policy" and self.sampling.decoding is Decoding.vllm:
            vllm_loop.connected(self.sampling.server)

    def _micro_batch(self, ranks: int) -> int:
        return checks.check_sizes(self.algorithm, self.setup.training, self.setup.rollout, ranks)

    def _that_fits(self, micro: int, tables: Tables, config: Any, trained: Trained, device: torch.device) -> int:
        """`micro`, or with trainer.micro_batch=auto what memory holds of it, and is worth its memory."""
        if self.setup.training.micro_batch != "auto" or self.algorithm.couples is Couples.MICROBATCH:
            return micro
        lengths = memory.lengths(tables.train, self.sampling.max_new_tokens)
        fits = memory.micro_batch(micro, max(lengths), config, trained, device)
        if self.online or device.type != "cpu":  # a rollout's prompt is encoded once for the samples that stay together
            return fits
        return memory.enough(fits, sum(lengths) / len(lengths), config, memory.bytes_of(trained))

    def context(self, args: TrainingArguments) -> tuple[Context, Any]:
        """What rewards, references and data are set up with, and the model's config."""
        tokenizer = self._tokenizer()
        config = modules.config(self.setup.model, tokenizer)
        length = modules.context_length(self.setup.model, config)
        context = Context(
            tokenizer=tokenizer, seed=self.setup.seed, sampling=self.sampling, context_length=length, cache=self.cache,
            device=args.device, folder=self.folder, encoder_decoder=config.is_encoder_decoder,
        )  # fmt: skip
        return context, config

    def _tokenizer(self) -> Any:
        """The model's, or the data's for a model that has none."""
        model, own = self.setup.model, self.source.tokenizer()
        given = model.tokenizer or model.path
        if own is not None and given:
            raise UserError(f"the data brings a tokenizer, and so does {given}: leave the data's out (data.vocabulary=0)")
        return own or modules.tokenizer(model)

    def _tables(self, context: Context, args: TrainingArguments) -> Tables:
        """The data in the algorithm's view: as it comes, or made, which the first rank does for all."""
        view = self.algorithm.data
        if not self.makes:
            return self.source.tables(view, context)
        with args.main_process_first(local=False, desc="data"):
            return made_tables(self.setup, self.source, view, context)

    def _steps(self, tables: Tables) -> int:
        """Optimizer steps: what the budget allows, or as asked, else what the epochs take."""
        training, rollout = self.setup.training, self.setup.rollout
        if self.setup.budget.unit is not Unit.none:
            return budget.steps(self.setup, tables)
        if training.max_steps:
            return int(training.max_steps)
        if isinstance(tables.train, LazyTable) and tables.train.rows.endless:
            raise UserError("data.streaming=true has no end, and so no epochs: give trainer.max_steps, or a budget")
        if not self.online:
            return math.ceil(training.epochs * len(tables.train) / training.batch)
        rollouts = math.ceil(training.epochs * len(tables.train) / rollout.prompts)
        return rollouts * self.algorithm.passes() * math.ceil(rollout.prompts * rollout.samples / training.batch)

    def _evaluator(self, tables: Tables, context: Context) -> Evaluator:
        setup, sampling = self.setup, Sampling(**vars(self.setup.generation), samples=1)
        records = isinstance(self.algorithm, Algorithm) and not self.online
        best_of = 0 if type(self.source).curves is not Source.curves else setup.training.reference_samples
        gold = self._gold(tables, context)
        return Evaluator(
            tables, self.source, sampling, setup.training.eval_prompts, not records, setup.measures, gold,
            self._demonstrations(tables, context), self._beside(gold, context, sampling), best_of,
        )  # fmt: skip

    def _demonstrations(self, tables: Tables, context: Context) -> Table | None:
        if self.main != "policy":
            return None
        return tables.heldout if self.algorithm.data is Completions else self.source.heldout_demonstrations(context)

    def _beside(self, gold: Checked | None, context: Context, sampling: Sampling) -> beside.Beside | None:
        """The reference's side of an evaluation of text, where there is one, and somebody to judge it."""
        models: Any = context.models
        if context.shared.support is not None or "reference" not in models.networks:
            return None
        if gold:
            return beside.Beside("gold", gold, beside.changes(gold.reward), sampling)
        return beside.Beside("reward", models.reward, beside.changes(self.reward), sampling) if self.reward else None

    def _gold(self, tables: Tables, context: Context) -> Checked | None:
        """The judge, as evaluation asks it."""
        if self.setup.gold is None:
            return None
        self.setup.gold.setup(context)
        name, rows = f"gold={self.setup.choices['gold']}", len(tables.train)
        return checked(self.setup.gold, name, context.shared, rows, lambda completions, scores: None, self.setup.scoring)

    # --- networks ---

    def _models(self, context: Context, config: Any) -> tuple[Models, Trained, dict[str, Any]]:
        setup = self.setup
        writes, pad = self.main == "policy", padding(context.tokenizer)
        if not writes:  # whoever loads the scorer must pad as it was made to see
            context.tokenizer.pad_token_id = pad
        made = modules.policy(setup.model, config, setup.seed) if writes else scorer(setup.model, config, pad, setup.seed)
        module = made.to(context.device)
        shared = Shared(
            Noise(setup.seed),
            ends(context, module),
            self._temperature(),
            support(self.source, context, config.vocab_size),
            forward=setup.model.forward,
        )
        context.policy, context.shared = module, shared
        self._start(module, context, config)
        context.policy = module = modules.adapted(module, setup.peft, setup.seed)
        built: dict[str, Any] = {self.main: PolicyNetwork(module, shared) if writes else ScorerNetwork(module, shared)}
        reference = setup.reference.build(context) if writes else None
        if reference is not None:
            built["reference"] = reference
        roles = dict(self.algorithm.roles())
        for name, role in (self.reward.roles() if self.reward else {}).items():
            if name not in roles or role.trained:  # a role that one of them trains is trained
                roles[name] = role
        for name, role in roles.items():
            if name != self.main and role.start != "reference" and role.kind is not Kind.REWARD:
                built[name] = self._network(name, role, built, context)
        apart = self.reward.apart() if self.reward else frozenset()
        trained = {n: built[n].module for n in built if n == self.main or (n in roles and roles[n].trained and n not in apart)}
        followers = {n: (built[n].module, role.follows) for n, role in roles.items() if role.follows}
        precision.warn(Trained(trained), setup.training.learning_rate or 0)
        return Models(built, shared, self.sampling), Trained(trained), followers

    def _start(self, module: Any, context: Context, config: Any) -> None:
        """The starting weights that the task brings, if it does; a scorer's trunk takes those of the policy it brings."""
        if self.main == "policy":
            self.source.start(module, context)
        elif type(self.source).start is not Source.start:
            policy: Any = modules.policy(self.setup.model, config, self.setup.seed).to(context.device)
            context.policy = policy
            self.source.start(policy, context)
            module.base_model.load_state_dict(policy.base_model.state_dict())

    def _network(self, name: str, role: Role, built: Mapping[str, Any], context: Context) -> Any:
        path = self.setup.roles.get(name)
        if role.start == "config" and not path:
            return self.source.network(name, context)
        if role.start == "reward" and not path:
            path = self.reward.model_path() if self.reward else None
            if not path:
                raise UserError(f"the role {name} starts from the reward model: choose reward=model, or give roles.{name}=PATH")
        if path:
            key = "reward.path" if role.start == "reward" and not self.setup.roles.get(name) else f"roles.{name}"
            width, compared = context.policy.config.vocab_size, "tokens" in role.needs
            modules.check_vocabulary(key, path, context.tokenizer, width, self.setup.model, compared)
        start: nn.Module = built[role.shares].module if role.shares else context.policy
        module: Any = modules.role_module(name, role, start, path, self.setup.model).to(context.device)
        if role.kind is Kind.POLICY:
            return PolicyNetwork(module, context.shared, frozen=not role.trained)
        return HeadedNetwork(module, context.shared, not role.trained, trunk=start if role.shares else None)

    def _temperature(self) -> float:
        """Offline algorithms learn from text that nobody sampled at the run's temperature."""
        return (self.setup.generation.temperature or 1.0) if self.online else 1.0

    # --- the rest ---

    def _loader(self, tables: Tables, trainer: AlignTrainer, micro: int, share: Share) -> OfflineLoader | OnlineLoader:
        order, training = Order(tables.train, self.setup.seed), self.setup.training
        # sharing prompts keeps a group together instead; what reads its micro-batch as a whole gets the rows as they come
        cut = micro < training.batch // share.ranks and self.algorithm.couples is not Couples.MICROBATCH
        by_length = training.by_length and cut and not unpadded(trainer.trained.main, self.setup.model.forward)
        if not self.online:
            return OfflineLoader(order, training.batch, micro, share, by_length)
        decode = decoder(trainer.tokenizer)
        return OnlineLoader(
            order, self.setup.rollout.prompts, training.batch, micro, self.algorithm.passes(), share, self.setup.seed,
            sample=trainer.sample, after=trainer.rollout_done, rebind=lambda batch: bind(batch, decode),
            by_length=by_length,
        )  # fmt: skip

    def _records(self, context: Context) -> Table | None:
        """The data as the reward learns from it: read first, since a source remembers what it was asked for last."""
        view = self.reward.view() if self.reward else None
        return self.source.tables(view, context).train if view else None

    def _connect_reward(self, trainer: AlignTrainer, context: Context, micro: int) -> None:
        def note(c: Completions, scores: Scores) -> None:
            for name, part in scores.parts.items():
                trainer.window.add(f"reward/{name}", part, scores.usable.double())

        assert self.reward is not None
        rows = len(trainer.loader.order.table)
        trainer.scored = checked(
            self.reward, str(self.setup.choices["reward"]), trainer.roles.shared, rows, note, self.setup.scoring
        )
        trainer.roles.score = trainer.cost.timed("reward", trainer.scored)
        trainer.views = trainer.make_views()
        if self.reward.teaches():
            context.label = partial(labelled, trainer)
            modules = {name: trainer.roles.networks[name].module for name in sorted(self.reward.apart())}
            trainer.lessons = Lessons(self.reward, {**modules, **self.reward.networks()}, trainer, micro)

    def _trackers(self) -> list[TrainerCallback]:
        """Tensorboard's is made here, so that its files are in the run's folder and not wherever the run was started."""
        if "tensorboard" not in self.setup.training.trackers:
            return [Settings(self.folder)] if self.setup.training.trackers else []
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(str(self.folder / TENSORBOARD))), Settings(self.folder)]

    def _learning_rates(self, trained: Trained) -> dict[str, float]:
        rates = dict(self.setup.training.role_learning_rates)
        unknown = sorted(set(rates) - set(trained.roles))
        if unknown:
            raise UserError(
                f"trainer.role_learning_rates names {', '.join(unknown)}, but the trained roles are {', '.join(trained.roles)}"
            )
        return rates


def keywords(training: Training, folder: Path, seed: int) -> dict[str, Any]:
    """The Trainer's own settings. Logging, evaluation and saving are steered by `Flow`, so its strategies are off."""
    fixed: dict[str, Any] = {
        "output_dir": str(folder / CHECKPOINTS), "seed": seed, "max_steps": max(training.max_steps, 1),
        "learning_rate": training.learning_rate, "optim": training.optimizer.value,
        "lr_scheduler_type": training.schedule.value, "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay, "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2, "max_grad_norm": training.max_grad_norm, "bf16": training.bf16,
        "report_to": [name for name in training.trackers if name != "tensorboard"] or "none",
        "use_cpu": not torch.cuda.is_available(), "logging_strategy": "no",
        "eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "logging_nan_inf_filter": False,
        "ignore_data_skip": True, "remove_unused_columns": False, "log_level": "error",
    }  # fmt: skip
    return fixed | training.arguments


def arguments(training: Training, folder: Path, seed: int, hosted: bool = False) -> TrainingArguments:
    """The Trainer's arguments. Raises UserError for what does nothing, what it refuses, and trackers that aren't there."""
    hf_arguments.check(training, hosted)
    _check_trackers(training.trackers)
    try:
        return TrainingArguments(**keywords(training, folder, seed))
    except (TypeError, ValueError, OSError, ImportError) as error:
        if not training.arguments:
            raise
        raise UserError(f"trainer.arguments={training.arguments}: {str(error).strip().splitlines()[0]}") from error


def _check_trackers(trackers: Sequence[str]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    for name in trackers:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"trainer.trackers={list(trackers)}: no tracker {name!r}.{nearest(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise UserError(f"trainer.trackers={list(trackers)}: {name} is not installed: pip install {name}")
