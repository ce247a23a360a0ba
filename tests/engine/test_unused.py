"""Keys that act with another algorithm, reward or length of training are told, and stop nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo import compose, instantiate, train
from alignzoo.engine.build import Builder
from alignzoo.engine.hosted import HostBuilder
from alignzoo.engine.unused import unused
from tests.engine.test_restart import TINY


def idle(*overrides, builder=Builder):
    cfg = compose(overrides)
    return unused(builder(instantiate(cfg), Path(), Path()), cfg.override_keys)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("rollout.samples=8", {"algorithm=dpo": ["rollout.samples"]}),
        ("algorithm=reinforce rollout.samples=8", {}),
        ("algorithm=remax rollout.refill=3", {}),  # by the reward
        ("algorithm=spin rollout.refill=3 rollout.lag=1", {"algorithm=spin": ["rollout.refill"]}),
        ("algorithm=self_distill rollout.refill=3", {"algorithm=self_distill": ["rollout.refill"]}),
        ("algorithm=reinforce making=pairs making.samples=3", {"algorithm=reinforce": ["making", "making.samples"]}),
        ("making=pairs making.samples=3 scoring.timeout=1 reward=none gold=task", {}),
        ("generation.truncation=accept generation.top_k=3", {"algorithm=dpo": ["generation.truncation"]}),
        ("algorithm=ppo generation.truncation=accept generation.top_k=3", {}),
        ("scoring.timeout=1", {}),  # evaluation asks the reward
        ("reward=none scoring.timeout=1", {"reward=none": ["scoring.timeout"]}),
        (
            "algorithm=bradley_terry gold=task generation.top_k=3 trainer.eval_prompts=3",
            {"algorithm=bradley_terry": ["trainer.eval_prompts", "gold", "generation.top_k"]},
        ),
        ("algorithm=bradley_terry making=pairs gold=task generation.top_k=3", {}),
        ("trainer.reference_samples=2", {"trainer.eval_steps=0": ["trainer.reference_samples"]}),
        ("trainer.eval_steps=2 trainer.reference_samples=2", {"data=exact": ["trainer.reference_samples"]}),
        ("data=jsonl trainer.eval_steps=2 trainer.reference_samples=2", {}),
        ("trainer.max_steps=5 trainer.epochs=2", {"trainer.max_steps=5": ["trainer.epochs"]}),
        (
            "budget.unit=tokens budget.amount=9 trainer.max_steps=5",
            {"budget.unit=tokens": ["trainer.max_steps"]},
        ),
        ("experiment=exact algorithm=dpo", {}),  # whose file sets rollout: nobody asked for that here
    ],
)
def test_what_a_user_set_without_effect(overrides, expected):
    assert idle(*overrides.split()) == expected


def test_hosted_trainers_lay_out_their_own_batches():
    assert idle("trainer.by_length=false") == {}
    asked = idle("algorithm=trl_dpo", "trainer.by_length=false", builder=HostBuilder)
    assert asked == {"algorithm=trl_dpo": ["trainer.by_length"]}


def test_a_run_says_so_once_and_keeps_it(tmp_path, capsys):
    folder = tmp_path / "run"
    tiny = [text for text in TINY if not text.startswith(("algorithm", "trainer.epochs"))]
    train(compose([*tiny, f"run_dir={folder}", "trainer.max_steps=1"]))
    said = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert said == ["alignzoo: no effect with algorithm=dpo: rollout.prompts, rollout.samples"]
    assert json.loads((folder / "summary.json").read_text())["unused"] == ["rollout.prompts", "rollout.samples"]
    assert "override_keys" not in (folder / "config.yaml").read_text()
