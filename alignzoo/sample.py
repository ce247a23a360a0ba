"""Completions of a finished run's policy, beside those of the model it started from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from alignzoo.batch import Prompts
from alignzoo.config import RunConfig, instantiate, load_run
from alignzoo.contracts import Context
from alignzoo.data.encode import Encoder
from alignzoo.data.source import RowSource, existing
from alignzoo.models import build
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.noise import Noise
from alignzoo.models.vocabulary import decoder, ends, support
from alignzoo.run import cache_folder
from alignzoo.settings import Sampling, UserError


@dataclass(frozen=True)
class Sample:
    """What the trained policy and the model it started from write after the same prompt."""

    prompt: str
    policy: str
    start: str


class Sampler:
    """The policy of a finished run and the model it started from, with the same noise. Raises UserError where there is none."""

    def __init__(self, run: Path, temperature: float | None = None, seed: int = 0) -> None:
        self.setup: RunConfig = instantiate(load_run(run))
        if "policy" not in self.setup.algorithm.roles():
            raise UserError(
                f"{run} trained no policy that could write, but a scorer: use it with reward=model reward.path={run}/model"
            )
        if not (run / "model").is_dir():
            raise UserError(f"{run} has no model yet: finish the run with alignzoo train resume={run}")
        final = replace(self.setup.model, path=str(run / "model"), config={}, tokenizer=None)
        self.sampling = Sampling(**vars(self.setup.generation))
        if temperature is not None:
            self.sampling = replace(self.sampling, temperature=temperature)
        tokenizer = build.tokenizer(final)
        config, first = build.config(final, tokenizer), build.config(self.setup.model, tokenizer)
        self.context = Context(
            tokenizer=tokenizer,
            seed=self.setup.seed,
            sampling=self.sampling,
            context_length=build.context_length(final, config),
            cache=cache_folder(),
        )
        # reading the tables first is what a run does: a task knows its prompts from then on
        self.heldout = self.setup.data.tables(Prompts, self.context).prompts
        start, policy = build.policy(self.setup.model, first, self.setup.seed), build.policy(final, config, self.setup.seed)
        allowed = support(self.setup.data, self.context, config.vocab_size)
        shared = Shared(Noise(seed), ends(tokenizer, policy), self.sampling.temperature or 1.0, allowed)
        self.context.policy, self.context.shared = start, shared
        self.setup.data.start(start, self.context)
        self.policy, self.start = PolicyNetwork(policy, shared, frozen=True), PolicyNetwork(start, shared, frozen=True)

    def heldout_prompts(self, count: int) -> Prompts:
        """The run's first held-out prompts. Raises UserError where it has none."""
        if self.heldout is None or not len(self.heldout):
            raise UserError("the run holds out no prompts: give some with --prompt")
        return self.heldout.batch(range(min(count, len(self.heldout))))

    def prompts(self, texts: Sequence[str]) -> Prompts:
        """Texts as the run's data source would hand them to the model."""
        tokenizer, data = self.context.tokenizer, self.setup.data
        ids = _encoder(tokenizer, data).prompts(list(texts))
        width = max(len(row) for row in ids)
        padded = torch.tensor([[0] * (width - len(row)) + row for row in ids])
        attended = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in ids])
        return Prompts(ids=padded, attended=attended, row=torch.arange(len(ids)), decode=decoder(tokenizer))

    @torch.no_grad()
    def __call__(self, prompts: Prompts) -> list[Sample]:
        written = [network.generate(prompts, self.sampling).text for network in (self.policy, self.start)]
        return [Sample(*texts) for texts in zip(prompts.text, *written, strict=True)]


def show(run: Path, texts: Sequence[str] | None, count: int, temperature: float | None, seed: int) -> None:
    """Print a sample for each text, or for `count` held-out prompts of the run."""
    sampler = Sampler(run, temperature, seed)
    console = Console()
    for sample in sampler(sampler.prompts(texts) if texts else sampler.heldout_prompts(count)):
        for name, text in (("prompt", sample.prompt), ("policy", sample.policy), ("start", sample.start)):
            console.print(f"{name}: {text}", markup=False, highlight=False, soft_wrap=True)
        console.print()


def _encoder(tokenizer: Any, data: Any) -> Encoder:
    if not isinstance(data, RowSource):
        return Encoder(tokenizer=tokenizer)
    template = existing(data.chat_template, "data.chat_template").read_text("utf-8") if data.chat_template else None
    return Encoder(tokenizer=tokenizer, chat=data.chat, system=data.system, template=template, options=data.template_options)
