"""Budgets: where training ends, what the learning rate does on the way, and what can't be met."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import torch
from transformers import get_scheduler

from alignzoo.cli import scaffold
from alignzoo.contracts import Next
from alignzoo.engine import budget
from alignzoo.engine.budget import factor
from alignzoo.settings import Budget, Rollout, Schedule, Unit, UserError
from alignzoo.testing import toys
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.sft.sft import SFT

LINEAR = {"schedule": Schedule.linear, "learning_rate": 1.0, "max_grad_norm": 1e-6, "batch": 4, "eval_steps": 0}


def setup(algorithm, unit, amount, training=None, **changes):
    return toys.setup(algorithm, budget=Budget(unit=unit, amount=amount), training=LINEAR | (training or {}), **changes)


def ran(folder, *arguments, resume=None, **changes):
    trainer = toys.trainer(setup(*arguments, **changes), folder)
    trainer.train(resume_from_checkpoint=resume)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return trainer, [row["learning_rate"] for row in rows if "loss" in row], rows[-1]


def test_reading_ends_with_the_samples(tmp_path):
    """20 completions are 10 pairs: three steps of 4 pairs, which deliver 8, 16, 24; the rate falls by the share used."""
    trainer, rates, last = ran(tmp_path, DPO(), Unit.samples, 20)
    assert (trainer.state.global_step, trainer.cost.counts["samples"]) == (3, 24)
    assert rates == pytest.approx([1.0, 0.6, 0.2])
    assert last["cost/samples"] == 24 and last["cost/steps"] == 3 and "eval/reward" in last


def test_a_second_epoch_delivers_nothing_new(tmp_path):
    """Of 24 rows, 7 steps of 4 read 4 for the second time; what ends the run is in tokens, so it goes on."""
    trainer, *_ = ran(tmp_path, SFT(), Unit.none, 0, training={"max_steps": 7})
    assert trainer.cost.counts["samples"] == 24
    trainer, *_ = ran(tmp_path, SFT(), Unit.tokens, trainer.cost.used()["tokens"] - 1)
    assert trainer.state.global_step == 7


@pytest.mark.parametrize(("amount", "steps", "drawn"), [(8, 4, 8), (9, 5, 16), (16, 8, 16)])
def test_a_rollout_is_used_up_before_the_end(tmp_path, amount, steps, drawn):
    """8 completions a rollout, gone through twice in minibatches of 4: so a step learns from 2 of them."""
    trainer, rates, _ = ran(tmp_path, PPO(epochs=2), Unit.samples, amount)
    assert (trainer.state.global_step, trainer.cost.counts["samples"]) == (steps, drawn)
    assert rates == pytest.approx([1 - 2 * step / amount for step in range(steps)])


@dataclass(kw_only=True)
class Impatient(PPO):
    """Leaves every rollout after its first step."""

    epochs: int = field(default=2)

    def after_step(self, metrics):
        return Next.ROLLOUT


def test_a_rollout_that_is_dropped_is_used_up(tmp_path):
    trainer, *_ = ran(tmp_path, Impatient(), Unit.samples, 24)
    assert (trainer.state.global_step, trainer.cost.counts["samples"]) == (3, 24)


@pytest.mark.parametrize("unit", [Unit.tokens, Unit.flops])
def test_ends_at_the_first_step_that_uses_it_up(tmp_path, unit):
    """What four steps take is a budget for four; one unit more takes a fifth."""
    four, *_ = ran(tmp_path / "four", DPO(), Unit.none, 0, training={"max_steps": 4})
    amount = four.cost.used()[unit.value]
    trainer, rates, _ = ran(tmp_path / "same", DPO(), unit, amount)
    assert trainer.state.global_step == 4 and rates[0] == 1.0 and rates == sorted(rates, reverse=True)
    more, *_ = ran(tmp_path / "more", DPO(), unit, amount + 1)
    assert more.state.global_step == 5


def test_resumed_it_goes_on_as_if_never_stopped(tmp_path):
    """In the midst of a rollout, whose samples are learnt from by halves."""
    whole, *_ = ran(tmp_path / "run", PPO(epochs=2), Unit.samples, 16, training={"save_steps": 3, "keep_checkpoints": 9})
    saved = str(tmp_path / "run" / "checkpoints" / "checkpoint-3")
    again, *_ = ran(tmp_path / "again", PPO(epochs=2), Unit.samples, 16, resume=saved)
    assert again.state.global_step == whole.state.global_step == 8
    assert again.cost.counts == whole.cost.counts and again.cost.flops() == whole.cost.flops()
    pairs = zip(again.trained.parameters(), whole.trained.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", list(Schedule))
def test_schedules_are_those_of_transformers(schedule, warmup):
    """Ten steps that use a tenth each."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(schedule.value, optimizer, num_warmup_steps=warmup, num_training_steps=10)
    for step in range(11):
        expected = 1.0 if schedule is Schedule.constant else theirs.get_last_lr()[0]
        assert factor(schedule, step, warmup, step / 10) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        theirs.step()
    assert factor(Schedule.linear, 12, warmup, 1.2) == 0.0  # overshot


