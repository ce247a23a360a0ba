"""The page of the tables, drawn from the lines: `python -m benchmarks.gpu.page RESULTS [FOLDER]`."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import lines
from benchmarks.gpu.plan import OURS, WARM_UP
from benchmarks.speed.page import NAMES, table

Line = dict[str, Any]
SAMPLING = ("grpo", "ppo")
COMPARED = 10  # first steps whose losses are compared, where both read rows; where they sample, those of the warm-up
KERNELS = 5
INTRODUCTION = """\
# Speed and memory on a GPU

Drawn from `results.jsonl` by `python -m benchmarks.gpu.page`; [benchmarks/gpu](../../gpu/README.md) says how it is measured.
{device}, {date}, commit {commit}; {versions}. A matrix product in the same run: {product:.0f} TFLOP/s.
The model: fresh weights, {layers} layers of width {hidden}, {vocabulary:,} tokens.

"""
READING = """
*Tokens*: useful ones, each prompt counted once; the median of the segments, warm-up left out, and in brackets the smallest
and the largest. *x*: alignzoo's over this one's, in the same round, likewise. *Sampled*: tokens of completions a second, where
there is a rollout. *Utilisation*: useful FLOPs over what the matrix product reached. *Memory*: the most that was allocated.
*Apart*: the losses of the first steps, and their gradient norms relatively; where the two sample, on the same completions.
*Busy*: the share of a step in which the GPU had anything to do. *Launches*, *waits*: a step's kernels, and how often the host
waited for the GPU, under the profiler.
"""
HEAD = ("algorithm", "precision", "program", "tokens/s", "x", "sampled/s", "utilisation", "memory, GiB", "apart",
        "busy", "launches", "waits", "segments")  # fmt: skip


def write(results: Path, folder: Path) -> Path:
    """Draw folder/README.md anew. Raises ValueError where nothing has been measured: there is no page without results."""
    read = lines.read(results)
    if not any(line["kind"] == "run" for line in read):
        raise ValueError(f"{results}: nothing has been measured")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "README.md"
    path.write_text(page(read))
    return path


def page(read: Sequence[Line]) -> str:
    about = next(line for line in read if line["kind"] == "run")
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    parts = [
        INTRODUCTION.format(
            **about["model"], device=about["device"], date=about["date"][:10], commit=about["commit"], versions=versions,
            product=about["product_flops"] / 1e12,
        ),
        table(HEAD, [cells(read, row, side) for row, side in sides(read)]), READING, "\n## Where a step's time goes\n\n",
        table(("row", "program", "kernels, and their share of the GPU's time"), kernels(read)), "\n## Settings\n\n",
        *(f"- {row}, {side}: `{json.dumps(of(read, 'run', row, side)[0]['settings'])}`\n" for row, side in sides(read)),
        "\n## Tests, and what failed or was left out\n\n", *map(remark, read),
    ]  # fmt: skip
    return "".join(parts)


def sides(read: Sequence[Line]) -> list[tuple[str, str]]:
    """(row, side) of whatever was measured, in order."""
    return list(dict.fromkeys((line["row"], line["side"]) for line in read if line["kind"] == "run"))


def of(read: Sequence[Line], kind: str, row: str, side: str) -> list[Line]:
    return [line for line in read if line["kind"] == kind and line.get("row") == row and line.get("side") == side]


def rate(line: Line, what: str = "useful_tokens") -> float:
    return line[what] / line["seconds"]


def ratios(read: Sequence[Line], row: str, side: str) -> list[float]:
    """alignzoo's tokens a second over this side's, round by round."""
    ours = {line["first_step"]: line for line in of(read, "run", row, OURS)}
    theirs = of(read, "run", row, side)
    return [rate(ours[line["first_step"]]) / rate(line) for line in theirs if line["first_step"] in ours]


def spread(values: Sequence[float], digits: str) -> str:
    return f"{statistics.median(values):{digits}} ({min(values):{digits}} to {max(values):{digits}})" if values else "-"


def apart(read: Sequence[Line], row: str, side: str) -> tuple[float, float] | None:
    """The largest difference of the losses, and relatively of the gradient norms, over the first steps."""
    curves = []
    for name in (OURS, side):
        logged = [line["logged"] for line in read if line.get("row") == row and line.get("side") == name and "logged" in line]
        curves.append({int(step): values for part in logged for step, values in part.items()})
    algorithm = next(line["algorithm"] for line in read if line["kind"] == "run" and line["row"] == row)
    first = WARM_UP if algorithm in SAMPLING else COMPARED
    pairs = [(curves[0][step], curves[1][step]) for step in sorted(curves[0].keys() & curves[1].keys()) if step <= first]
    if side == OURS or not pairs:
        return None
    losses = max(abs(a["loss"] - b["loss"]) for a, b in pairs)
    return losses, max(abs(a["grad_norm"] - b["grad_norm"]) / max(abs(b["grad_norm"]), 1e-12) for a, b in pairs)


def cells(read: Sequence[Line], row: str, side: str) -> list[str]:
    segments, profiles = of(read, "run", row, side), of(read, "profile", row, side)
    first, distance = segments[0], apart(read, row, side)
    seconds = sum(line["seconds"] for line in segments)
    flops = sum(line["useful_flops"] for line in segments) / seconds / first["product_flops"]
    sampled = [rate(line, "completion_tokens") for line in segments]
    profiled = ["-"] * 3
    if profiles:
        last = profiles[-1]
        counts = (last["launches"] / last["steps"], sum(last["waits"].values()) / last["steps"])
        profiled = [f"{last['busy']:.0%}", *(f"{count:,.0f}" for count in counts)]
    return [
        NAMES[first["algorithm"]], first["precision"], side, spread([rate(line) for line in segments], ",.0f"),
        spread(ratios(read, row, side), ".2f") if side != OURS else "1",
        f"{statistics.median(sampled):,.0f}" if first["algorithm"] in SAMPLING else "-", f"{flops:.1%}",
        f"{max(line['peak_bytes'] for line in segments) / 2**30:.1f}",
        "{:.1e}, {:.1e}".format(*distance) if distance else "-", *profiled, f"{len(segments)} x {first['steps']} steps",
    ]  # fmt: skip


def kernels(read: Sequence[Line]) -> list[list[str]]:
    rows = []
    for line in read:
        if line["kind"] == "profile":
            top = (f"`{kernel['name'][:60].replace('|', '/')}` {kernel['share']:.0%}" for kernel in line["kernels"][:KERNELS])
            rows.append([line["row"], line["side"], ", ".join(top)])
    return rows


def remark(line: Line) -> str:
    """What a line says that is no measurement."""
    if line["kind"] == "tests":
        return f"- the tests that wait for a GPU: {line['summary'].strip('= ')}\n"
    if line["kind"] == "skipped":
        return f"- {line['row']} was left out: it {line['reason']}\n"
    if line["kind"] == "failed":
        last = (line["output"].strip().splitlines() or [""])[-1]
        return f"- {line['row']}{', ' + line['side'] if 'side' in line else ''} failed: {line['error']}, `{last[:200]}`\n"
    return ""


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "benchmarks/results/gpu")))
