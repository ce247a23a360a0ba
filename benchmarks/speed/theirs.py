"""TRL's side: `python -m benchmarks.speed.theirs FOLDER OUT ALGORITHM STEPS BATCH COLUMN`.

COLUMN: tuned (float32, no checkpointing), default (bfloat16, checkpointing), best (reference computed beforehand; packing;
static cache), compact (tuned, with the head of the CUDA code path: scored rows only).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from alignzoo_plugins.trl.base import in_order
from benchmarks.speed.meter import Meter
from benchmarks.speed.rewards import vowels

RATE = 1e-5


def main(folder: Path, out: Path, algorithm: str, steps: int, batch: int, column: str) -> None:
    warnings.simplefilter("ignore")
    if column == "compact":
        import trl.trainer.utils

        trl.trainer.utils._use_triton = lambda device: True
    with tempfile.TemporaryDirectory() as run:
        meter = Meter(out)
        trainer = {"dpo": dpo, "sft": sft, "rloo": rloo}[algorithm](folder, arguments(run, steps, batch, column), column, batch)
        trainer.add_callback(meter)
        trainer.train()
        meter.write()


def arguments(run: str, steps: int, batch: int, column: str) -> dict[str, Any]:
    shared = {
        "output_dir": run, "max_steps": steps, "per_device_train_batch_size": batch, "learning_rate": RATE, "use_cpu": True,
        "lr_scheduler_type": "constant", "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "seed": 0, "weight_decay": 0.0,
    }  # fmt: skip
    return shared if column == "default" else shared | {"bf16": False, "gradient_checkpointing": False}


def rows(path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("json", data_files=str(path), split="train")


def dpo(folder: Path, shared: dict[str, Any], column: str, batch: int) -> Any:
    from trl import DPOConfig, DPOTrainer

    best = {"precompute_ref_log_probs": True} if column == "best" else {}
    args = DPOConfig(**shared, **best, max_length=None)
    data = rows(folder / "ordered.jsonl").select(range(args.max_steps * batch))
    return in_order(DPOTrainer)(str(folder / "model"), args=args, train_dataset=data)


def sft(folder: Path, shared: dict[str, Any], column: str, batch: int) -> Any:
    from trl import SFTConfig, SFTTrainer

    packed = (
        {"packing": True, "max_length": 1024, "per_device_train_batch_size": 1} if column == "best" else {"max_length": None}
    )
    args = SFTConfig(**(shared | packed))
    return in_order(SFTTrainer)(str(folder / "model"), args=args, train_dataset=rows(folder / "ordered-sft.jsonl"))


def rloo(folder: Path, shared: dict[str, Any], column: str, batch: int) -> Any:
    from trl import RLOOConfig, RLOOTrainer

    best = {"cache_implementation": "static"} if column == "best" else {}
    args = RLOOConfig(**shared, **best, num_generations=4, max_completion_length=128, beta=0.05, shuffle_dataset=False)
    data = rows(folder / "ordered.jsonl").remove_columns(["chosen", "rejected"])
    return RLOOTrainer(str(folder / "model"), reward_funcs=vowels, args=args, train_dataset=data)


if __name__ == "__main__":
    folder, out, algorithm, steps, batch, column = sys.argv[1:]
    main(Path(folder), Path(out), algorithm, int(steps), int(batch), column)
