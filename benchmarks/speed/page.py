"""The page of the tables, drawn from the results: `python -m benchmarks.speed.page [FOLDER]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]
NAMES = {
    "dpo": "DPO", "sft": "SFT", "bradley_terry": "reward model", "kto": "KTO", "rloo": "RLOO", "grpo": "GRPO",
    "distill": "on-policy distillation", "ppo": "PPO",
}  # fmt: skip
SIZES = ("1M", "15M", "60M")
COLUMNS = ("tuned", "default", "best", "accumulated", "compact")


@dataclass(frozen=True)
class Target:
    """What was asked for: times as fast as TRL tuned (reach, aim), as TRL's best, and the share of its peak memory."""

    reach: float
    aim: float
    best: float | None
    memory: float


TARGETS = {
    "dpo": Target(3.5, 5, 2.5, 0.45), "sft": Target(3.5, 4.5, 1.6, 0.40), "bradley_terry": Target(2.8, 3.5, 2.3, 0.55),
    "kto": Target(3.2, 4, 2.5, 0.55), "rloo": Target(2.3, 3.5, 1.8, 0.45), "grpo": Target(2.3, 3.5, 1.8, 0.45),
    "distill": Target(1.6, 2.5, 1.6, 0.70), "ppo": Target(2.5, 2.5, None, 0.5),
}  # fmt: skip
INTRODUCTION = """\
# Speed and memory beside TRL

Drawn from the JSON files of this folder by `python -m benchmarks.speed.page`. All of them again:
`make bench-speed PAIRS=... TEXTS=...`; [benchmarks/speed](../../../benchmarks/speed/README.md) says how it is measured.

"x" is TRL's time over alignzoo's for the same work: the same rows, a sampled token where the two sample, a token trained on
where TRL packs or sorts its rows. PPO, which TRL no longer has, is compared with alignzoo's own padded path and plain decoding.

**One record at a time**, its gradients accumulated, is faster on a CPU than TRL tuned, where nothing is sampled, and takes it
least memory: a forward then pads little, and a CPU does not mind small ones. On a GPU it would leave most of the device idle.
No target was set for it.
"""
READING = """\
*x*: the median over alternations, of several steps each, and in brackets the smallest and the largest: rows differ in length,
so steps do, and the longer they are the more of TRL's is padding. *Throughput*: of all steps together. *Loss apart*: the
largest difference of the two loss curves over the first steps, at most 2e-5 (a dagger: on the same completions). *Memory*:
alignzoo's peak over TRL's, of the whole process, imports included, and in brackets of what training added to what was
resident when it began. *Whole run*: from the start of the interpreter to the last step, imports and set-up included; the more
steps, the nearer to the other ratio. *Useful tokens*: each prompt counted once. *Utilisation*: useful FLOPs over what a
float32 matrix product reached in the same run. *Load*: of the machine, before and after; the one program that computes is 1
of it.
"""


def write(folder: Path) -> Path:
    """Draw folder/README.md anew."""
    path = folder / "README.md"
    path.write_text(
        page(results(folder), sorted(file.name for file in folder.glob("*.md") if file.name != "README.md"), folder)
    )
    return path


def results(folder: Path) -> list[Result]:
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [row for row in results if "ratio" in row and row["algorithm"] in NAMES]
    place = lambda row: (  # noqa: E731
        row["profile"] != "hh", SIZES.index(row["size"]), row["threads"], COLUMNS.index(row["column"]),
        list(NAMES).index(row["algorithm"]), row["label"],
    )  # fmt: skip
    return sorted(rows, key=place)


def page(rows: Sequence[Result], pages: Sequence[str] = (), folder: Path | None = None) -> str:
    parts = [INTRODUCTION, "## Against what was asked for\n", targets(rows), "## Every row\n", READING, every(rows)]
    plots = sorted(folder.glob("*.svg")) if folder else []
    if plots:
        parts += ["## Cost against useful tokens\n", *(f"![{plot.stem}]({plot.name})\n" for plot in plots)]
    if pages:
        parts += ["## More\n", "".join(f"- [{name.removesuffix('.md')}]({name})\n" for name in pages)]
    return "\n".join(parts)


