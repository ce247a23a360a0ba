"""alignzoo's side: `python -m benchmarks.speed.ours JOB` (a file, see `job`)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.batch import Batch, Completions, Pairs
from alignzoo.config import compose, instantiate
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt
from benchmarks.speed.floor import Group, Shape, useful
from benchmarks.speed.job import Job
from benchmarks.speed.kinds import GATE, PADDED
from benchmarks.speed.meter import Meter


def run(job: Job) -> dict[str, Any]:
    kind, folder = job.kind, Path(job.folder)
    beforehand = kind.refers and job.column == "best"
    more = [*PADDED] * (job.column == "padded") + ["reference=cached"] * beforehand + [*GATE["ours"]] * job.replay
    setup = lambda: instantiate(compose([*kind.overrides(folder, job.steps, job.new_tokens), *more, *job.overrides]))  # noqa: E731
    with tempfile.TemporaryDirectory() as run:
        if beforehand:  # a first run on the same rows fills the cache
            trainer_of(setup(), Path(run) / "first", Path(run)).train()
        trainer = trainer_of(setup(), Path(run) / "timed", Path(run))
        meter, batches, rollouts = Meter(job.block), list[Any](), list[Any]()
        meter.count = lambda: trainer.cost.counts["trained_tokens"]
        trainer.callback_handler.callbacks.insert(0, meter)  # before the engine's own, whose evaluation is no part of a step
        trainer._record = listening(trainer._record, batches)
        if kind.samples:
            trainer.sample = recording(trainer.sample, rollouts)
        trainer.train()
    groups = [groups_of(batch) for batch in batches]
    shape = Shape.of(trainer.trained.main.config)
    teacher = Shape.of(trainer.roles.teacher.module.config) if job.algorithm == "distill" else None
    return meter.found(
        trainer.trained.main,
        folder / kind.model,
        useful_tokens=[sum(p + sum(cs) for p, cs in step) for step in groups],
        useful_flops=[useful(job.algorithm, shape, step, teacher, kind.passes, beforehand) for step in groups],
        sampled=[int(rollout.attended.sum()) for rollout in rollouts],
        rollouts=[ids_of(rollout) for rollout in rollouts] if job.replay else [],
    )


def trainer_of(setup: Any, folder: Path, cache: Path) -> Any:
    folder.mkdir()
    return Builder(setup, folder, cache).trainer(Interrupt(), lambda step, row: None)


def groups_of(batch: Any) -> list[Group]:
    """The lengths in a record: of each prompt, and of each of its completions."""
    c: Completions = batch.both if isinstance(batch, Pairs) else batch
    lengths = c.attended.sum(1)
    return [(int(prompt), lengths[c.prompt_of == i].tolist()) for i, prompt in enumerate(c.prompts.attended.sum(1).tolist())]


def listening(record: Callable[..., None], batches: list[Any]) -> Callable[..., None]:
    def listen(metrics: Any, batch: Batch) -> None:
        batches.append(batch)
        record(metrics, batch)

    return listen


def recording(sample: Callable[..., Any], rollouts: list[Any]) -> Callable[..., Any]:
    def draw(index: int, records: Any) -> Any:
        rollouts.append(sample(index, records))
        return rollouts[-1]

    return draw


def ids_of(c: Completions) -> dict[str, Any]:
    prompts = [ids[mask].tolist() for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    return {
        "prompts": [prompts[i] for i in c.prompt_of.tolist()],
        "completions": [ids[mask].tolist() for ids, mask in zip(c.ids, c.attended, strict=True)],
    }


if __name__ == "__main__":
    Job.main(run, sys.argv[1])
