"""TRL's DistillationTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from alignzoo.contracts import Hosting, Kind, Role, Search, UserError, require

from .base import OUTSIDE
from .sampled import Prompter, Sampled

WIDEST = 4096  # tokens, of a teacher that has no network: its head is a square of this size


class Divergence(Enum):
    jsd = "jsd"  # generalised Jensen-Shannon
    forward_kl = "forward_kl"  # KL(teacher || student)
    reverse_kl = "reverse_kl"  # KL(student || teacher)


LIMITS = {Divergence.forward_kl: 0.0, Divergence.reverse_kl: 1.0}  # of TRL's beta


@dataclass(kw_only=True)
class TRLDistillation(Sampled):
    """TRL's DistillationTrainer: the mathematics of `distill` with lam=1 and temperature=1."""

    trainer = "DistillationTrainer"
    published_rate = 5e-6
    renamed: ClassVar[Mapping[str, str | None]] = {
        **Sampled.renamed, "completions/mean_length": "length", "completions/clipped_ratio": "truncated",
    }  # fmt: skip

    divergence: Divergence = field(default=Divergence.jsd, metadata={"help": "distance between the token distributions"})
    beta: float = field(
        default=0.5, metadata={"help": "of the JSD: near 0 like forward, near 1 like reverse KL", "search": Search(0.1, 0.9)}
    )

    def __post_init__(self) -> None:
        require(
            0 < self.beta < 1, "algorithm.beta", self.beta, "in (0, 1); its limits are divergence=forward_kl and reverse_kl"
        )
        jsd = self.divergence is Divergence.jsd
        require(jsd or self.beta == 0.5, "algorithm.beta", self.beta, "left at 0.5 unless algorithm.divergence=jsd")

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"tokens", "generate"}))
        return {"policy": policy, "teacher": Role(kind=Kind.POLICY, needs=frozenset({"tokens"}), start="config")}

    def check(self, settings: Any, ranks: int) -> None:
        super().check(settings, ranks)
        rollout, training = settings.rollout, settings.training
        if rollout.prompts * rollout.samples != training.batch:
            raise UserError(
                f"{settings.choices['algorithm']} learns from a rollout in one step: set trainer.batch="
                f"{rollout.prompts * rollout.samples} (rollout.prompts times rollout.samples)"
            )

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return self.generation(hosting) | {"beta": LIMITS.get(self.divergence, self.beta)}

    def make(self, trainer: type, config: Any, hosting: Hosting) -> Any:
        prompter, teacher = Prompter(hosting), hosting.modules["teacher"]
        if not hasattr(teacher, "get_output_embeddings"):
            teacher = Teacher(teacher, hosting.policy.config)
        data = prompter.dataset(hosting.arguments["max_steps"], hosting.settings.rollout.samples)
        return _counted(prompter.prompted(trainer), hosting)(
            hosting.policy, teacher_model=teacher, args=config, train_dataset=data, processing_class=hosting.tokenizer
        )


def _counted(trainer: Any, hosting: Hosting) -> Any:
    """The trainer, telling the account of the heads' products, which it makes by itself."""

    def compute(self: Any, student: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        losses = trainer._compute_loss(self, student, inputs, *arguments, **keywords)
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        for network in [student] if isinstance(teacher, Teacher) else [student, teacher]:
            hosting.multiplied(network, losses[0], inputs["completion_mask"].sum().item())
        return losses

    return type(trainer.__name__, (trainer,), {"_compute_loss": compute})


class Teacher(nn.Module):
    """A module with logits, shown as a network whose last hidden states are its logits and whose head is the identity."""

    def __init__(self, module: nn.Module, config: Any) -> None:
        super().__init__()
        width = int(config.vocab_size)
        if width > WIDEST:
            raise UserError(f"this teacher has no network, which TRL wants above {WIDEST} tokens, and there are {width}")
        self.config, self.base_model = config, Trunk(module)
        self.head = nn.Linear(width, width, bias=False).requires_grad_(False).to(next(module.parameters()).device)
        nn.init.eye_(self.head.weight)

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(self, **inputs: Any) -> Any:
        return self.base_model(**inputs)


class Trunk(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.base_model = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **ignored: Any) -> Any:
        logits = self.base_model(input_ids=input_ids, attention_mask=attention_mask).logits
        return SimpleNamespace(last_hidden_state=torch.clamp(logits, min=OUTSIDE))