def targets(rows: Sequence[Result]) -> str:
    """Each algorithm's figures beside what was asked for, in bold where they are not met."""
    head = (
        "algorithm", "against TRL tuned, 1M", "15M", "60M", "asked: reach / aim", "against TRL best, 1M", "15M", "asked",
        "TRL one record at a time, 1M", "15M", "memory 1M", "15M", "60M", "asked",
    )  # fmt: skip
    body = []
    for name, target in TARGETS.items():
        rows_by_column = {
            (row["size"], row["column"]): row
            for row in rows
            if row["algorithm"] == name and row["profile"] == "hh" and row["threads"] == 1 and not row["label"]
        }
        tuned = [rows_by_column.get((size, "tuned")) for size in SIZES]
        speeds = [judged(figure(row, "ratio"), target.reach, "x") for row in tuned]
        best = [judged(figure(rows_by_column.get((size, "best")), "ratio"), target.best or 0, "x") for size in SIZES[:2]]
        single = [judged(figure(rows_by_column.get((size, "accumulated")), "ratio"), 0, "x") for size in SIZES[:2]]
        memory = [judged(figure(row, "peak_ratio"), target.memory, "", most=True) for row in tuned]
        wanted = [f"{target.reach:g}x / {target.aim:g}x", f"{target.best:g}x" if target.best else "-"]
        body.append((NAMES[name], *speeds, wanted[0], *best, wanted[1], *single, *memory, f"<= {target.memory:.2f}"))
    return (
        table(head, body)
        + "\nIn bold: short of the target. A dash: not measured, or its gate failed (below), which voids it.\n"
    )


def figure(row: Result | None, name: str) -> float | None:
    """Nothing where the row's gate has failed: its ratio counts for nothing."""
    value = row[name] if row and row["gate"]["passed"] else None
    return value["median"] if isinstance(value, dict) else value


def judged(value: float | None, target: float, unit: str, most: bool = False) -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}{unit}"
    return text if (value <= target if most else value >= target) else f"**{text}**"


def every(rows: Sequence[Result]) -> str:
    head = ("row", "x", "throughput", "alternations", "loss apart", "memory: process (training)", "whole run",
            "useful tokens/s, ours / TRL", "utilisation", "ms a sampled token", "steps", "load", "commit")  # fmt: skip
    return table(head, [line(row) for row in rows])


def line(row: Result) -> tuple[str, ...]:
    ours, theirs, ratio = row["ours"], row["theirs"], row["ratio"]
    waiting = " (spinning)" if row["waiting"] == "library" else ""
    threads = f", {row['threads']} threads{waiting}, wall clock" if row["threads"] > 1 else ""
    label = f", {row['label']}" if row["label"] else ""
    what = f"{NAMES[row['algorithm']]}, {row['profile']} {row['size']}, {row['column']}{threads}{label}"
    grown = row["peak_over_ready_ratio"]
    sampled = [side.get("ms_per_sampled_token") for side in (ours, theirs)]
    return (
        what, f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})", f"{row['throughput_ratio']:.2f}",
        f"{row['alternations']} x {row['turn']} steps", gate(row["gate"]),
        f"{row['peak_ratio']:.2f}" + (f" ({grown:.2f})" if grown is not None else ""), f"{row['whole_run_ratio']:.2f}",
        f"{ours['tokens_per_second']:,.0f} / {theirs['tokens_per_second']:,.0f}",
        f"{ours['utilisation']:.0%} / {theirs['utilisation']:.0%}",
        " / ".join(f"{value:.2f}" for value in sampled) if all(sampled) else "-", str(row["steps"]),
        "{:.1f} to {:.1f}".format(*row["load"]), row["commit"],
    )  # fmt: skip


def gate(outcome: Result) -> str:
    if not outcome["steps"]:
        return f"as {outcome['see']}"
    text = f"{outcome['loss']:.1e}{'†' if outcome['replayed'] else ''}"
    more = f", gradient norms {outcome['gradient']:.1e}, way moved {outcome['moved']:.1e}"
    return text if outcome["passed"] else f"**failed: {text}{more}**"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/speed")))
