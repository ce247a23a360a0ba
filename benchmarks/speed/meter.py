"""What a run costs: CPU seconds and wall seconds of each step, the loss of each step, and the peak of memory."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from benchmarks.speed.floor import peak
from benchmarks.speed.turns import Turns


class Meter(TrainerCallback):
    """Times every step from the end of the one before, so that reading and collating count too. After every `block` steps
    it is the other program's turn."""

    def __init__(self, block: int = 1) -> None:
        self.block, self.turns = block, Turns()
        self.cpu, self.wall, self.tokens = list[float](), list[float](), list[float]()
        self.logged: dict[int, dict[str, float]] = {}
        self.count = lambda: 0.0  # tokens trained on so far, where the program itself can say
        self.born = time.perf_counter()
        self.waited, self.mark = 0.0, (0.0, 0.0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.ready = memory("VmRSS")
        self._others()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        cpu, wall = self.mark
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.tokens.append(self.count())
        self.mark = (time.process_time(), time.perf_counter())
        if state.global_step == args.max_steps:
            self.total = (time.process_time(), time.perf_counter() - self.born - self.waited)
            self.highest = memory("VmHWM")
        if state.global_step % self.block == 0:
            self._others()

    def _others(self) -> None:
        before = time.perf_counter()
        self.turns.say()
        self.turns.wait()
        self.mark = (time.process_time(), time.perf_counter())
        self.waited += self.mark[1] - before

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.logged[state.global_step] = dict(logs)

    def found(self, module: nn.Module, start: Path, **more: Any) -> dict[str, Any]:
        """All of it, and what the machine can do at most, once training is over; `start`: the folder `module` began from."""
        rows = [self.logged[step] for step in sorted(self.logged)]
        tokens = [b - a for a, b in zip([0.0, *self.tokens], self.tokens, strict=False)]
        if not any(tokens):  # a program of TRL, which logs the sum
            sums = [float(row.get("num_tokens", 0.0)) for row in rows]
            tokens = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]
        return {
            "cpu": self.cpu, "wall": self.wall, "tokens": tokens, "loss": [float(row["loss"]) for row in rows],
            "grad_norm": [float(row.get("grad_norm") or 0.0) for row in rows],
            "length": [float(length) for row in rows if (length := row.get("completions/mean_length", row.get("length")))],
            "total_cpu": self.total[0], "total_wall": self.total[1], "peak_mb": self.highest, "ready_mb": self.ready,
            "peak_flops": peak(), "moved": moved(module, start), **more,
        }  # fmt: skip


@torch.no_grad()
def moved(module: nn.Module, start: Path) -> float:
    """How far the weights are from where they began: the Euclidean norm."""
    before = load_file(start / "model.safetensors")
    return float(sum(float((p - before[name]).double().square().sum()) for name, p in module.named_parameters()) ** 0.5)


def memory(field: str, process: int | str = "self") -> float:
    """MB."""
    return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1024  # type: ignore[index]
