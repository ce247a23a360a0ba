"""Run both programs in turn and compare: `python -m benchmarks.speed DATA [--algorithm dpo] [--size 1M] ...`."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed.material import prepare

GATE = 2e-5  # how far apart the two loss curves may be over the first steps
GATED = 10
WARM_UP = 2
BATCH = {"dpo": 4, "sft": 8, "rloo": 16}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    options = arguments()
    folder = options.work / f"{options.profile}-{options.size}"
    prepare(folder, options.size, options.data, options.rows)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(options.alternations):
            order = ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours")  # A/B/B/A
            made = {side: run(side, folder, Path(scratch) / f"{side}.json", options) for side in order}
            runs.append(made)
            print(line(options, runs[-1:]), flush=True)
    result = summary(options, runs)
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=1))
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.algorithm}-{options.profile}-{options.size}-{options.column}.json"
    (options.out / name).write_text(json.dumps(result, indent=1))
    sys.exit(0 if result["gate_passed"] else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("data", type=Path, help="JSON lines: preference pairs, or texts for the long-answer profile")
    parser.add_argument("--algorithm", choices=BATCH, default="dpo")
    parser.add_argument("--size", choices=("1M", "15M", "60M"), default="1M")
    parser.add_argument("--column", choices=("tuned", "default", "best", "compact"), default="tuned")
    parser.add_argument("--profile", default="hh", help="a name for the data")
    parser.add_argument("--steps", type=int, default=GATED)
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "alignzoo-speed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed"))
    parser.add_argument("--override", action="append", default=[], help="of alignzoo's run, such as model.forward=padded")
    return parser.parse_args()


def run(side: str, folder: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    extra = options.override if side == "ours" else [options.column]
    words = [str(folder), str(out), options.algorithm, str(options.steps), str(BATCH[options.algorithm]), *extra]
    command = [sys.executable, "-m", f"benchmarks.speed.{side}", *words]
    ended = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)}\n{ended.stderr[-2000:]}")
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def ratios(made: dict[str, Any]) -> list[float]:
    """TRL's CPU seconds over ours, step by step; for RLOO a sampled token's, since the two sample different texts."""
    ours, theirs = made["ours"], made["theirs"]
    if "sampled" in ours:
        per_token = lambda side: sum(side["cpu"][WARM_UP:]) / sum(side["sampled"][WARM_UP:])  # noqa: E731
        return [per_token(theirs) / per_token(ours)]
    return [t / o for o, t in zip(ours["cpu"][WARM_UP:], theirs["cpu"][WARM_UP:], strict=True)]


def summary(options: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    found = [ratio for made in runs for ratio in ratios(made)]
    sides = ("ours", "theirs")
    mean = {
        side: statistics.median(sum(made[side]["cpu"][WARM_UP:]) / (options.steps - WARM_UP) for made in runs) for side in sides
    }
    peak = {side: statistics.median(made[side]["peak"] for made in runs) for side in sides}
    grown = {side: statistics.median(made[side]["peak"] - made[side]["rss_ready"] for made in runs) for side in sides}
    gate = max((distance(made) for made in runs), default=0.0)
    gated = options.column in ("tuned", "compact") and options.algorithm in ("dpo", "sft")
    return {
        "algorithm": options.algorithm, "size": options.size, "column": options.column, "profile": options.profile,
        "steps": options.steps, "alternations": options.alternations, "override": options.override,
        "ratio_median": statistics.median(found), "ratio_min": min(found), "ratio_max": max(found),
        "cpu_per_step": mean, "peak_mb": peak, "peak_ratio": peak["ours"] / peak["theirs"], "peak_over_ready_mb": grown,
        "whole_run_cpu": {side: statistics.median(made[side]["total_cpu"] for made in runs) for side in sides},
        "loss_distance": gate, "gated": gated, "gate_passed": not gated or gate <= GATE,
        "load": os.getloadavg()[0], "runs": runs,
    }  # fmt: skip


def distance(made: dict[str, Any]) -> float:
    """The largest difference of the losses of the first steps."""
    return max(abs(o - t) for o, t in zip(made["ours"]["loss"][:GATED], made["theirs"]["loss"][:GATED], strict=False))


def line(options: argparse.Namespace, runs: list[dict[str, Any]]) -> str:
    found = summary(options, runs)
    name = f"{options.algorithm} {options.size} {options.column}"
    return f"{name}: {found['ratio_median']:.2f}x, peak {found['peak_ratio']:.2f}, loss apart {found['loss_distance']:.1e}"


if __name__ == "__main__":
    main()
