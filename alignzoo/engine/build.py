"""From the parts of a config to a trainer ready to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from alignzoo.batch import Completions, Prompts
from alignzoo.common.account import Account
from alignzoo.common.folder import CHECKPOINTS, TENSORBOARD
from alignzoo.common.noise import Noise
from alignzoo.contracts import (
    Algorithm,
    Context,
    Couples,
    Kind,
    LearningReward,
    OnlineAlgorithm,
    Reward,
    Role,
    Scores,
    Source,
    Tables,
    TrainerPlugin,
    learning,
)
from alignzoo.data.lazy import LazyTable, looked_at
from alignzoo.engine import budget, checks, hf_arguments, memory, precision
from alignzoo.engine.callbacks import Interrupt, Settings, Show
from alignzoo.engine.evaluate import Evaluator
from alignzoo.engine.loader import OfflineLoader, OnlineLoader, Order, Share
from alignzoo.engine.meters import Meter
from alignzoo.engine.reference_side import ReferenceSide, changes
from alignzoo.engine.reward_training import labelled
from alignzoo.engine.run_trainer import Followers, RunParts, RunTrainer
from alignzoo.engine.trainer import REWARD, AlignTrainer
from alignzoo.errors import UserError, first_line, nearest, tell
from alignzoo.making.labeller import check as check_making
from alignzoo.making.made import tables as made_tables
from alignzoo.models import modules
from alignzoo.models.forward.flat import unpadded
from alignzoo.models.networks import HeadedNetwork, Network, PolicyNetwork, Shared
from alignzoo.models.roles import RoleNetworks, Trained, main_role, together, watch_networks
from alignzoo.models.sampling.backends import ours
from alignzoo.models.scorer import ScorerNetwork, scorer
from alignzoo.models.tokenizers import RunTokenizer, padding
from alignzoo.models.vocabulary import decoder, ends, support
from alignzoo.rewards.checked import Checked
from alignzoo.settings import Made, Sampling, Training, Unit
from alignzoo.setup import RunConfig


class Builder:
    """Builds one run, step by step, cheap checks first: nothing large is loaded before what can be known to be wrong has
    been looked at.
    """

    def __init__(self, setup: RunConfig, folder: Path, cache: Path) -> None:
        self.setup, self.folder, self.cache = setup, folder, cache
        self.algorithm, self.source = setup.algorithm, setup.data
        self.learner = self.algorithm if isinstance(self.algorithm, Algorithm) else None  # none: it brings a trainer of its own
        declared = self.algorithm.roles()
        self.main = main_role([name for name, role in declared.items() if role.trained] or list(declared))
        self.reward = setup.reward.resolve(setup.data) if self.main == "policy" else None
        self.online = isinstance(self.algorithm, OnlineAlgorithm) or getattr(self.algorithm, "online", False)
        self.sampling = Sampling(**vars(setup.generation), samples=setup.rollout.samples)
        self.samplers = ours() | setup.samplers
        # who learns from prompts samples for itself, and needs nothing made
        self.makes = setup.making.kind is not Made.none and self.algorithm.data is not Prompts

    def trainer(self, interrupt: Interrupt, show: Callable[[int, dict[str, float]], None]) -> RunTrainer:
        setup = self.setup
        args = arguments(setup.training, self.folder, setup.seed, hosted=self.learner is None)
        share = Share(args.process_index, args.world_size)
        micro = self.check(share.ranks)
        if self.main == "policy":  # before data and models are loaded
            self.samplers[self.sampling.decoding].connect(self.sampling)
        context, config = self.context(args)
        view = learning(self.reward).view() if self.learner else None
        # first, since a source remembers what it was asked for last
        records = self.source.tables(view, context).train if view else None
        tables = self._tables(context, args)
        budget.check_data(setup, tables)
        args.max_steps = self._steps(tables)
        with args.main_process_first(local=False, desc="models"):
            models, trained, followers = self._models(context, config)
        # a task draws its records from the reference, which is made with the models
        if self.learner and (odd := self.learner.check_data(looked_at(tables.train), context)) and share.rank == 0:
            tell(odd)
        micro = self._that_fits(micro, tables, config, trained, args.device)
        args.gradient_accumulation_steps = setup.training.batch // share.ranks // micro
        context.models, context.records, cost, window = models, records, Account(), Meter()
        cost.begin("setup")
        scored = self._checked(self.reward, str(setup.choices["reward"]), context, tables, window)
        if scored:
            models.score = cost.timed("reward", scored)
            models.compare = cost.timed("reward", scored.preference) if scored.compares else None
        views = self._views(models)
        evaluator = self._evaluator(tables, context, models, share, views)
        if evaluator.gold and learning(self.reward).teaches():
            context.label = partial(labelled, evaluator.gold, cost, share.rank == 0)
        parts = RunParts(
            setup=setup, folder=self.folder, context=context, tables=tables, order=Order(tables.train, setup.seed),
            models=models, trained=trained, views=views, followers=followers, reward=self.reward, scored=scored,
            evaluator=evaluator, cost=cost, window=window,
        )  # fmt: skip
        trainer = self._trainer(parts, args, micro, interrupt, [Show(show), *self._trackers()])
        if trainer.inner.is_fsdp_enabled or trainer.inner.is_deepspeed_enabled:
            checks.refuse_sharded(setup.name, self.algorithm, setup.early_stop)
            models.shared.finished = together(models) if self.learner else None
        return trainer

    def _trainer(
        self, parts: RunParts, args: TrainingArguments, micro: int, interrupt: Interrupt, callbacks: list[TrainerCallback]
    ) -> RunTrainer:
        share = Share(args.process_index, args.world_size)
        trainer = AlignTrainer(parts, args, self._loader(parts, micro, share), micro, interrupt, callbacks)
        self._watch(parts)
        return trainer

    def _watch(self, parts: RunParts) -> None:
        watch_networks(parts.cost, parts.models, self.reward, self.setup.gold)

    def check(self, ranks: int) -> int:
        """The records of a micro-batch. Raises UserError for what is wrong, as far as it is known without data and models."""
        setup, name = self.setup, self.setup.name
        hf_arguments.check(setup.training, hosted=self.learner is None)
        checks.check_adapter(setup.reference, setup.peft)
        checks.check_main(name, self.main, setup.choices, labels=self.makes and setup.gold is None)
        if self.makes:
            check_making(setup, self.algorithm.data)
        checks.check_roles(name, self.algorithm, self.reward, setup.reference, self.source, setup.roles)
        checks.check_followers(name, self.algorithm.roles(), setup.reference, setup.peft.enabled)
        checks.check_lessons(setup.choices, self.algorithm, self.reward, setup.gold)
        checks.check_sampling(name, self.algorithm, setup.generation)
        if self.main == "policy":
            sampler = self.samplers[setup.generation.decoding]
            checks.check_decoding(name, self.algorithm, setup.generation, sampler)
        checks.check_early_stop(setup.early_stop, setup.training, setup.gold is not None)
        budget.check(setup)
        return self._micro_batch(ranks)

    def _micro_batch(self, ranks: int) -> int:
        assert self.learner
        return checks.check_sizes(self.learner, self.setup.training, self.setup.rollout, ranks)

    def _that_fits(self, micro: int, tables: Tables, config: PretrainedConfig, trained: Trained, device: torch.device) -> int:
        """`micro`, or with trainer.micro_batch=auto what memory holds of it, and is worth its memory."""
        if self.setup.training.micro_batch != "auto" or self.learner is None or self.learner.couples is Couples.MICROBATCH:
            return micro
        lengths = memory.lengths(tables.train, self.sampling.max_new_tokens)
        fits = memory.micro_batch(micro, max(lengths), config, trained, device)
        if self.online or device.type != "cpu":  # a rollout's prompt is encoded once for the samples that stay together
            return fits
        return memory.enough(fits, sum(lengths) / len(lengths), config, memory.bytes_of(trained))

    def context(self, args: TrainingArguments) -> tuple[Context, PretrainedConfig]:
        """What rewards, references and data are set up with, and the model's config."""
        tokenizer = self._tokenizer()
        config = modules.config(self.setup.model, tokenizer)
        length = modules.context_length(self.setup.model, config)
        context = Context(
            tokenizer=tokenizer, seed=self.setup.seed, sampling=self.sampling, context_length=length, cache=self.cache,
            device=args.device, folder=self.folder, encoder_decoder=config.is_encoder_decoder,
        )  # fmt: skip
        return context, config

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's, or the data's for a model that has none."""
        model, of_data = self.setup.model, self.source.tokenizer()
        if of_data is not None and (path := model.tokenizer or model.path):
            raise UserError(f"the data brings a tokenizer, and so does {path}: leave the data's out (data.vocabulary=0)")
        return of_data or modules.tokenizer(model)

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
        if not self.online or not isinstance(self.algorithm, OnlineAlgorithm | TrainerPlugin):
            return math.ceil(training.epochs * len(tables.train) / training.batch)
        rollouts = math.ceil(training.epochs * len(tables.train) / rollout.prompts)
        return rollouts * self.algorithm.passes() * math.ceil(rollout.prompts * rollout.samples / training.batch)

    def _checked(
        self, reward: Reward | None, name: str, context: Context, tables: Tables, window: Meter | None = None
    ) -> Checked | None:
        """A reward, set up, as it is asked; its parts of what is sampled to train on are logged in `window`."""
        if reward is None:
            return None

        def note(c: Completions, scores: Scores) -> None:
            for part, values in scores.parts.items():
                parts.add(f"reward/{part}", values, (scores.usable & ~values.isnan()).double())

        parts = Meter() if window is None else window
        reward.setup(context)
        return Checked(reward, name, context.shared, len(tables.train), self.setup.scoring, note)

    def _views(self, models: RoleNetworks) -> dict[str, RoleNetworks]:
        """What each learner may see, its own roles, with gradient only into those it trains; by the prefix of its terms."""
        learners: dict[str, Algorithm | LearningReward] = {"": self.learner} if self.learner else {}
        apart, learner = learning(self.reward).apart(), learning(self.reward)
        if self.learner and set(learner.roles()) - apart:
            learners[REWARD] = learner
        roles = {prefix: learner.roles() for prefix, learner in learners.items()}
        return {
            prefix: models.only(set(declared), {name for name, role in declared.items() if role.trained} - apart)
            for prefix, declared in roles.items()
        }

    def _evaluator(
        self, tables: Tables, context: Context, models: RoleNetworks, share: Share, views: Mapping[str, RoleNetworks]
    ) -> Evaluator:
        setup, sampling = self.setup, Sampling(**vars(self.setup.generation), samples=1)
        gold = self._checked(setup.gold, f"gold={setup.choices['gold']}", context, tables)
        demonstrations = None
        if self.main == "policy":
            reads = self.algorithm.data is Completions
            demonstrations = tables.heldout if reads else self.source.heldout_demonstrations(context)
        trained_policy = models.networks.get("policy")
        if self.learner and (seen := self.learner.evaluation(views[""])):
            models = RoleNetworks({**models.networks, **seen}, models.shared, models.sampling, models.score, models.compare)
        reference_side, judge = None, gold.reward if gold else self.reward
        # where there is a reference, what is written is text, and somebody judges it
        if judge and "reference" in models.networks and context.shared.support is None:
            reference_side = ReferenceSide("gold" if gold else "reward", gold or models.reward, changes(judge), sampling)
        return Evaluator(
            models=models, main=self.main, pairs=self._reads_pairs(), tables=tables, source=self.source, sampling=sampling,
            prompts=setup.training.eval_prompts, share=share, device=context.device, folder=self.folder,
            learner=None if self.online or self.learner is None else (self.learner, views[""]), metrics=setup.measures,
            gold=gold, demonstrations=demonstrations, reference_side=reference_side,
            trained_policy=trained_policy,
            best_of=0 if type(self.source).curves is not Source.curves else setup.training.reference_samples,
        )  # fmt: skip

    # --- networks ---

    def _models(self, context: Context, config: PretrainedConfig) -> tuple[RoleNetworks, Trained, Followers]:
        setup = self.setup
        writes, pad = self.main == "policy", padding(context.tokenizer)
        if not writes:  # whoever loads the scorer must pad as it was made to see
            context.tokenizer.pad_token_id = pad
        module = modules.policy(setup.model, config, setup.seed) if writes else self._scorer(config, pad)
        module = module.to(context.device)
        # offline algorithms learn from text that nobody sampled at the run's temperature
        temperature = (setup.generation.temperature or 1.0) if self.online else 1.0
        allowed = support(self.source, context, config.vocab_size)
        over = ends(context, module)
        shared = Shared(
            Noise(setup.seed), over, temperature, allowed, forward=setup.model.forward, samplers=self.samplers,
            tokenizer=RunTokenizer(context, frozenset(over)),
        )  # fmt: skip
        context.policy, context.shared = module, shared
        self._start(module, context, config)
        context.policy = module = modules.adapted(module, setup.peft, setup.seed)
        built: dict[str, Any] = {self.main: PolicyNetwork(module, shared) if writes else ScorerNetwork(module, shared)}
        reference = setup.reference.build(context) if writes else None
        if reference is not None:
            built["reference"] = reference
        roles = dict(self.algorithm.roles())
        for name, role in learning(self.reward).roles().items():
            if name not in roles or role.trained:  # a role that one of them trains is trained
                roles[name] = role
        last = {name for name, role in roles.items() if role.follows and role.follows.role != "policy"}
        for name, role in sorted(roles.items(), key=lambda item: item[0] in last):
            if name != self.main and role.start != "reference" and role.kind is not Kind.REWARD:
                built[name] = self._network(name, role, built, context)
        apart = learning(self.reward).apart()
        trained = {n: built[n].module for n in built if n == self.main or (n in roles and roles[n].trained and n not in apart)}
        if unknown := sorted(set(setup.training.role_learning_rates) - set(trained)):
            raise UserError(
                f"trainer.role_learning_rates names {', '.join(unknown)}, but the trained roles are {', '.join(trained)}"
            )
        followers = {n: (built[n].module, role.follows) for n, role in roles.items() if role.follows}
        precision.warn(Trained(trained), setup.training.learning_rate or 0)
        return RoleNetworks(built, shared, self.sampling), Trained(trained), followers

    def _scorer(self, config: PretrainedConfig, pad: int) -> nn.Module:
        return scorer(self.setup.model, config, pad, self.setup.seed, self._reads_pairs())

    def _reads_pairs(self) -> bool:
        return "comparisons" in self.algorithm.roles()[self.main].needs

    def _start(self, module: nn.Module, context: Context, config: PretrainedConfig) -> None:
        """The starting weights that the task brings, if it does; a scorer's trunk takes those of the policy it brings."""
        if self.main == "policy":
            self.source.start(module, context)
        elif type(self.source).start is not Source.start:
            context.policy = policy = modules.policy(self.setup.model, config, self.setup.seed).to(context.device)
            self.source.start(policy, context)
            assert isinstance(module, PreTrainedModel) and isinstance(policy, PreTrainedModel)
            module.base_model.load_state_dict(policy.base_model.state_dict())

    def _network(self, name: str, role: Role, built: Mapping[str, Network], context: Context) -> Network:
        path = self.setup.roles.get(name)
        if role.follows and role.follows.role != "policy" and not path:
            return modules.follower(built[role.follows.role], built[role.shares] if role.shares else None)
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
        start: nn.Module = built[role.shares].trunk if role.shares else context.policy
        module: Any = modules.role_module(name, role, start, path, self.setup.model, self.setup.seed).to(context.device)
        if role.kind is Kind.POLICY:
            return PolicyNetwork(module, context.shared, frozen=not role.trained)
        return HeadedNetwork(module, context.shared, not role.trained, trunk=start if role.shares else None)

    # --- the rest ---

    def _loader(self, parts: RunParts, micro: int, share: Share) -> OfflineLoader | OnlineLoader:
        order, training = parts.order, self.setup.training
        # sharing prompts keeps a group together instead; what reads its micro-batch as a whole gets the rows as they come
        assert self.learner
        cut = micro < training.batch // share.ranks and self.learner.couples is not Couples.MICROBATCH
        by_length = training.by_length and cut and not unpadded(parts.trained.main, self.setup.model.forward)
        if not isinstance(self.learner, OnlineAlgorithm):
            return OfflineLoader(order, training.batch, micro, share, by_length)
        return OnlineLoader(
            order, self.setup.rollout.prompts, training.batch, micro, self.learner.passes(), share, self.setup.seed,
            decoder(parts.context.tokenizer), by_length, self.setup.rollout.lag,
        )  # fmt: skip

    def _trackers(self) -> list[TrainerCallback]:
        """Tensorboard's is made here, so that its files are in the run's folder and not wherever the run was started."""
        if "tensorboard" not in self.setup.training.trackers:
            return [Settings(self.folder)] if self.setup.training.trackers else []
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(str(self.folder / TENSORBOARD))), Settings(self.folder)]


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
        options = TrainingArguments(**keywords(training, folder, seed))
        if options.device.type == "cpu":  # of several processes cpu:0, to which transformers 5.17 can't load an optimizer
            vars(options)["_setup_devices"] = torch.device("cpu")
        return options
    except (TypeError, ValueError, OSError, ImportError) as error:
        if not training.arguments:
            raise
        raise UserError(f"trainer.arguments={training.arguments}: {first_line(error)}") from error


def _check_trackers(trackers: Sequence[str]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    for name in trackers:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"trainer.trackers={list(trackers)}: no tracker {name!r}.{nearest(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise UserError(f"trainer.trackers={list(trackers)}: {name} is not installed: pip install {name}")
