"""One program on the GPU, in turns with others: `python -m benchmarks.gpu.side JOB` (a file, see `job`).

On its standard input it is told `run STEPS PLACE`, or `profile STEPS PLACE`; each makes one line of the results.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from benchmarks.gpu import lines, profile
from benchmarks.gpu.job import Job
from benchmarks.gpu.plan import OURS
from benchmarks.speed.floor import Group, Shape, useful
from benchmarks.speed.meter import memory
from benchmarks.speed.turns import Turns

CUDA = torch.cuda.is_available()
Work = Callable[[], list[list[Group]]]  # what the steps since the last call have trained on


class Segments(TrainerCallback):
    """Runs the trainer so many steps at a time, and writes down what they took."""

    def __init__(self, job: Job, work: Work, shape: Shape) -> None:
        self.job, self.work, self.shape, self.turns = job, work, shape, Turns()
        self.logged: dict[int, dict[str, float]] = {}
        self.step = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._next()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step += 1
        if self.step == self.until:
            self._write()
            self._next()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.logged[state.global_step] = {k: float(logs[k]) for k in ("loss", "grad_norm") if k in logs}

    def _next(self) -> None:
        self.turns.say()
        if not (line := sys.stdin.readline().split()):
            raise SystemExit("nobody waits for this any more")
        self.what, steps, self.place = line[0], int(line[1]), int(line[2])
        self.since, self.until = self.step, self.step + steps
        self.profiler = profile.started() if self.what == "profile" else None
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
        self.start = moment()

    def _write(self) -> None:
        seconds = moment() - self.start
        peak = torch.cuda.max_memory_allocated() if CUDA else int(memory("VmHWM") * 2**20)
        steps, job = self.work(), self.job
        figures: dict[str, Any] = {"seconds": seconds, "peak_bytes": peak}
        if self.profiler is not None:
            figures |= profile.summary(self.profiler, seconds)
        else:
            figures |= {
                "trained_tokens": sum(p * len(cs) + sum(cs) for step in steps for p, cs in step),
                "useful_tokens": sum(p + sum(cs) for step in steps for p, cs in step),
                "completion_tokens": sum(sum(cs) for step in steps for _, cs in step),
                "useful_flops": sum(useful(job.algorithm, self.shape, step, passes=job.kind.passes) for step in steps),
                "logged": self.logged,
            }
        head = {"kind": self.what, "row": job.about["row"], "algorithm": job.algorithm, "side": job.side}
        head |= {"place": self.place, "first_step": self.since + 1, "steps": self.until - self.since}
        lines.write(Path(job.out), head | figures | {"settings": job.settings(CUDA)} | job.about)
        self.logged = {}


def moment() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def main(path: str) -> None:
    warnings.simplefilter("ignore")
    job = Job(**json.loads(Path(path).read_text()))
    with tempfile.TemporaryDirectory() as run:
        (ours if job.side == OURS else theirs)(job, Path(run))


def ours(job: Job, run: Path) -> None:
    from alignzoo.config import compose, instantiate
    from benchmarks.speed import ours as speed

    trainer = speed.trainer_of(instantiate(compose(job.ours())), run / "timed", run)
    batches, rollouts = list[Any](), list[Any]()
    trainer._record = speed.listening(trainer._record, batches)
    if job.replayed:
        trainer.sample = speed.recording(trainer.sample, rollouts)

    def work() -> list[list[Group]]:
        if 0 < len(rollouts) <= job.replayed:
            Path(job.rollouts).write_text(json.dumps([speed.ids_of(rollout) for rollout in rollouts]))
        steps = [speed.groups_of(batch) for batch in batches]
        batches.clear()
        return steps

    segments = Segments(job, work, Shape.of(trainer.trained.main.config))
    trainer.callback_handler.callbacks.insert(0, segments)  # before the engine's own, whose evaluation is no part of a step
    trainer.train()


def theirs(job: Job, run: Path) -> None:
    from benchmarks.speed import theirs as speed

    trainer = speed.MAKERS[job.algorithm](job, speed.arguments(job, str(run)) | job.theirs(CUDA))
    inputs, compute = list[Any](), trainer.compute_loss

    def listen(model: Any, batch: Any, *rest: Any, **keywords: Any) -> Any:
        inputs.append({name: batch[name] for name in READ if name in batch})
        return compute(model, batch, *rest, **keywords)

    def work() -> list[list[Group]]:
        steps = [list(groups(batch)) for batch in inputs]
        inputs.clear()
        return steps

    trainer.compute_loss = listen
    if job.replayed:
        trainer._generate_single_turn = replayed(trainer._generate_single_turn, job)
    trainer.add_callback(Segments(job, work, Shape.of(trainer.model.config)))
    trainer.train()


READ = ("input_ids", "attention_mask", "completion_mask", "labels", "position_ids", "prompt_ids", "prompt_mask")


def groups(batch: dict[str, Tensor]) -> Iterator[Group]:
    """The lengths in what one of TRL's trainers computes its loss of: of each prompt, and of each of its completions."""
    if "prompt_ids" in batch:  # GRPO: rows in any order, padded on the left
        rows: dict[tuple[int, ...], list[int]] = {}
        for ids, prompt, completion in zip(batch["prompt_ids"], batch["prompt_mask"], batch["completion_mask"], strict=True):
            rows.setdefault(tuple(ids[prompt.bool()].tolist()), []).append(int(completion.sum()))
        yield from ((len(ids), lengths) for ids, lengths in rows.items())
    elif "completion_mask" in batch:  # DPO: the chosen ones, then the rejected ones
        completions = batch["completion_mask"].sum(1)
        prompts = (batch["attention_mask"].sum(1) - completions).chunk(2)[0].tolist()
        for prompt, *pair in zip(prompts, *(half.tolist() for half in completions.chunk(2)), strict=True):
            yield prompt, pair
    else:  # SFT: padded, or in one row with positions that start again
        scored = batch["labels"] != -100
        if "attention_mask" in batch:
            lengths, scores = batch["attention_mask"].sum(1).tolist(), scored.sum(1).tolist()
        else:
            row = (batch["position_ids"][0] == 0).cumsum(0) - 1
            lengths, scores = row.bincount().tolist(), row.bincount(scored[0].float()).long().tolist()
        yield from ((length - score, [score]) for length, score in zip(lengths, scores, strict=True))


def replayed(live: Callable[..., Any], job: Job) -> Callable[..., Any]:
    """TRL's sampling, which for the first steps gives what alignzoo sampled for the same prompts."""
    left: Iterator[dict[str, Any]] | None = None

    def generate(prompts: list[list[int]], *rest: Any, **keywords: Any) -> Any:
        nonlocal left
        left = iter(json.loads(Path(job.rollouts).read_text())) if left is None else left
        if (rollout := next(left, None)) is None:
            return live(prompts, *rest, **keywords)
        if rollout["prompts"] != prompts:
            raise ValueError("the two programs read other prompts")
        return rollout["completions"], None

    return generate


if __name__ == "__main__":
    main(sys.argv[1])
