"""Every algorithm learns, whatever the seed: small tasks whose measures are exact, so that nothing here is luck."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.batch import Batch
from alignzoo.contracts import Context, Tables
from alignzoo.data.exact.source import Exact
from alignzoo.kl import KL
from alignzoo.settings import Generation, Optimizer, Rollout, Schedule
from alignzoo.testing import toys
from alignzoo_plugins.distill.distill import Distill
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.online_pairs.nash_md import NashMD
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.rated.ilql import ILQL
from alignzoo_plugins.reinforce.reinforce import Reinforce

SEEDS = (0, 1, 2)


@dataclass(kw_only=True)
class Frequency(Exact):
    """The reward of a completion is how much of it is the letter a."""

    def tables(self, view: type[Batch], context: Context) -> Tables:
        tables = super().tables(view, context)
        digits, lengths = self.tree.digits()
        written = torch.arange(self.length) < lengths[:, None]
        share = ((digits == 0) & written).sum(1) / lengths.clamp(min=1)
        self.rewards = share.double().expand(self.prompts, -1)
        return tables


def learn(folder: Path, source: Exact, algorithm: Any, seed: int, steps: int) -> tuple[dict, dict]:
    """The exact measures before and after `steps` steps of 64 records."""
    settings = {"max_steps": steps, "batch": 64, "learning_rate": 1e-2, "optimizer": Optimizer.adamw}
    made = toys.setup(
        algorithm,
        data=source,
        reward=source.reward(),
        seed=seed,
        generation=Generation(max_new_tokens=source.length),
        rollout=Rollout(prompts=8, samples=8),
        training=settings | {"schedule": Schedule.linear},
    )
    trainer = toys.trainer(made, folder)
    before = source.evaluate(trainer.roles)
    trainer.train()
    return before, source.evaluate(trainer.evaluator.models)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("algorithm", [Reinforce(beta=0.05), PPO(kl=KL(beta=0.05), epochs=2)], ids=["reinforce", "ppo"])
def test_a_letter_three_times_as_often(algorithm: Any, seed: int, tmp_path: Path) -> None:
    """One in five tokens at first; a KL cost of 0.05 leaves room for nearly all."""
    source = Frequency(prompts=2, vocabulary=4, length=3, warmup_steps=20, warmup_batch=64, beta=0.05, rows=1024)
    before, after = learn(tmp_path, source, algorithm, seed, steps=60)
    assert before["expected_reward"] < 0.33
    assert after["expected_reward"] > 3 * before["expected_reward"]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_learnt_beside_the_policy_is_written_with_it(seed: int, tmp_path: Path) -> None:
    """ILQL's policy learns what the reference wrote, rated 1 or 0: a quarter of the gap is closed by its values alone."""
    source = Exact(prompts=4, vocabulary=4, length=3, warmup_steps=60, warmup_batch=64, rows=20_000)
    algorithm = ILQL(beta=6.0, tau=0.5, conservatism=0.0, discount=1.0, decay=0.9)
    _, after = learn(tmp_path, source, algorithm, seed, steps=120)
    assert 0.25 < after["gap_closed"] < 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mixture", [0.0, 0.5])
def test_nash_md_wins_more_often(mixture: float, seed: int, tmp_path: Path) -> None:
    """Rewards have a spread of 2. At the equilibrium log pi / ref is (P - 1/2) / tau but for a constant: with tau 1/4 its range
    is at most 4, and the KL at most 4^2 / 8 (Hoeffding's lemma)."""
    source = Exact(prompts=2, vocabulary=4, length=3, warmup_steps=20, warmup_batch=64, rows=1024)
    before, after = learn(tmp_path, source, NashMD(tau=0.25, mixture=mixture), seed, steps=80)
    assert after["expected_reward"] > before["expected_reward"] + 0.5
    assert after["exact_kl"] < 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "algorithm", [Reinforce(beta=1.0), PPO(kl=KL(beta=1.0), epochs=2), DPO(beta=1.0), Distill()],
    ids=["reinforce", "ppo", "dpo", "distill"],
)  # fmt: skip
def test_half_of_the_gap_to_the_optimum(algorithm: Any, seed: int, tmp_path: Path) -> None:
    source = Exact(prompts=3, vocabulary=4, length=3, warmup_steps=50, warmup_batch=64, rows=8192)
    before, after = learn(tmp_path, source, algorithm, seed, steps=100)
    assert before["gap_closed"] == pytest.approx(0, abs=1e-6)
    assert 0.5 < after["gap_closed"] < 1