@pytest.mark.parametrize(
    ("algorithm", "amount", "message"),
    [
        (PPO(), 7, r"budget.amount=7 samples can't be met: one rollout of toy takes 8: rollout.prompts=4 x rollout.samples=2"),
        (DPO(), 7, r"budget.amount=7 samples can't be met: one optimizer step of toy takes 8: trainer.batch=4"),
        (SFT(), 3, r"one optimizer step of toy takes 4: trainer.batch=4"),
    ],
)
def test_less_than_one_step_of_samples(algorithm, amount, message):
    with pytest.raises(UserError, match=message):
        budget.check(setup(algorithm, Unit.samples, amount))
    budget.check(setup(algorithm, Unit.samples, amount + 1))


def test_more_samples_than_the_data_have(tmp_path):
    with pytest.raises(UserError, match=r"budget.amount=49 samples, and the data have 48; reading them again is nothing new"):
        toys.trainer(setup(DPO(), Unit.samples, 49), tmp_path)
    assert toys.trainer(setup(DPO(), Unit.samples, 48), tmp_path).args.max_steps == 6
    assert toys.trainer(setup(PPO(), Unit.samples, 10**6, rollout=Rollout(prompts=4, samples=2)), tmp_path)


def test_less_than_one_step_of_anything_else(tmp_path):
    with pytest.raises(UserError, match=r"the budget of 3 tokens was used up by step 1, which took \d+: give enough"):
        ran(tmp_path, DPO(), Unit.tokens, 3)


@pytest.mark.parametrize("amount", [0, -1, float("inf"), float("nan")])
def test_no_budget(amount):
    with pytest.raises(UserError, match=r"budget.amount=.* must be > 0, and finite"):
        Budget(unit=Unit.samples, amount=amount)
    with pytest.raises(UserError, match=r"budget.amount=5 of what"):
        Budget(amount=5)


def test_a_hosted_trainer_ends_with_it_too(tmp_path):
    """The foreign trainer reads 4 rows a step, and its rate falls by the share used."""
    from alignzoo import compose, train

    scaffold.make("foreign", "trainer", tmp_path)
    given = [
        f"plugins_dir={tmp_path}", "algorithm=foreign", "trainer.batch=4", "trainer.logging_steps=1", "trainer.eval_prompts=2",
        "trainer.schedule=linear", "trainer.learning_rate=1e-3", "budget.unit=samples", "budget.amount=10",
    ]  # fmt: skip
    summary = train(compose([*given, f"run_dir={tmp_path / 'run'}"]))
    assert (summary["steps"], summary["samples"], summary["budget_used"], summary["status"]) == (3, 12, 12, "finished")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows if "loss" in row] == pytest.approx([1e-3, 6e-4, 2e-4])
    assert summary["flops"] == summary["flops/policy"] > 0 and summary["trained_tokens"] > 0
