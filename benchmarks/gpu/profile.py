"""Where the time of a step goes on a GPU: which kernels, how long the GPU waits for its host, how often the host for it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

TOP = 15
WAITS = ("Synchronize", "_local_scalar_dense")  # ends of names: of CUDA's own calls, and on a CPU of what would be one


def started() -> Any:
    """Of the GPU and CUDA's calls alone: operations of the host as well would make a rollout's profile gigabytes."""
    cuda = torch.cuda.is_available()
    profiler = profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
    profiler.start()
    return profiler


def summary(profiler: Any, seconds: float) -> dict[str, Any]:
    """The figures of one line; `seconds`: that it ran. On a CPU operations stand for kernels, those inside others included."""
    profiler.stop()
    events = [event for event in profiler.profiler.kineto_results.events() if not event.is_user_annotation()]
    return figures([(e.name(), e.start_ns(), e.duration_ns(), str(e.device_type()).endswith("CUDA")) for e in events], seconds)


def figures(events: list[tuple[str, int, int, bool]], seconds: float) -> dict[str, Any]:
    """events: name, start and duration in ns, and whether the GPU is busy with it."""
    on_gpu = [event for event in events if event[3]] or events
    spent: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    busy = end = 0
    for name, start, duration, _ in sorted(on_gpu, key=lambda event: event[1]):
        spent[name][0] += duration
        spent[name][1] += 1
        busy += max(0, start + duration - max(start, end))
        end = max(end, start + duration)
    whole = sum(total for total, _ in spent.values()) or 1
    top = sorted(spent.items(), key=lambda item: -item[1][0])[:TOP]
    waits: dict[str, int] = defaultdict(int)
    for name, *_ in events:
        if name.endswith(WAITS):
            waits[name] += 1
    return {
        "kernels": [{"name": name[:120], "share": total / whole, "calls": calls} for name, (total, calls) in top],
        "launches": len(on_gpu), "busy": busy / 1e9 / seconds, "waits": dict(waits),
        "copies_to_host": sum("DtoH" in name for name, *_ in events),
    }  # fmt: skip
