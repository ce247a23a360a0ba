"""A task of no meaning but full coverage: a ten-thousand-parameter model, made-up records of every view, a countable reward,
and two algorithms to stand beside what is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.contracts import (
    Algorithm,
    Context,
    Kind,
    Models,
    OnlineAlgorithm,
    Policy,
    Reward,
    Role,
    Scores,
    Source,
    Table,
    Tables,
    TrainerPlugin,
)
from alignzoo.functional import dpo_loss
from alignzoo.settings import Generation, Model, Optimizer, Rollout, Training
from alignzoo.setup import RunConfig
from alignzoo.testing.reshape import ragged

if TYPE_CHECKING:
    from alignzoo.engine.trainer import AlignTrainer

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True,
}  # fmt: skip
T5 = {
    "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0,
    "is_encoder_decoder": True,
}  # fmt: skip
Keywords = dict[str, Any]
EOS = 2
WORDS = range(3, 10)  # few, so that samples have all lengths, differ and repeat
UNSCORABLE = 9  # a completion that begins with it has no score


def completions(rows: Sequence[int], seed: int = 0, length: int = 6, unscored: bool = False, salt: int = 0) -> Completions:
    """One made-up completion a row, of any length, ending with EOS, over its own prompt; a function of (row, salt) alone.

    With `unscored`, every second row starts with two attended tokens that the policy did not write, the same for every salt.
    """
    texts = [_text(row, seed, length, salt, unscored and row % 2 == 1) for row in rows]
    prompt_ids, prompt_attended = ragged([prompt for prompt, _ in texts], "left")
    ids, attended = ragged([completion for _, completion in texts], "right")
    row = torch.tensor(rows)
    scored = attended.clone()
    if unscored:
        scored[row % 2 == 1, :2] = False
    prompts = Prompts(
        ids=prompt_ids, attended=prompt_attended, row=row, decode=lambda batch: [" ".join(map(str, ids)) for ids in batch]
    )
    return Completions(
        prompts=prompts, prompt_of=torch.arange(len(rows)), ids=ids, attended=attended, scored=scored,
        truncated=torch.zeros(len(rows), dtype=torch.bool), row=row,
    )  # fmt: skip


def rankings(rows: list[int], seed: int = 0, unscored: bool = False) -> Rankings:
    """Three completions of each prompt, ranked."""
    sides = [
        Rankings(**vars(completions(rows, seed, unscored=unscored, salt=salt)), rank=(torch.tensor(rows) + salt) % 3)
        for salt in range(3)
    ]
    apart = replace(Rankings.cat(sides), prompts=sides[0].prompts, prompt_of=torch.arange(len(rows)).repeat(3))
    return apart.take([salt * len(rows) + place for place in range(len(rows)) for salt in range(3)])


def _text(row: int, seed: int, length: int, salt: int, begun: bool) -> tuple[list[int], list[int]]:
    prompt, body = np.random.default_rng([seed, row, 1]), np.random.default_rng([seed, row, 2, salt])
    start = prompt.integers(WORDS.start, WORDS.stop, 2).tolist() if begun else []
    return _words(prompt, 1, length), [*start, *_words(body, 0, length - len(start)), EOS]


def _words(rng: np.random.Generator, low: int, high: int) -> list[int]:
    words: list[int] = rng.integers(WORDS.start, WORDS.stop, rng.integers(low, high + 1)).tolist()
    return words


@dataclass
class ToyTable:
    view: type[Batch]
    size: int
    seed: int = 0
    unscored: bool = False

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int]) -> Batch:
        rows = list(rows)
        if self.view is Rankings:
            return rankings(rows, self.seed, self.unscored)
        first = completions(rows, self.seed, unscored=self.unscored)
        if issubclass(self.view, Pairs):
            second, third = (completions(rows, self.seed, unscored=self.unscored, salt=salt) for salt in (1, 2))
            beside = {"demonstration": third} if self.view is Triples else {}
            return self.view(chosen=first, rejected=second, margin=torch.tensor(rows) % 3 / 2, **beside)
        if self.view is Rated:
            return Rated(**vars(first), rating=torch.tensor(rows).float() % 2)
        return first.prompts if self.view is Prompts else first


@dataclass(kw_only=True)
class CountReward(Reward):
    """1 for every token below 6 in the completion, minus 0.1 a token; rounded, so that scores are often equal, if `coarse`; if
    `fails`, none for some."""

    coarse: bool = False
    fails: bool = False

    def __call__(self, c: Completions) -> Scores:
        total = c.sum((c.ids < 6).float()) - 0.1 * c.length
        total = 2 * (total / 2).round() if self.coarse else total
        return Scores(total=total, parts={"count": total}, valid=c.ids[:, 0] != UNSCORABLE if self.fails else None)


@dataclass(kw_only=True)
class ToySource(Source):
    size: int = 24
    seed: int = 0
    unscored: bool = True

    def __post_init__(self) -> None:
        self.made_up = True

    def tables(self, view: type[Batch], context: Context) -> Tables:
        if hasattr(view, "collate"):
            self.made_up = False
            table = written(view, context)
            return Tables(train=table, heldout=table, prompts=None, report={})
        train, heldout = (ToyTable(view, self.size, seed, self.unscored) for seed in (self.seed, self.seed + 1))
        return Tables(train=train, heldout=heldout, prompts=replace(heldout, view=Prompts), report={})

    def support(self, tokenizer: object) -> range | None:
        return range(EOS, WORDS.stop) if self.made_up else None

    def reward(self) -> Reward:
        return CountReward()

    def supplies(self, role: str) -> bool:
        return role == "teacher"

    def network(self, role: str, context: Context) -> Policy:
        """A teacher: another model of the policy's shape."""
        from alignzoo.models import modules
        from alignzoo.models.networks import PolicyNetwork

        module = modules.policy(Model(config=context.policy.config.to_dict()), context.policy.config, seed=99)
        return PolicyNetwork(modules.frozen(module).to(context.policy.dtype), context.shared, frozen=True)


