"""Properties of an algorithm in training: short runs of the real trainer on the toy task, compared bit by bit."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.common.folder import CHECKPOINTS, COMPLETIONS, METRICS, rows
from alignzoo.contracts import Algorithm, Couples
from alignzoo.engine import records
from alignzoo.errors import UserError
from alignzoo.settings import Dtype, Model, Optimizer
from alignzoo.testing import toys
from alignzoo.testing.lab import distance
from alignzoo.testing.reshape import nested, tensors
from alignzoo.testing.subject import Subject, expect, light_collections

VOLATILE = ("seconds", "cost/seconds", "tokens_per_second", "peak_memory")
# four records a step, from rollouts of eight: a rollout is half used at every odd step, and so is the window of a log line
PACE: dict[str, Any] = {
    "eval_prompts": 2,
    "batch": 4,
    "micro_batch": "2",
    "logging_steps": 2,
    "optimizer": Optimizer.adamw,
    "learning_rate": 0.01,
}


@dataclass
class Outcome:
    """What a run leaves behind."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    metrics: list[dict[str, Any]]
    completions: list[dict[str, Any]]

    def differences(self, other: Outcome) -> list[str]:
        """What differs by as much as a bit, named."""
        found = [f"weights of {n}" for n, x in self.weights.items() if not torch.equal(x, other.weights[n])]
        found += [f"optimizer {n}" for n, x in self.optimizer.items() if not torch.equal(x, other.optimizer[n])]
        mine, theirs = dict(tensors(self.state)), dict(tensors(other.state))
        found += [
            f"state {n}"
            for n in mine.keys() | theirs.keys()
            if n not in mine or n not in theirs or not torch.equal(mine[n], theirs[n])
        ]
        if numbers(self.state) != numbers(other.state):
            found.append(f"state {numbers(self.state)} != {numbers(other.state)}")
        for name, a, b in (
            (METRICS, self.metrics, other.metrics),
            (COMPLETIONS, self.completions, other.completions),
        ):
            if a != b:
                found.append(name + (f" ({len(a)} and {len(b)} rows)" if len(a) != len(b) else f" ({_first(a, b)})"))
        return found


def train(
    subject: Subject, label: str, algorithm: Algorithm | None = None, resume: Path | None = None, **changes: Any
) -> Outcome:
    """One run of the toy task in a folder named `label`; `resume` is a checkpoint of another folder's run."""
    folder = subject.folder / "runs" / subject.name / label
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = {key: changes.pop(key) for key in list(changes) if key not in ("model", "reward", "rollout")}
    trainer = toys.trainer(subject.setup(algorithm, training=settings, **changes), folder)
    light_collections()
    if resume is not None:
        for name in (METRICS, COMPLETIONS):
            if (origin := resume.parent.parent / name).exists():
                shutil.copy(origin, folder / name)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return outcome(trainer, folder)


def outcome(trainer: Any, folder: Path) -> Outcome:
    modules = {**trainer.trained.roles, **{name: module for name, (module, _) in trainer.followers.items()}}
    return Outcome(
        weights={f"{r}.{n}": x.detach().clone() for r, m in modules.items() for n, x in m.state_dict().items()},
        optimizer={path: x.clone() for path, x in tensors(trainer.optimizer.state_dict()["state"])},
        state={
            "algorithm": copy.deepcopy(trainer.algorithm.state_dict()),
            "loader": copy.deepcopy(trainer.loader.state_dict()),
        },
        metrics=_lines(folder / METRICS),
        completions=_lines(folder / COMPLETIONS),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows(path)]


def numbers(state: Any) -> str:
    """Everything in a state that is no tensor."""
    if isinstance(state, Mapping):
        return str({k: numbers(v) for k, v in state.items()})
    return str(state) if isinstance(state, int | float | str | None) else type(state).__name__


