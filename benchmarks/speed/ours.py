"""alignzoo's side: `python -m benchmarks.speed.ours FOLDER OUT ALGORITHM STEPS BATCH [OVERRIDE...]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alignzoo.config import compose, instantiate
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt
from benchmarks.speed.meter import Meter

RATE = 1e-5
KINDS = {"dpo": "rows.jsonl", "sft": "rows-sft.jsonl", "rloo": "rows.jsonl"}


def main(folder: Path, out: Path, algorithm: str, steps: int, batch: int, more: list[str]) -> None:
    data = folder / KINDS[algorithm]
    overrides = [
        f"algorithm={'reinforce' if algorithm == 'rloo' else algorithm}", "model=hf", f"model.path={folder / 'model'}",
        "data=jsonl", f"data.path={data}", "data.heldout=0", f"trainer.max_steps={steps}", f"trainer.batch={batch}",
        f"trainer.micro_batch={batch}", f"trainer.learning_rate={RATE}", "trainer.logging_steps=1", *_extra(algorithm, batch),
        *more,
    ]  # fmt: skip
    setup = instantiate(compose(overrides))
    with tempfile.TemporaryDirectory() as run:
        trainer = Builder(setup, Path(run), Path(run) / "cache").trainer(Interrupt(), lambda step, row: None)
        meter = Meter(out)
        trainer.callback_handler.callbacks.insert(0, meter)  # before the engine's own, whose evaluation is no part of a step
        trainer.train()
        meter.write(counts=trainer.cost.counts)


def _extra(algorithm: str, batch: int) -> list[str]:
    if algorithm != "rloo":
        return []
    sampled = ["generation.max_new_tokens=128", "rollout.samples=4", f"rollout.prompts={batch // 4}"]
    return [*sampled, "algorithm.baseline=leave_one_out", "reward=function", "reward.path=benchmarks.speed.rewards.vowels"]


if __name__ == "__main__":
    folder, out, algorithm, steps, batch, *more = sys.argv[1:]
    main(Path(folder), Path(out), algorithm, int(steps), int(batch), more)
