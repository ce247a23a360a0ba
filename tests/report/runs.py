"""Folders of finished runs, as `alignzoo train` leaves them, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

STEPS = 100
RATE, CLIP = "trainer.learning_rate", "algorithm.clip"


def trial(score: float | None, error: str = "", **settings: Any) -> dict[str, Any]:
    return {"settings": settings, "scores": {"10000": score}, "score": score, "error": error}


def outcome(label: str, *trials: dict[str, Any], chosen: int | None, **others: Any) -> dict[str, Any]:
    """One of `tuning` in bench.json."""
    cost = {"steps": 30.0, "samples": 1500.0, "seconds": 2.5}
    return {
        "label": label, "condition": "", "metric": "gap_closed", "trials": list(trials), "chosen": chosen, "edges": [],
        "space": {RATE: "1e-05 to 0.01, log", CLIP: "0.05 to 0.5, log"}, "cost": cost,
        "left_out": {"algorithm.kl.beta": "tied to ${data.beta}"},
    } | others  # fmt: skip


TUNED = outcome(
    "ppo", trial(0.5, **{RATE: 1e-3, CLIP: 0.2}), trial(0.81234, **{RATE: 0.009876, CLIP: 0.1}),
    trial(None, "CUDA out of memory", **{RATE: 1e-4, CLIP: 0.3}), chosen=1, edges=[RATE],
)  # fmt: skip


def write_run(
    folder: Path,
    algorithm: str,
    seed: int,
    gap: float,
    *,
    kl: float = 0.4,
    changes: dict[str, Any] | None = None,
    seconds: float = 40.0,
) -> Path:
    """A run that closed `gap` of the gap, evaluated five times on the way. `changes` are dotted settings."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "algorithm": {"beta": 0.5}, "data": {"prompts": 16, "task_seed": 0, "rows": 100 * seed}, "model": {"hidden_size": 64},
        "reward": {}, "reference": {}, "trainer": {"batch": 64, "learning_rate": 1e-3, "max_steps": STEPS},
        "generation": {"temperature": 1.0, "max_new_tokens": 4}, "rollout": {"prompts": 16, "samples": 8}, "seed": seed,
        "choices": {"algorithm": algorithm, "data": "exact", "model": "small", "reward": "task", "reference": "copy"},
    }  # fmt: skip
    for key, value in (changes or {}).items():
        node = config
        *path, last = key.split(".")
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    rows = [metrics(gap * share, kl * share) for share in (0.4, 0.7, 0.9, 0.97, 1.0)]
    summary = {
        "algorithm": algorithm, "data": "exact", "model": "small", "reward": config["choices"]["reward"], "reference": "copy",
        "seed": seed, "status": "finished", "run_dir": str(folder), "steps": STEPS, "samples": 6400, "prompt_tokens": 6400,
        "completion_tokens": 25600, "trained_tokens": 32000, "rollout_seconds": 12.0, "training_seconds": seconds - 15,
        "evaluation_seconds": 3.0, "total_seconds": seconds + 3, "peak_memory": 500 * 2**20, "metrics": rows[-1],
    }  # fmt: skip
    environment = {
        "versions": {"alignzoo": "0.1.0", "torch": "2.13.0"}, "python": "3.11.7", "platform": "Linux", "commit": "0" * 40,
        "cpus": 2, "threads": 1, "devices": [], "processes": 1,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "environment.json").write_text(json.dumps(environment))
    logged = [{"step": 20 * i + 20, **{f"eval/{k}": v for k, v in row.items()}} for i, row in enumerate(rows)]
    write_lines(folder / "metrics.jsonl", [{"step": 10, "loss": 0.5}, *logged])
    texts = ["abca", "<b>|`*", "ha"]
    write_lines(
        folder / "completions.jsonl",
        [
            {"step": step, "row": i, "prompt": "ABC"[i], "completion": texts[i], "reward": gap + i}
            for step in (50, 100)
            for i in range(3)
        ],
    )
    return folder


def metrics(gap: float, kl: float) -> dict[str, float]:
    return {
        "gap_closed": gap,
        "expected_reward": 0.1 + gap,
        "exact_kl": kl,
        "reward": 0.1 + gap,
        "kl": kl,
        "J_reference": 0.1,
        "J_star": 0.9,
    }


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


LEVELS = {"ppo": (0.92, 0.4, 61.0), "reinforce": (0.91, 0.38, 40.0), "dpo": (0.8, 0.5, 120.0), "distill": (0.7, 0.3, 30.0)}


def write_bench(folder: Path, seeds: int = 10) -> Path:
    """Four algorithms: the first two much alike, dpo behind them, distill last."""
    rng = np.random.default_rng(0)
    for algorithm, (level, kl, seconds) in LEVELS.items():
        for seed in range(seeds):
            write_run(
                folder / f"{algorithm}-{seed}",
                algorithm,
                seed,
                level + rng.normal(0, 0.02),
                kl=kl + rng.normal(0, 0.02),
                seconds=seconds,
            )
    return folder