def written(view: type[Batch], context: Context) -> Table:
    """A plugin's own records, which its `collate` makes from text: from `view.examples`, rows as in a data file, else from
    made-up prompts and completions."""
    from alignzoo.data.encode import Encoder
    from alignzoo.data.prepare import Preparation
    from alignzoo.data.rows import canonical

    made_up = [{"prompt": f"What is {i} times {i}?", "completion": f" {i * i}"} for i in range(24)]
    rows = [canonical(row, f"example {i}", {}) for i, row in enumerate(getattr(view, "examples", made_up))]
    encoder = Encoder(tokenizer=context.tokenizer, chat=False, system=None, template=None, options={})
    return Preparation(view=view, encoder=encoder, context=context).tables(rows, []).train


@dataclass(kw_only=True)
class ToyDPO(Algorithm):
    """DPO, as the measure of speed."""

    data = Pairs

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reference": Role(kind=Kind.POLICY, start="reference")}

    def loss(self, models: Models, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        both = batch.both
        chosen, rejected = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both)).chunk(2)
        return dpo_loss(chosen, rejected, 0.1), {}


@dataclass(kw_only=True)
class ToyReinforce(OnlineAlgorithm):
    """REINFORCE with a reward of 1, to have a learning reward beside."""

    data = Prompts

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reward": Role(kind=Kind.REWARD)}

    def experience(self, models: Models, batch: Prompts) -> Completions:
        c = models.policy.generate(batch, models.sampling)
        models.reward(c)
        return c

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        return -batch.sum(models.policy.logprobs(batch)), {}


def setup(algorithm: Algorithm | TrainerPlugin, name: str = "toy", **changes: Any) -> RunConfig:
    """What `alignzoo.config.instantiate` returns, on the toy task: SGD, three steps of eight records."""
    from alignzoo.models.references import Copy

    reward = "count" if "policy" in algorithm.roles() else "none"  # a scorer has no use for one
    pace: Keywords = {
        "max_steps": 3,
        "batch": 8,
        "learning_rate": 0.1,
        "optimizer": Optimizer.sgd,
        "logging_steps": 1,
        "eval_prompts": 4,
    }
    parts: Keywords = {
        "data": ToySource(), "reward": CountReward(), "reference": Copy(), "model": Model(config=dict(LLAMA)),
        "trainer": Training(**pace | changes.pop("training", {})), "generation": Generation(max_new_tokens=6),
        "rollout": Rollout(prompts=4, samples=2, refill=0),
        "choices": {"algorithm": name, "reward": reward, "data": "toy", "model": "tiny", "reference": "copy", "gold": "toy"},
    }  # fmt: skip
    return RunConfig(algorithm=algorithm, **parts | changes)


def trainer(setup: RunConfig, folder: Path) -> AlignTrainer:
    """The trainer of a setup, its run folder made."""
    from alignzoo.engine.build import Builder
    from alignzoo.engine.callbacks import Interrupt
    from alignzoo.engine.trainer import AlignTrainer

    folder.mkdir(parents=True, exist_ok=True)
    trainer = Builder(setup, folder, folder / "cache").trainer(Interrupt(), lambda step, row: None)
    assert isinstance(trainer, AlignTrainer)
    return trainer
