"""From what two programs measured to the figures of a table. Free of torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Side = Mapping[str, Any]
GATE = 2e-5  # how far apart the two loss curves may be over the first steps
CLOSE = 1e-3  # how far apart, relatively, the ways may be that the weights moved
GRADIENT = 1e-4  # and the gradient norms of all of these steps, where completions are replayed
GATED = 10  # steps
WARM_UP = 2  # steps left out of every ratio


def gate(ours: Side, theirs: Side, replayed: bool = False) -> dict[str, Any]:
    """Whether the two follow the same curve, and their weights move as far; on replayed completions, where a loss may be 0
    whatever happens, the gradient norms count too."""
    steps = min(GATED, len(ours["loss"]), len(theirs["loss"]))
    loss = max(abs(o - t) for o, t in zip(ours["loss"][:steps], theirs["loss"][:steps], strict=True))
    norms = zip(ours["grad_norm"][:steps], theirs["grad_norm"][:steps], strict=True)
    gradient = max(apart(o, t) for o, t in norms)
    moved = apart(ours["moved"], theirs["moved"])
    passed = loss <= GATE and moved <= CLOSE and (not replayed or gradient <= GRADIENT)
    return {"steps": steps, "loss": loss, "gradient": gradient, "moved": moved, "replayed": replayed, "passed": passed}


def apart(a: float, b: float) -> float:
    """Relatively."""
    return abs(a - b) / max(abs(b), 1e-12)


def blocks(steps: Sequence[float], size: int, warm_up: int = WARM_UP) -> list[float]:
    """Sums over the blocks of so many steps each, those that hold a warm-up step left out."""
    first = -(-warm_up // size)
    return [sum(steps[i * size : (i + 1) * size]) for i in range(first, len(steps) // size)]


def per(amounts: Sequence[float], units: Sequence[float]) -> list[float]:
    return [amount / unit for amount, unit in zip(amounts, units, strict=True)]


def ratios(ours: Side, theirs: Side, unit: str, size: int, clock: str = "cpu") -> list[float]:
    """TRL's time over ours, block by block: a step's, or that of a token of `unit` ("tokens" trained on, or "sampled") where
    the two don't work on the same ones."""
    our_times, their_times = blocks(ours[clock], size), blocks(theirs[clock], size)
    if unit != "steps":
        our_times, their_times = per(our_times, blocks(ours[unit], size)), per(their_times, blocks(theirs[unit], size))
    return per(their_times, our_times)


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(ours: Side, theirs: Side, unit: str, size: int, clock: str = "cpu") -> dict[str, Any]:
    """All figures of one row. Rates and utilisation count useful work only, and that of the blocks that count."""
    figures: dict[str, Any] = {"ratio": spread(ratios(ours, theirs, unit, size, clock))}
    figures["alternations"] = len(blocks(ours[clock], size))
    peak = max(ours["peak_flops"], theirs["peak_flops"])
    figures["peak_gflops"] = peak / 1e9
    share = _share_of_work(ours, theirs, unit, size)
    for name, side, work in (("ours", ours, 1.0), ("theirs", theirs, share)):
        seconds = sum(blocks(side[clock], size))
        flops, tokens = (work * sum(blocks(ours[key], size)) for key in ("useful_flops", "useful_tokens"))
        figures[name] = {
            "seconds_per_step": seconds / (figures["alternations"] * size), "tokens_per_second": tokens / seconds,
            "utilisation": flops / seconds / peak, "peak_mb": side["peak_mb"], "ready_mb": side["ready_mb"],
            "whole_run_seconds": side[f"total_{clock}"],
        }  # fmt: skip
        if "sampled" in (unit, *(["sampled"] if side.get("sampled") else [])):
            figures[name]["ms_per_sampled_token"] = 1000 * seconds / max(sum(_sampled(side, size)), 1)
    figures["throughput_ratio"] = figures["ours"]["tokens_per_second"] / figures["theirs"]["tokens_per_second"]
    figures["peak_ratio"] = ours["peak_mb"] / theirs["peak_mb"]
    grown = [side["peak_mb"] - side["ready_mb"] for side in (ours, theirs)]
    figures["peak_over_ready_ratio"] = grown[0] / grown[1] if grown[1] else None
    figures["whole_run_ratio"] = theirs[f"total_{clock}"] / ours[f"total_{clock}"]
    return figures


def _share_of_work(ours: Side, theirs: Side, unit: str, size: int) -> float:
    """How much of the useful work that we did the other program did, in tokens of `unit`: all of it where it did the same."""
    if unit == "steps":
        return 1.0
    return sum(blocks(theirs[unit], size)) / sum(blocks(ours[unit], size))


def _sampled(side: Side, size: int) -> list[float]:
    """Tokens sampled in the blocks that count; a rollout that several steps learn from is one block's."""
    each = len(side["cpu"]) // len(side["sampled"])
    steps = [tokens if i % each == 0 else 0 for tokens in side["sampled"] for i in range(each)]
    return blocks(steps, size)
