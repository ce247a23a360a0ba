"""Who writes: the model that training starts from, or another, with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise
from alignzoo.contracts import Context, Source
from alignzoo.errors import UserError
from alignzoo.models import build
from alignzoo.models.computation import computation, weights
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.vocabulary import ends, support
from alignzoo.settings import Sampling
from alignzoo.setup import RunConfig

SCORERS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


@dataclass
class Writer:
    """A language model at the run's sampling settings. `context` is the run's, with the writer's own tokenizer and length."""

    network: PolicyNetwork
    sampling: Sampling
    context: Context
    own_tokens: bool  # whether the model that is trained has another vocabulary

    def write(self, prompts: Prompts, purpose: str) -> Completions:
        """Completions that depend on each prompt's `row` alone, not on how many are asked for at once."""
        with self.network.shared.noise.during(purpose, 0), torch.no_grad():
            return self.network.generate(prompts.to(self.context.device), self.sampling)

    def origins(self) -> dict[str, Any]:
        """All that says which tokens it writes after a prompt, but for the sampling settings and the seed."""
        module, shared = self.network.module, self.network.shared
        kept = None if shared.support is None else shared.support.nonzero()[:, 0].tolist()
        return {
            "weights": weights(module), "network": computation(module), "forward": shared.forward.value,
            "ends": sorted(shared.ends), "support": kept,
        }  # fmt: skip


def writer(setup: RunConfig, source: Source, context: Context) -> Writer:
    """Raises UserError where the model is none that writes."""
    making, model = setup.making, setup.model
    sampling = replace(context.sampling.in_process(), samples=making.samples)  # one rank makes for all, the same everywhere
    tokenizer = context.tokenizer
    if making.model:
        model = replace(model, path=making.model, config={}, tokenizer=None, context_length=None)
        tokenizer = build.tokenizer(model)
    made = build.config(model, tokenizer)
    _check(made, f"making.model={making.model}" if making.model else f"model.path={model.path}")
    length = build.context_length(model, made)
    own = replace(context, tokenizer=tokenizer, sampling=sampling, context_length=length)
    module = build.policy(model, made, setup.seed).to(context.device)
    shared = Shared(
        Noise(making.seed), ends(own, module), sampling.temperature or 1.0, support(source, own, made.vocab_size),
        forward=model.forward,
    )  # fmt: skip
    own.policy, own.shared = module, shared
    if not making.model:
        _start(source, module, own)
    other = tokenizer.get_vocab() != context.tokenizer.get_vocab()
    return Writer(PolicyNetwork(module, shared, frozen=True), sampling, own, own_tokens=other)


def _start(source: Source, module: nn.Module, context: Context) -> None:
    """The starting weights that the task brings, if it does: of prompts that it makes in its tables."""
    if type(source).start is not Source.start:
        source.tables(Prompts, context)
        with torch.enable_grad():
            source.start(module, context)


def _check(made: Any, given: str) -> None:
    kinds = getattr(made, "architectures", None) or []
    if any(kind.endswith(SCORERS) for kind in kinds):
        raise UserError(f"{given} is a {kinds[0]}, which can't write: give making.model=PATH of a language model")
