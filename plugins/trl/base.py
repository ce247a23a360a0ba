"""What hosting one of TRL's trainers takes, whichever it is."""

from __future__ import annotations

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import metadata
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from alignzoo.contracts import Hosting, TrainerPlugin, UserError

from .rows import Row, dataset

# The TRL that was read for this; with an older transformers its trainers sum the gradients of micro-batches, not average them.
LEAST = {"trl": (1, 16), "transformers": (5, 19)}
OUTSIDE = -1e4  # the logit of a token outside the support: its probability is 0 in every precision, and 0 times it is 0


@dataclasses.dataclass(kw_only=True)
class Hosted(TrainerPlugin):
    """One of TRL's trainers: a subclass says which (`trainer`), and what its config is beside what all share (`options`)."""

    trainer: ClassVar[str]  # its name in `trl`; that of its config is the same with Config for Trainer
    renamed: ClassVar[Mapping[str, str | None]] = {
        "num_tokens": None, "epoch": None, "step_time": None, "logits/chosen": None, "logits/rejected": None,
        "rewards/accuracies": "rewards/accuracy", "rewards/margins": "rewards/margin",
    }  # fmt: skip

    @abstractmethod
    def options(self, hosting: Hosting) -> dict[str, Any]:
        """Keywords of the trainer's config."""

    @abstractmethod
    def make(self, trainer: type, config: Any, hosting: Hosting) -> Any:
        """The trainer, given its class and its config."""

    def check(self, settings: Any, ranks: int) -> None:
        name = settings.choices["algorithm"]
        check_versions(name)
        if ranks > 1:
            raise UserError(f"{name} runs in one process, not in {ranks}: TRL would deal out other rows to each of them")
        if settings.peft.enabled:
            raise UserError(f"{name} takes no adapter: choose peft=none, or train with our own {name.removeprefix('trl_')}")
        if settings.training.role_learning_rates:
            raise UserError(f"{name} has one learning rate: leave trainer.role_learning_rates out")

    def build(self, hosting: Hosting) -> Any:
        if getattr(hosting.policy.config, "is_encoder_decoder", False):
            raise UserError(f"{hosting.settings.choices['algorithm']} trains decoders, and this model is an encoder-decoder")
        confined = [] if hosting.support is None else [confine(m, hosting.support) for m in hosting.modules.values()]
        for role in ("policy", "reference"):
            if role in hosting.modules:
                hosting.modules[role].register_forward_hook(_head(hosting), with_kwargs=True)
        import trl

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TRL uses what transformers has renamed
            trainer = _quiet(getattr(trl, self.trainer), confined)
            return self.make(trainer, self._config(trl, hosting), hosting)

    def _config(self, trl: Any, hosting: Hosting) -> Any:
        kind = getattr(trl, self.trainer.removesuffix("Trainer") + "Config")
        model = hosting.settings.model
        # what Trainer has under the same name in both is given by `arguments`; the rest are TRL's own defaults undone
        ours = {"gradient_checkpointing": model.gradient_checkpointing, "disable_dropout": False}
        names = {field.name for field in dataclasses.fields(kind)}
        options = hosting.arguments | {name: value for name, value in ours.items() if name in names} | self.options(hosting)
        if missing := sorted(set(options) - names):
            raise UserError(f"TRL {metadata.version('trl')} has no {kind.__name__}.{missing[0]}: pip install trl==1.16")
        return kind(**options)


@dataclasses.dataclass(kw_only=True)
class Reading(Hosted):
    """A trainer that learns from the data: a subclass says how it wants the records (`columns`). The reference is given where
    its roles have one."""

    @abstractmethod
    def columns(self, records: Any) -> list[Row]:
        """Records of `data` as the trainer's rows."""

    def make(self, trainer: type, config: Any, hosting: Hosting) -> Any:
        """Reads the training records in the order in which our own loader has them, one item each."""
        count = hosting.arguments["max_steps"] * hosting.settings.training.batch
        reference = {"ref_model": hosting.modules["reference"]} if "reference" in self.roles() else {}
        return in_order(trainer)(
            hosting.policy, args=config, train_dataset=dataset(hosting.records, count, self.columns),
            processing_class=hosting.tokenizer, **reference,
        )  # fmt: skip


def confine(module: Any, support: Tensor) -> Callable[[], None]:
    """Give the output embedding a bias that no token outside the support survives, in training as in sampling; returns what
    takes it away. It is no weight: nothing saves or trains it. Raises UserError where the embedding has a bias already.
    """
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    if head is None:
        return lambda: None
    if head.bias is not None:
        raise UserError("this task confines completions to few tokens, which needs an output embedding without bias")
    bias = torch.where(support, 0.0, OUTSIDE).to(head.weight)
    del head._parameters["bias"]
    head.register_buffer("bias", bias, persistent=False)

    def release() -> None:
        head._buffers.pop("bias", None)
        head.register_parameter("bias", None)

    return release


def _head(hosting: Hosting) -> Callable[..., None]:
    """A hook that tells the account of the head's product, which TRL makes outside of the network's own forward."""

    def report(module: nn.Module, inputs: Any, keywords: dict[str, Any], output: Any) -> None:
        if keywords.get("fused_lm_head"):
            hosting.multiplied(module, output.log_probs, output.label_mask.numel())

    return report


def _quiet(trainer: Any, afterwards: list[Callable[[], None]]) -> Any:
    """The trainer without telemetry, model cards and renamed names, taking rows as they are."""

    def nothing(self: Any, *arguments: Any, **keywords: Any) -> None:
        pass

    def as_it_is(self: Any, dataset: Any, *arguments: Any, **keywords: Any) -> Any:
        return dataset

    def train(self: Any, *arguments: Any, **keywords: Any) -> Any:
        with ExitStack() as stack:
            for release in afterwards:
                stack.callback(release)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", FutureWarning)
            return trainer.train(self, *arguments, **keywords)

    methods = {"_send_telemetry": nothing, "create_model_card": nothing, "_prepare_dataset": as_it_is, "train": train}
    return type(trainer.__name__, (trainer,), methods)


def in_order(trainer: type) -> type:
    """The trainer, reading rows in the order in which they stand."""

    def sampler(self: Any, dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    return type(trainer.__name__, (trainer,), {"_get_train_sampler": sampler})


def check_versions(name: str) -> None:
    """Raises UserError where what is installed is too old to be hosted under this name."""
    for package, least in LEAST.items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise UserError(f"{name} hosts TRL, which is not installed: pip install trl") from error
        if tuple(int(part) for part in installed.split(".")[:2] if part.isdigit()) < least:
            wanted = ".".join(map(str, least))
            raise UserError(f"{name} needs {package} {wanted} or later, and {installed} is installed: pip install -U {package}")
