"""What a run costs: CPU seconds and wall seconds of each step, the loss of each step, and the peak of memory."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Meter(TrainerCallback):
    """Times every step from the end of the one before, so that reading and collating count too."""

    def __init__(self, path: Path) -> None:
        self.path, self.loss, self.norm, self.extra = path, dict[int, float](), dict[int, float](), list[dict[str, float]]()
        self.marks: list[tuple[float, float]] = []
        self.imported = _memory("VmRSS")

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.ready = _memory("VmRSS")
        self.marks.append((time.process_time(), time.perf_counter()))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.loss[state.global_step] = float(logs["loss"])
            self.norm[state.global_step] = float(logs.get("grad_norm") or 0.0)
            names = ("completions/mean_length", "length")
            self.extra.append({name: float(logs[name]) for name in names if name in logs})

    def write(self, **more: Any) -> None:
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self.marks, self.marks[1:], strict=False)]
        made = {
            "cpu": [cpu for cpu, _ in steps], "wall": [wall for _, wall in steps], "loss": list(self.loss.values()),
            "grad_norm": list(self.norm.values()), "extra": self.extra, "total_cpu": time.process_time(),
            "peak": _memory("VmHWM"), "rss_imported": self.imported, "rss_ready": self.ready, **more,
        }  # fmt: skip
        if all(self.extra):  # a program that samples: tokens a completion, by whatever name
            made["sampled"] = [next(iter(row.values())) for row in self.extra]
        self.path.write_text(json.dumps(made))


def _memory(field: str) -> float:
    """MB."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]
