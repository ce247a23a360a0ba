"""A task small enough to go through by hand: 2 prompts, 3 letters, at most 3 of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.batch import Prompts
from alignzoo.common.noise import Noise
from alignzoo.contracts import Context
from alignzoo.data.exact.source import Exact
from alignzoo.models import modules
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Model, Sampling
from alignzoo.testing.toys import LLAMA


class Task:
    """An `Exact` source that has been started, and what it was started with."""

    def __init__(self, cache: Path, view: type = Prompts, seed: int = 0, model: Any = LLAMA, **settings: Any) -> None:
        small = {"prompts": 2, "vocabulary": 3, "length": 3, "rows": 64, "warmup_steps": 20, "warmup_batch": 32}
        self.source = Exact(**(small | settings))
        tokenizer = byte_level()
        self.context = Context(
            tokenizer=tokenizer,
            seed=seed,
            sampling=Sampling(max_new_tokens=self.source.length, samples=1),
            context_length=128,
            cache=cache,
        )
        self.tables = self.source.tables(view, self.context)
        made = Model(config=dict(model))
        self.module = modules.policy(made, modules.config(made, tokenizer), seed)
        support = torch.zeros(len(tokenizer), dtype=torch.bool)
        support[list(self.source.support(tokenizer))] = True
        self.context.policy = self.module
        self.context.shared = Shared(Noise(seed), {tokenizer.eos_token_id}, support=support)
        self.source.start(self.module, self.context)
        self.policy = PolicyNetwork(self.module, self.context.shared)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return Task(tmp_path_factory.mktemp("exact"))


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Task]:
    """Tasks with settings of their own, over one cache."""
    return partial(Task, tmp_path)
