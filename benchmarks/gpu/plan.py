"""What is measured, in this order, until the time is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = "alignzoo"
SIDES: Mapping[str, dict[str, Any]] = {  # of TRL: what its config says beside what all share
    "TRL": {},
    "TRL padding-free": {"padding_free": True},
    "TRL static cache": {"cache_implementation": "static"},
}
WARM_UP = 2  # steps of every side that nothing counts, and that the first losses are compared on; one more sets the pace


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `precision`: autocast is bfloat16 over weights in float32, bfloat16 is weights and all. `seconds`: what
    it takes with set-up, as planned; `rounds`: segments of each side; `segment`: about the seconds of the slowest side's."""

    algorithm: str
    batch: int  # records, or completions, of a step
    seconds: float
    sides: tuple[str, ...] = (OURS, "TRL")
    precision: str = "autocast"
    rounds: int = 4
    segment: float = 3.0
    new_tokens: int = 128

    @property
    def name(self) -> str:
        more = [side.removeprefix("TRL ").replace(" ", "-") for side in self.sides if side not in (OURS, "TRL")]
        return "-".join([self.algorithm, self.precision, *more])


@dataclass(frozen=True, kw_only=True)
class Size:
    """The model, the rows, and what a segment has at most."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    pairs: int
    most: int = 25  # steps of a segment


LARGE = Size(  # Qwen2.5-0.5B
    hidden=896, layers=24, heads=14, key_heads=2, inner=4864, vocabulary=151_936, pairs=1800
)
SMALL = Size(hidden=64, layers=2, heads=4, key_heads=2, inner=128, vocabulary=2048, pairs=96, most=2)
ROWS = (
    Row(algorithm="dpo", batch=8, seconds=85),
    Row(algorithm="sft", batch=16, seconds=95, sides=(OURS, "TRL", "TRL padding-free")),
    Row(algorithm="grpo", batch=64, seconds=110, rounds=2, segment=8),
    Row(algorithm="ppo", batch=64, seconds=70, sides=(OURS,), rounds=2, segment=8),
    Row(algorithm="grpo", batch=64, seconds=100, precision="bfloat16", rounds=2, segment=6),
    Row(algorithm="dpo", batch=8, seconds=75, precision="bfloat16"),
    Row(algorithm="grpo", batch=64, seconds=100, precision="bfloat16", sides=(OURS, "TRL static cache"), rounds=2, segment=4),
)
FEW = {"seconds": 1, "rounds": 2, "segment": 0.1, "new_tokens": 6}
SMALL_ROWS = (  # each precision, and all that can happen to a row, on a CPU
    Row(algorithm="dpo", batch=4, precision="float32", **FEW),
    Row(algorithm="sft", batch=4, sides=(OURS, "TRL", "TRL padding-free"), **FEW),
    Row(algorithm="grpo", batch=8, precision="float32", **FEW),
    Row(algorithm="ppo", batch=8, precision="bfloat16", sides=(OURS,), **FEW),
)