def _first(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> str:
    for x, y in zip(a, b, strict=True):
        unlike = [key for key in x.keys() | y.keys() if x.get(key) != y.get(key)]
        if unlike:
            return f"step {x['step']}: {', '.join(f'{k} {x.get(k)} and {y.get(k)}' for k in sorted(unlike)[:2])}"
    return "the same"


# --- properties ---


def accumulation(subject: Subject) -> None:
    """One micro-batch of eight and four of two give the same update; coupled records may refuse to be cut."""
    once: dict[str, Any] = {
        "max_steps": 1,
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        "model": Model(config=dict(toys.LLAMA), dtype=Dtype.float64),
    }
    start = train(subject, "start", **once | {"learning_rate": 0.0})
    whole = train(subject, "whole", **once, micro_batch="8")
    try:
        cut = train(subject, "cut", **once, micro_batch="2")
    except UserError:
        expect(
            subject.algorithm.couples is Couples.MICROBATCH,
            "micro-batches to be allowed",
            "an error",
            "a size that does not divide",
        )
        return
    updates = [torch.cat([(run.weights[n] - x).flatten() for n, x in start.weights.items()]) for run in (whole, cut)]
    off = distance(*updates)
    cause = "a mean inside `loss`, or records coupled over the micro-batch: declare `couples`, use `prepare`"
    expect(off <= 1e-5, "the same update from 1 x 8 and 4 x 2 records", f"a relative difference of {off:.1e}", cause)


def trains(subject: Subject) -> None:
    """Three steps move the weights of every trained role, which stay finite."""
    start, end = train(subject, "start", max_steps=1, learning_rate=0.0), train(subject, "trained", learning_rate=0.1)
    for name, role in subject.algorithm.roles().items():
        own = {n: x for n, x in end.weights.items() if n.startswith(f"{name}.")} if role.trained else {}
        expect(all(x.isfinite().all() for x in own.values()), f"finite weights of {name}", "NaN or Inf", "an unbounded loss")
        moved = any(not torch.equal(x, start.weights[n]) for n, x in own.items())
        expect(moved or not role.trained, f"{name} to learn", "weights that don't move", f"`loss` gives {name} no gradient")


def resumes(subject: Subject) -> None:
    """Resumed at a step boundary, a run ends bit-identical: weights, optimizer, state and logs."""
    steps, whole = _whole(subject)
    # the first, an odd one in the middle, where a rollout is half used, and the last
    for step in sorted({1, steps // 2 // 2 * 2 + 1, steps - 1}):
        again = train(
            subject, f"from-{step}", resume=_checkpoint(subject, step), max_steps=steps, eval_steps=3, **_pace(subject)
        )
        found = whole.differences(again)
        expect(
            not found,
            f"the same end when resumed at step {step} of {steps}",
            "; ".join(found[:3]),
            "`state_dict` leaves something out",
        )


def watching(subject: Subject) -> None:
    """Whether and when a run is evaluated or saved changes nothing else."""
    steps, whole = _whole(subject)
    alone = train(subject, "unwatched", max_steps=steps, **_pace(subject))
    found = [d for d in whole.differences(alone) if ".jsonl" not in d]
    if (a := [r for r in whole.metrics if "loss" in r]) != (b := [r for r in alone.metrics if "loss" in r]):
        found.append(f"logged {_first(a, b) if len(a) == len(b) else 'rows'}")
    if whole.metrics[-1] != alone.metrics[-1]:
        found.append(f"final evaluation {_first(whole.metrics[-1:], alone.metrics[-1:])}")
    cause = "state that `state_dict`, or sampling for evaluation, changes"
    expect(not found, "evaluating and saving to change nothing", "; ".join(found[:3]), cause)


def state(subject: Subject) -> None:
    """Every piece of saved state matters: changed in a checkpoint, it changes how the run ends."""
    steps, whole = _whole(subject)
    # an odd step, so that a log line is under way; the last of a rollout, so that all that is left of the run is short
    origin = _checkpoint(subject, min(2 * subject.passes - 1, 7))
    for piece, tampered in _tampered(origin, subject.passes, subject.folder / "runs" / subject.name / "tampered"):
        try:
            again = train(subject, "from-tampered", resume=tampered, max_steps=steps, eval_steps=3, **_pace(subject))
        except UserError:
            continue  # it matters so much that the run can't go on
        cause = "it is saved but not restored, or not state at all"
        expect(bool(whole.differences(again)), f"another end when {piece} is changed in a checkpoint", "the same", cause)


def _whole(subject: Subject) -> tuple[int, Outcome]:
    """An uninterrupted run, long enough for two rollouts, with a checkpoint at every step."""
    steps = min(2 * subject.passes + 2, 10)
    if "whole" not in subject.runs:
        subject.runs["whole"] = train(
            subject, "saved", max_steps=steps, save_steps=1, keep_checkpoints=steps, eval_steps=3, **_pace(subject)
        )
    return steps, subject.runs["whole"]


def _pace(subject: Subject) -> dict[str, Any]:
    """Records that are coupled over the micro-batch are not cut."""
    return PACE | ({"micro_batch": "auto"} if subject.algorithm.couples is Couples.MICROBATCH else {})


def _checkpoint(subject: Subject, step: int) -> Path:
    return subject.folder / "runs" / subject.name / "saved" / CHECKPOINTS / f"checkpoint-{step}"


def _tampered(origin: Path, passes: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """(what, a copy of the checkpoint in which that one piece is changed)."""
    saved = records.load(origin / "state")
    pieces = [p for p in _pieces(saved) if p[0] in ("algorithm", "reward", "loader")]
    if (rollout := saved["loader"].get("rollout")) is not None and saved["loader"]["cursor"] * PACE["batch"] >= passes * len(
        rollout
    ):
        pieces.remove(("loader", "rollout"))  # gone through: nothing reads it again
    window = next((p for p in _pieces(saved) if p[0] == "window"), None)
    for keys in [*pieces, *([window] if window else []), ("optimizer",)]:
        path = folder / CHECKPOINTS / origin.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(origin, path)
        for name in (METRICS, COMPLETIONS):
            if (lines := origin.parent.parent / name).exists():
                shutil.copy(lines, folder / name)
        if keys == ("optimizer",):
            state = torch.load(path / "optimizer.pt", weights_only=True)
            state["state"][0]["exp_avg"].neg_()  # of a size that leaves the weights, and numerics, as they are
            torch.save(state, path / "optimizer.pt")
        else:
            records.save(_changed(saved, keys), path / "state")
        yield " / ".join(map(str, keys)), path


def _pieces(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a saved state that can be changed: numbers, tensors; of a rollout in progress, its tokens."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _pieces(value, (*path, key))
    elif isinstance(state, list):
        for i, value in enumerate(state):
            yield from _pieces(value, (*path, i))
    elif isinstance(state, int | float | Tensor | Batch):
        yield path


def _changed(state: Any, path: tuple[Any, ...]) -> Any:
    """A copy of the state with the piece at `path` changed."""
    if path:
        changed = copy.copy(state)
        changed[path[0]] = _changed(state[path[0]], path[1:])
        return changed
    if isinstance(state, Batch):
        return _reworded(state)
    if isinstance(state, bool):
        return not state
    if isinstance(state, Tensor):
        return ~state if state.dtype == torch.bool else state + 1
    return state + 1


def _reworded(batch: Any) -> Any:
    """Records whose completions, nested ones too, are of other tokens."""
    if isinstance(batch, Prompts):
        return batch
    batch = nested(batch, _reworded)
    if not isinstance(batch, Completions):
        return batch
    return replace(batch, ids=torch.where(batch.attended, toys.WORDS.start + (batch.ids + 1) % len(toys.WORDS), batch.ids))
