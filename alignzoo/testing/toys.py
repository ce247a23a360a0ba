"""A task of no meaning but full coverage: a ten-thousand-parameter model, made-up records of every view, a countable reward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.contracts import Context, Reward, Scores, Source, Tables
from alignzoo.settings import Budget, EarlyStop, Generation, Making, Model, Optimizer, Peft, Rollout, Scoring, Training
from alignzoo.setup import RunConfig

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True,
}  # fmt: skip
T5 = {
    "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0,
    "is_encoder_decoder": True,
}  # fmt: skip
EOS = 2
WORDS = range(3, 10)  # few, so that samples have all lengths, differ and repeat
UNSCORABLE = 9  # a completion that begins with it has no score


def completions(
    rows: list[int], seed: int = 0, length: int = 6, unscored: bool = False, salt: int = 0, **columns: Any
) -> Completions:
    """One made-up completion a row, of any length, ending with EOS, over its own prompt; a function of (row, salt) alone.

    With `unscored`, every second row starts with two attended tokens that the policy did not write, the same for every salt.
    """
    kind: Any = columns.pop("kind", Completions)
    made = [_text(row, seed, length, salt, unscored and row % 2 == 1) for row in rows]
    width = max(len(c) for _, c in made)
    left = max(len(p) for p, _ in made)
    ids = torch.tensor([c + [0] * (width - len(c)) for _, c in made])
    attended = torch.tensor([[i < len(c) for i in range(width)] for _, c in made])
    scored = attended.clone()
    if unscored:
        scored[torch.tensor(rows) % 2 == 1, :2] = False
    prompts = Prompts(
        ids=torch.tensor([[0] * (left - len(p)) + p for p, _ in made]),
        attended=torch.tensor([[i >= left - len(p) for i in range(left)] for p, _ in made]),
        row=torch.tensor(rows),
        decode=lambda batch: [" ".join(map(str, ids)) for ids in batch],
    )
    return kind(
        prompts=prompts, prompt_of=torch.arange(len(rows)), ids=ids, attended=attended, scored=scored,
        truncated=torch.zeros(len(rows), dtype=torch.bool), row=torch.tensor(rows), **columns,
    )  # fmt: skip


def rankings(rows: list[int], **shared: Any) -> Rankings:
    """Three completions of each prompt, ranked."""
    sides: list[Any] = [
        completions(rows, kind=Rankings, rank=(torch.tensor(rows) + salt) % 3, salt=salt, **shared) for salt in range(3)
    ]
    apart = replace(Rankings.cat(sides), prompts=sides[0].prompts, prompt_of=torch.arange(len(rows)).repeat(3))
    return apart.take([salt * len(rows) + place for place in range(len(rows)) for salt in range(3)])


def _text(row: int, seed: int, length: int, salt: int, begun: bool) -> tuple[list[int], list[int]]:
    prompt, body = np.random.default_rng([seed, row, 1]), np.random.default_rng([seed, row, 2, salt])
    start = prompt.integers(WORDS.start, WORDS.stop, 2).tolist() if begun else []
    return _words(prompt, 1, length), [*start, *_words(body, 0, length - len(start)), EOS]


def _words(rng: np.random.Generator, low: int, high: int) -> list[int]:
    return rng.integers(WORDS.start, WORDS.stop, rng.integers(low, high + 1)).tolist()


@dataclass
class ToyTable:
    view: type[Batch]
    size: int
    seed: int = 0
    unscored: bool = False

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Any) -> Any:
        rows = list(rows)
        shared: dict[str, Any] = {"seed": self.seed, "unscored": self.unscored}
        if self.view is Prompts:
            return completions(rows, **shared).prompts
        if self.view is Pairs:
            sides = [completions(rows, salt=salt, **shared) for salt in range(2)]
            return Pairs(chosen=sides[0], rejected=sides[1], margin=torch.tensor(rows) % 3 / 2)
        if self.view is Rated:
            return completions(rows, kind=Rated, rating=torch.tensor(rows).float() % 2, **shared)
        if self.view is Rankings:
            return rankings(rows, **shared)
        return completions(rows, **shared)


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
            own = written(view, context)
            return Tables(train=own, heldout=own, prompts=None, report={})

        def table(wanted: type[Batch], seed: int) -> ToyTable:
            return ToyTable(wanted, self.size, seed, self.unscored)

        heldout = self.seed + 1
        return Tables(train=table(view, self.seed), heldout=table(view, heldout), prompts=table(Prompts, heldout), report={})

    def support(self, tokenizer: Any) -> range | None:
        return range(EOS, WORDS.stop) if self.made_up else None

    def reward(self) -> Reward:
        return CountReward()

    def supplies(self, role: str) -> bool:
        return role == "teacher"

    def network(self, role: str, context: Context) -> Any:
        """A teacher: another model of the policy's shape."""
        from alignzoo.models import build
        from alignzoo.models.networks import PolicyNetwork

        module = build.policy(Model(config=context.policy.config.to_dict()), context.policy.config, seed=99)
        return PolicyNetwork(build.frozen(module).to(context.policy.dtype), context.shared, frozen=True)


def written(view: Any, context: Context) -> Any:
    """A plugin's own records, which its `collate` makes from text: from `view.examples`, rows as in a data file, else from
    made-up prompts and completions."""
    from alignzoo.data.encode import Encoder
    from alignzoo.data.prepare import Preparation
    from alignzoo.data.rows import canonical

    made_up = [{"prompt": f"What is {i} times {i}?", "completion": f" {i * i}"} for i in range(24)]
    rows = [canonical(row, f"example {i}", {}) for i, row in enumerate(getattr(view, "examples", made_up))]
    encoder = Encoder(tokenizer=context.tokenizer, chat=False, system=None, template=None, options={})
    preparation = Preparation(view=view, encoder=encoder, context=context)
    return preparation.tables(rows, []).train


def setup(algorithm: Any, name: str = "toy", **changes: Any) -> RunConfig:
    """What `alignzoo.config.instantiate` returns, on the toy task: SGD, three steps of eight records."""
    from alignzoo.models.references import Copy

    reward = "count" if "policy" in algorithm.roles() else "none"  # a scorer has no use for one
    training = {
        "max_steps": 3,
        "batch": 8,
        "learning_rate": 0.1,
        "optimizer": Optimizer.sgd,
        "logging_steps": 1,
        "eval_prompts": 4,
    }
    parts = {
        "algorithm": algorithm, "data": ToySource(), "reward": CountReward(), "gold": None, "reference": Copy(),
        "model": Model(config=dict(LLAMA)),
        "peft": Peft(), "budget": Budget(), "scoring": Scoring(), "early_stop": EarlyStop(), "making": Making(),
        "trainer": Training(**training | changes.pop("training", {})),
        "generation": Generation(max_new_tokens=6),
        "rollout": Rollout(prompts=4, samples=2), "seed": 0, "roles": {},
        "choices": {"algorithm": name, "reward": reward, "data": "toy", "model": "tiny", "reference": "copy", "gold": "toy"},
    }  # fmt: skip
    return RunConfig(**parts | changes)


def trainer(made: RunConfig, folder: Path) -> Any:
    """The trainer of a setup, its run folder made."""
    from alignzoo.engine.build import Builder
    from alignzoo.engine.callbacks import Interrupt

    folder.mkdir(parents=True, exist_ok=True)
    return Builder(made, folder, folder / "cache").trainer(Interrupt(), lambda step, row: None)
