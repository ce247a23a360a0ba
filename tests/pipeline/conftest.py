"""A pipeline whose stages take a second each."""

from __future__ import annotations

from pathlib import Path

TINY = str(Path(__file__).with_name("tiny.yaml"))
SMALL = [
    "data=stories", "gold=length", "model.config.hidden_size=8", "model.config.intermediate_size=16", "trainer.max_steps=2",
    "trainer.batch=4", "rollout.prompts=2", "rollout.samples=2", "generation.max_new_tokens=4", "data.max_prompt_tokens=32",
    "data.max_completion_tokens=16", "trainer.eval_prompts=2",
]  # fmt: skip


def asked(*more: str) -> list[str]:
    return [f"pipeline={TINY}", *SMALL, *more]
