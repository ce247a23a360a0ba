"""Seven algorithms, twenty steps each (PPO: rollouts; its reward model: a hundred), by the commands of docs/chat.md; each is
killed once and goes on."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS, ENDS = 20, 5  # of which the first and the last so many are compared
SHARED = [
    "data=jsonl", "model=hf", "trainer.batch=8", "trainer.logging_steps=1",
    "trainer.save_steps=4", "trainer.eval_prompts=8", "generation.max_new_tokens=32",
]  # fmt: skip
SAMPLED = ["rollout.prompts=4", "rollout.samples=4", "trainer.batch=16"]
# rewards differ more between prompts than within one: the prompts are the same in every rollout, the value model starts from
# the reward model, and as long as it is poor nothing is bootstrapped from it
CRITIC = [
    "data.heldout=0.2", "algorithm.value_model=reward", "algorithm.gae_lambda=1", "rollout.prompts=8", "rollout.samples=4",
    "trainer.batch=32", "generation.max_new_tokens=16",
]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """`climbs`: the metric that must be better at the end, and whether that is higher."""

    name: str
    overrides: list[str]
    climbs: str = "loss"
    higher: bool = False
    steps: int = STEPS


def plan(model: str, folder: Path) -> list[Run]:
    preferences, chats = (f"data.path={folder / name}" for name in ("preferences.jsonl", "chats.jsonl"))
    lora, base = ["peft=lora", f"model.path={model}"], f"model.path={model}"
    few = f"data.path={folder / 'few.jsonl'}"
    reward = ["reward=model", f"reward.path={folder / 'runs' / 'bradley_terry' / 'model'}"]
    short = ["reward=length", "reward.most=4", "reward.unit=words"]
    return [
        Run("sft", ["algorithm=sft", chats, *lora]),
        Run("dpo", ["algorithm=dpo", preferences, *lora, "reference=adapter"]),
        Run("kto", ["algorithm=kto", preferences, *lora, "reference=adapter"]),
        Run("bradley_terry", ["algorithm=bradley_terry", preferences, *lora], steps=5 * STEPS),
        Run("grpo", ["algorithm=grpo", preferences, *lora, *short, *SAMPLED], "reward", True),
        Run("ppo", ["algorithm=ppo", few, *lora, "reference=adapter", *reward, *CRITIC], "reward", True, 4 * STEPS),
        Run("distill", ["algorithm=distill", chats, f"model.path={folder / 'student'}", f"roles.teacher={base[11:]}"]),
    ]


def carry_out(run: Run, folder: Path) -> dict[str, Any]:
    """The run's figures. Killed without warning once its first checkpoint is there, the same command goes on."""
    where = folder / "runs" / run.name
    command = [sys.executable, "-m", "alignzoo", "train", *SHARED, *run.overrides]
    command += [f"trainer.max_steps={run.steps}", f"run_dir={where}"]
    begun, killed = time.monotonic(), False
    with (folder / f"{run.name}.log").open("ab") as log:
        if not (where / "summary.json").exists():
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})
            while process.poll() is None and not list(where.glob("checkpoints/checkpoint-*")):
                time.sleep(1)
            killed = process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        code = subprocess.call(command, stdout=log, stderr=log)
    rows = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()] if code == 0 else []
    series = [row[run.climbs] for row in rows if run.climbs in row]
    few = min(ENDS, len(series) // 2)  # a rollout gone through several times has one row
    first, last = (statistics.fmean(part) if part else float("nan") for part in (series[:few], series[len(series) - few :]))
    better = last > first if run.higher else last < first
    return {
        "kind": "run", "run": run.name, "metric": run.climbs, "code": code, "first": first, "last": last, "better": better,
        "steps": run.steps, "killed": killed, "seconds": time.monotonic() - begun,
    }  # fmt: skip


def answer(run: Run, folder: Path) -> dict[str, Any]:
    """What transformers' own pipeline makes of the saved model."""
    from transformers import pipeline

    chat = pipeline("text-generation", model=str(folder / "runs" / run.name / "model"))
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = chat(question, max_new_tokens=24, do_sample=False)[0]["generated_text"][-1]["content"]
    return {"kind": "answer", "run": run.name, "text": text}
