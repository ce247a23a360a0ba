"""Where the time of a step goes, and what the floor is: `python -m benchmarks.speed.profile FOLDER` (see `material`)."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from alignzoo.config import compose, instantiate
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt
from benchmarks.speed.floor import Shape, peak, useful
from benchmarks.speed.kinds import KINDS
from benchmarks.speed.measure import RESULTS, provenance
from benchmarks.speed.ours import groups_of
from benchmarks.speed.page import NAMES, table

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmm_", "linear", "matmul")
MOVES = (
    "copy_", "cat", "index", "index_select", "gather", "index_put_", "_index_put_impl_", "scatter_add_", "index_add",
    "index_add_", "embedding", "embedding_dense_backward", "index_copy_", "index_select_backward", "clone", "fill_", "zero_",
    "_to_copy",
)  # fmt: skip
HEAD = """\
# Where the time of a step goes

One thread. The profiler makes small operations dearer, so that shares say more than milliseconds. The floor: FLOPs that nobody
can do without, at the rate that a matrix product reached in the same process. Commit {commit}, load {load:.1f};
`python -m benchmarks.speed.profile`.

"""
STEP = """\
## {name}, {size}

A step takes {ms:.0f} ms of CPU time (median of {count}, without the profiler). It has {gigaflop:.2f} GFLOP that nobody can do
without; at {peak:.0f} GFLOP/s they take {floor:.0f} ms: the floor, {share:.0%} of the step.
The step that was profiled, {whole:.0f} ms (floor {its_floor:.0f} ms):

{table}"""
WARM, TIMED = 3, 6  # steps: the first ones count for nothing, one of the others is profiled


def part_of(name: str, shapes: Iterable[Any], vocabulary: int) -> str:
    """Which part of the table an operation belongs to."""
    short = name.removeprefix("aten::")
    if "scaled_dot_product" in short or "flash_attention" in short:
        return "attention"
    if short in PRODUCTS:
        wide = any(vocabulary in shape for shape in shapes if isinstance(shape, list | tuple))
        return "products with the head" if wide else "products of the trunk"
    if "adam" in short or "foreach" in short or "Optimizer" in name:
        return "optimizer"
    if short in MOVES:
        return "moving and gathering rows"
    return "elementwise, norms, softmax"


class Stopwatch(TrainerCallback):
    """Times the steps; the last one runs under the profiler."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.mark = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.process_time() - self.mark)
        if state.global_step == args.max_steps - 1:
            self.profiler.start()
            self.started = time.perf_counter()
        if state.global_step == args.max_steps:
            self.profiled = time.perf_counter() - self.started  # the profiler's clock is the wall's
            self.profiler.stop()
        self.mark = time.process_time()


def step(folder: Path, algorithm: str, new_tokens: int = 128) -> dict[str, Any]:
    """The parts of one step, in seconds, beside the time of a step that is not profiled and the floor."""
    kind, steps = KINDS[algorithm], WARM + TIMED + 1
    setup = instantiate(compose(kind.overrides(folder, steps, new_tokens)))
    with tempfile.TemporaryDirectory() as run:
        trainer = Builder(setup, Path(run), Path(run) / "cache").trainer(Interrupt(), lambda step, row: None)
        watch, batches, record = Stopwatch(), list[Any](), trainer._record

        def listen(metrics: Any, batch: Any) -> None:
            batches.append(batch)
            record(metrics, batch)

        trainer._record = listen  # type: ignore[method-assign]
        trainer.callback_handler.callbacks.insert(0, watch)
        trainer.train()
    config = trainer.trained.main.config
    shape, best = Shape.of(config), peak()
    parts: dict[str, float] = {}
    for event in watch.profiler.key_averages(group_by_input_shape=True):
        if event.key.startswith("aten::"):
            name = part_of(event.key, event.input_shapes, config.vocab_size)
            parts[name] = parts.get(name, 0.0) + event.self_cpu_time_total / 1e6
    whole = watch.profiled
    parts["Python, the engine, autograd's own"] = max(whole - sum(parts.values()), 0.0)
    flops = [useful(algorithm, shape, groups_of(batch)) for batch in batches]
    return {
        "algorithm": algorithm, "parts": parts, "profiled_seconds": whole, "profiled_floor": flops[-1] / best,
        "seconds": statistics.median(watch.seconds[WARM:-1]), "floor": statistics.median(flops[WARM:-1]) / best,
        "gigaflop": statistics.median(flops[WARM:-1]) / 1e9, "peak_gflops": best / 1e9,
    }  # fmt: skip


def section(step: dict[str, Any], size: str) -> str:
    """One step's table."""
    whole = step["profiled_seconds"]
    body = [(name, f"{1000 * s:.1f}", f"{s / whole:.0%}") for name, s in sorted(step["parts"].items(), key=lambda p: -p[1])]
    return STEP.format(
        name=NAMES[step["algorithm"]], size=size, ms=1000 * step["seconds"], count=TIMED, gigaflop=step["gigaflop"],
        peak=step["peak_gflops"], floor=1000 * step["floor"], share=step["floor"] / step["seconds"], whole=1000 * whole,
        its_floor=1000 * step["profiled_floor"], table=table(("part", "ms", "share"), body),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.profile", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="as `python -m benchmarks.speed` leaves them, named PROFILE-SIZE")
    parser.add_argument("--algorithms", default="dpo,rloo")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = provenance(0.0)
    steps = {
        f"{name}-{folder.name}": step(folder, name) for folder in options.folders for name in options.algorithms.split(",")
    }
    (options.out / "profile.json").write_text(json.dumps({**about, "steps": steps}, indent=1) + "\n")
    text = "\n".join(section(step, name.split("-", 1)[1].replace("-", " ")) for name, step in steps.items())
    head = HEAD.format(commit=about["commit"], load=about["load"][1])
    (options.out / "profile.md").write_text(head + text)
    print(text)


if __name__ == "__main__":
    main()
