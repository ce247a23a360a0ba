"""Self-distillation from a teacher that is shown the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import EMA, Context, Kind, Models, OnlineAlgorithm, Role, Search, UserError, require
from alignzoo.functional import forward_kl, generalised_jsd, reverse_kl


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown(Completions):
    privileged: Completions  # the same completions, after the prompts that the teacher is given


@dataclass(kw_only=True)
class SelfDistill(OnlineAlgorithm):
    """L = E_(y ~ Q(. | x)) mean_t D(P(. | x, y*, x, y_<t), Q(. | x, y_<t)), P the policy's own earlier weights.

    Shenfeld et al. 2026, Self-distillation enables continual learning (SDFT): in context the demonstration y* of x makes the
    model its own teacher. No gradient flows through sampling.
    """

    data = Completions
    published_rate = 2e-5  # that of `sft`, whose data it learns from
    needs_logprobs_of_samples = False

    beta: float = field(
        default=0.5,
        metadata={"help": "of the Jensen-Shannon divergence; 0: forward, 1: reverse KL", "search": Search(0.0, 1.0)},
    )
    decay: float = field(
        default=1.0,
        metadata={
            "help": "weight of the past in the teacher's weights, an average of the policy's; 1: as the policy starts",
            "search": Search(options=(0.95, 0.99, 1.0)),
        },
    )

    def __post_init__(self) -> None:
        for name in ("beta", "decay"):
            require(0 <= getattr(self, name) <= 1, f"algorithm.{name}", getattr(self, name), "in [0, 1]")

    def roles(self) -> Mapping[str, Role]:
        tokens = frozenset({"tokens"})
        teacher = Role(kind=Kind.POLICY, needs=tokens, follows=None if self.decay == 1 else EMA(self.decay))
        return {"policy": Role(kind=Kind.POLICY, trained=True, needs=tokens | {"generate"}), "teacher": teacher}

    def check_data(self, batches: Iterable[Completions], context: Context) -> str:
        room = context.context_length - context.sampling.max_new_tokens
        for batch in batches:
            size = (2 * batch.prompts.attended.sum(1))[batch.prompt_of] + batch.attended.sum(1)
            if (longest := int(size.max())) > room:
                raise UserError(
                    f"training record {int(batch.row[size.argmax()])}: the teacher is given prompt, demonstration and prompt "
                    f"again, {longest} tokens, and of the context generation.max_new_tokens leaves {room}:\ncut them with "
                    "data.max_prompt_tokens and data.max_completion_tokens, or choose a longer model.context_length"
                )
        return ""

    def experience(self, models: Models, batch: Completions) -> Shown:
        batch = batch.draws()
        c = models.policy.generate(batch.prompts, models.sampling)
        return Shown(**vars(c), privileged=replace(c, prompts=shown(batch), logprobs=None))

    def loss(self, models: Models, batch: Shown) -> tuple[Tensor, dict[str, Tensor]]:
        return models.policy.tokens(batch, self.distance, beside=[(models.teacher, batch.privileged)]), {}

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (n, V) -> (n,)."""
        if self.beta in (0, 1):
            return (reverse_kl if self.beta else forward_kl)(student, teacher)
        return generalised_jsd(student, teacher, self.beta)


def shown(demonstrations: Completions) -> Prompts:
    """Of each demonstration the prompt, the demonstration, and the prompt again."""
    prompts = demonstrations.prompts
    asked = [ids[mask] for ids, mask in zip(prompts.ids, prompts.attended, strict=True)]
    answers = [ids[mask] for ids, mask in zip(demonstrations.ids, demonstrations.attended, strict=True)]
    parts = zip([asked[p] for p in demonstrations.prompt_of.tolist()], answers, strict=True)
    texts = [torch.cat([prompt, answer, prompt]) for prompt, answer in parts]
    ids = pad_sequence(texts, True, padding_side="left")
    attended = pad_sequence([torch.ones_like(text) for text in texts], True, padding_side="left").bool()
    return Prompts(ids=ids, attended=attended, row=demonstrations.row, decode=prompts.decode)
