"""Who writes: the model that training starts from, or another, with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise
from alignzoo.contracts import Context, Source
from alignzoo.errors import UserError
from alignzoo.models import modules
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

    def origins(self) -> dict[str, object]:
        """All that says which tokens it writes after a prompt, but for the sampling settings and the seed."""
        module, shared = self.network.module, self.network.shared
        tokens = None if shared.support is None else shared.support.nonzero()[:, 0].tolist()
        return {
            "weights": weights(module), "network": computation(module), "forward": shared.forward.value,
            "ends": sorted(shared.ends), "support": tokens,
        }  # fmt: skip


def writer(setup: RunConfig, source: Source, context: Context) -> Writer:
    """Raises UserError where the model is none that writes."""
    making, model, vocabulary = setup.making, setup.model, context.tokenizer.get_vocab()
    sampling = replace(context.sampling.in_process(), samples=making.samples)  # one rank makes for all, the same everywhere
    if making.model:
        model = replace(model, path=making.model, config={}, tokenizer=None, context_length=None)
        context = replace(context, tokenizer=modules.tokenizer(model))
    config = modules.config(model, context.tokenizer)
    kinds = getattr(config, "architectures", None) or []
    if any(kind.endswith(SCORERS) for kind in kinds):
        setting = f"making.model={making.model}" if making.model else f"model.path={model.path}"
        raise UserError(f"{setting} is a {kinds[0]}, which can't write: give making.model=PATH of a language model")
    context = replace(context, sampling=sampling, context_length=modules.context_length(model, config))
    module = modules.policy(model, config, setup.seed).to(context.device)
    tokens = support(source, context, config.vocab_size)
    shared = Shared(Noise(making.seed), ends(context, module), sampling.temperature or 1.0, tokens, forward=model.forward)
    context.policy, context.shared = module, shared
    if not making.model and type(source).start is not Source.start:
        # the starting weights that the task brings, of prompts that it makes in its tables
        source.tables(Prompts, context)
        with torch.enable_grad():
            source.start(module, context)
    own_tokens = context.tokenizer.get_vocab() != vocabulary
    return Writer(PolicyNetwork(module, shared, frozen=True), sampling, context, own_tokens)
