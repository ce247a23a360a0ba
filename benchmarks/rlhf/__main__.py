"""The whole of RLHF on the story model: sft, a reward model of judged pairs, ppo on it; and the policy against its sft model.

    python -m benchmarks.rlhf [folder=runs/rlhf] [more overrides]

Carries out `pipeline=rlhf` (or takes up what is done), compares the last stage's policy with the first's on 200 held-out
prompts and on the held-out demonstrations, and writes `benchmarks/results/rlhf/`: comparison.json, pipeline.json and README.md
with the table, the demands and ten samples side by side.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import alignzoo
from alignzoo.pipeline import carry_out
from alignzoo.runs import compare
from alignzoo.statistics.intervals import Ends

PROMPTS, SHOWN, MINUTES = 200, 10, 15
RESULTS = Path(__file__).parents[1] / "results" / "rlhf"


def main(overrides: list[str]) -> int:
    cfg = alignzoo.compose(["pipeline=rlhf", *overrides])
    summaries = carry_out.run(cfg)
    if summaries[-1]["status"] != "finished":
        sys.exit("interrupted: the same command goes on")
    first, last = (Path(summaries[i]["run_dir"]) for i in (0, -1))
    comparison = compare.compare(last, first, PROMPTS, ["gold=sentiment"])
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "comparison.json").write_text(comparison.to_json() + "\n", "utf-8")
    shutil.copy(last.parent / "pipeline.json", RESULTS / "pipeline.json")
    stages = json.loads((last.parent / "pipeline.json").read_text("utf-8"))["stages"]
    text = page(comparison, stages, ["python", "-m", "benchmarks.rlhf", *overrides])
    (RESULTS / "README.md").write_text(text, "utf-8")
    print(text)
    return 0


def demands(comparison: compare.Against, seconds: float) -> list[tuple[str, str, bool]]:
    """What is asked, what was measured, whether it holds."""
    gold, distinct, perplexity = (comparison[name] for name in ("gold", "distinct_2", "perplexity"))
    low = gold.interval[0] if gold.interval else float("-inf")
    return [
        ("mean sentiment at least 0.3 above sft's", f"{gold.compared:+.3f}", gold.compared >= 0.3),
        ("its 95 % interval excludes 0.15", ends(gold.interval), low > 0.15),
        ("distinct-2 at least 0.8 of sft's", f"{distinct.compared:.3f}", distinct.compared >= 0.8),
        ("perplexity at most 1.5 times sft's", f"{perplexity.compared:.3f}", perplexity.compared <= 1.5),
        (f"all stages in {MINUTES} minutes", f"{seconds / 60:.1f}", seconds <= 60 * MINUTES),
    ]


def page(comparison: compare.Against, stages: list[dict[str, Any]], command: list[str]) -> str:
    """The results as Markdown."""
    seconds = sum(stage["seconds"] for stage in stages)
    lines = [
        "# RLHF on the story model", "",
        "`pipeline=rlhf`: sft on demonstrations, a reward model of pairs that the sft model wrote and VADER's sentiment judged",
        "with Bradley-Terry noise, ppo on that reward model with a KL leash. The policy never sees the judge itself. Made by",
        f"`{' '.join(command)}` on {os.cpu_count()} cores.", "",
        "| demanded | measured | holds |", "|---|---|---|",
        *(f"| {what} | {value} | {'yes' if holds else '**no**'} |" for what, value, holds in demands(comparison, seconds)), "",
        "| stage | seconds | held-out measures |", "|---|---|---|",
        *(f"| {s['name']} | {s['seconds']:.0f} | {measures(s['metrics'])} |" for s in stages), "",
        f"The policy against the sft model, on {comparison.prompts} held-out prompts and {comparison.demonstrations} held-out",
        "demonstrations; differences of means, and for distinct-n and perplexity ratios, with 95 % intervals:", "",
        "| | policy | sft | compared | interval |", "|---|---|---|---|---|",
        *(
            f"| {m.name} | {m.first:.4g} | {m.second:.4g} | {'x ' if m.ratio else ''}{m.compared:.3f} | {ends(m.interval)} |"
            for m in comparison.measures
        ),
        f"| win rate | | | {comparison.win_rate:.3f} | {ends(comparison.win_rate_interval)} |", "",
        f"## The first {SHOWN} of the {comparison.prompts}, not chosen", "",
        *(line for sample in comparison.samples[:SHOWN] for line in side_by_side(sample, comparison.judge)),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def side_by_side(sample: Any, judge: str) -> list[str]:
    sides = (("sft", sample.reference, "reference"), ("policy", sample.policy, "policy"))
    rows = [f"- {name} ({sample.scores[side][judge]:+.2f}): {' '.join(text.split())}" for name, text, side in sides]
    return [f"> {' '.join(sample.prompt.split())}", "", *rows, ""]


def measures(metrics: dict[str, float]) -> str:
    shown = ("gold", "reward", "kl", "perplexity", "distinct_2", "accuracy", "calibration_error")
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in shown if isinstance(metrics.get(name), float))


def ends(interval: Ends | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


if __name__ == "__main__":
    sys.exit(main([text.replace("folder=", "run_dir=", 1) if text.startswith("folder=") else text for text in sys.argv[1:]]))
