"""Without trainer.learning_rate: what is right for fresh weights, for LoRA, and for all weights of a model trained before."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest

from alignzoo import compose
from alignzoo.config import run
from alignzoo.config.registry import Registry

BEFORE = ["model=hf", "model.path=/some/where"]


@pytest.mark.parametrize(("overrides", "expected"), [
    ([], 1e-4),
    (["model=stories"], 1e-4),
    (BEFORE, 1e-6),
    ([*BEFORE, "peft=lora"], 1e-4),
    ([*BEFORE, "trainer.learning_rate=3e-3"], 3e-3),
    ([*BEFORE, "peft=lora", "trainer.learning_rate=3e-3"], 3e-3),
    ([*BEFORE, "algorithm=sft"], 2e-5),
    ([*BEFORE, "algorithm=ppo"], 3e-6),
    ([*BEFORE, "algorithm=distill"], 5e-6),
    ([*BEFORE, "algorithm=bradley_terry"], 9e-6),
])  # fmt: skip
def test_what_it_is(overrides: list[str], expected: float) -> None:
    assert compose(["algorithm=dpo", *overrides]).trainer.learning_rate == expected


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    run._tell_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for more in ([], [], ["peft=lora"], ["trainer.learning_rate=1e-6"], ["model=small", "model.path=null"]):
            compose([*BEFORE, "algorithm=dpo", *more])
    assert [record.message for record in caplog.records] == [
        "trainer.learning_rate=1e-06, as published for dpo and all weights of a language model",
        "trainer.learning_rate=0.0001, as usual for LoRA",
    ]


@pytest.mark.parametrize(("hosted", "ours"), [
    ("trl_sft", "sft"), ("trl_dpo", "dpo"), ("trl_kto", "kto"), ("trl_grpo", "grpo"), ("trl_rloo", "reinforce"),
    ("trl_distillation", "distill"), ("trl_reward", "bradley_terry"),
])  # fmt: skip
def test_both_sides_of_a_comparison_have_the_same(hosted: str, ours: str) -> None:
    zoo = Registry()
    assert zoo.load("algorithm", hosted).published_rate == zoo.load("algorithm", ours).published_rate


def test_a_plugin_without_one_takes_a_cautious_one(tmp_path: Path) -> None:
    source = Path(str(importlib.import_module("alignzoo_plugins.dpo.dpo").__file__)).read_text()
    (tmp_path / "mine.py").write_text("\n".join(line for line in source.splitlines() if "published_rate" not in line))
    assert compose([*BEFORE, f"plugins_dir={tmp_path}", "algorithm=mine"]).trainer.learning_rate == 1e-5
