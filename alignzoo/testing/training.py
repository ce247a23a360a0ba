"""Properties of an algorithm in training: short runs of the real trainer on the toy task, compared bit by bit."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions
from alignzoo.common.folder import CHECKPOINTS, COMPLETIONS, METRICS, rows
from alignzoo.contracts import Algorithm, Couples
from alignzoo.engine import records
from alignzoo.engine.trainer import AlignTrainer
from alignzoo.errors import UserError
from alignzoo.settings import Dtype, Model, Optimizer
from alignzoo.testing import toys
from alignzoo.testing.expect import expect, expect_finite
from alignzoo.testing.lab import distance
from alignzoo.testing.reshape import Columns, each_completions, leaves
from alignzoo.testing.reshape import Path as Keys
from alignzoo.testing.subject import Subject, light_collections

VOLATILE = ("seconds", "cost/seconds", "tokens_per_second", "peak_memory")
# four records a step, from rollouts of eight: a rollout is half used at every odd step, and so is the window of a log line
BATCH = 4
PACE: toys.Keywords = {
    "eval_prompts": 2, "batch": BATCH, "micro_batch": "2", "logging_steps": 2, "optimizer": Optimizer.adamw,
    "learning_rate": 0.01,
}  # fmt: skip
EVALUATED: toys.Keywords = {"eval_steps": 3}


@dataclass
class Outcome:
    """What a run leaves behind."""

    weights: dict[str, Tensor]
    optimizer: object
    state: toys.Keywords
    metrics: list[dict[str, object]]
    completions: list[dict[str, object]]

    def differences(self, run: Outcome) -> list[str]:
        """What differs by as much as a bit, named."""
        before, after = (dict(leaves(vars(outcome))) for outcome in (self, run))
        paths = [path for path in before.keys() | after.keys() if not _equal(before.get(path), after.get(path))]
        pairs = [(" ".join(map(str, path)), before.get(path), after.get(path)) for path in sorted(paths, key=str)]
        return [name if isinstance(a, Tensor) else f"{name} ({a} and {b})" for name, a, b in pairs]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    return a == b


def train(
    subject: Subject, label: str, algorithm: Algorithm | None = None, resume: Path | None = None, **changes: Any
) -> Outcome:
    """One run of the toy task in a folder named `label`; `resume` is a checkpoint of another folder's run."""
    folder = _runs(subject) / label
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = {key: changes.pop(key) for key in ("model", "reward", "rollout") if key in changes}
    trainer = toys.trainer(subject.setup(algorithm, training=changes, **parts), folder)
    light_collections()
    if resume is not None:
        copy_rows(resume, folder)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return outcome(trainer, folder)


def outcome(trainer: AlignTrainer, folder: Path) -> Outcome:
    modules = {**trainer.trained.roles, **{name: module for name, (module, _) in trainer.followers.items()}}
    assert trainer.optimizer is not None
    kept: toys.Keywords = {"algorithm": trainer.algorithm.state_dict(), "loader": trainer.loader.state_dict()}
    return Outcome(
        weights={f"{r}.{n}": x.detach().clone() for r, m in modules.items() for n, x in m.state_dict().items()},
        optimizer=copy.deepcopy(trainer.optimizer.state_dict()["state"]), state=copy.deepcopy(kept),
        metrics=_lines(folder / METRICS), completions=_lines(folder / COMPLETIONS),
    )  # fmt: skip


def _lines(path: Path) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows(path)]


def _runs(subject: Subject) -> Path:
    return subject.folder / "runs" / subject.name


def copy_rows(checkpoint: Path, folder: Path) -> None:
    """The logs of the run that a checkpoint is of."""
    for name in (METRICS, COMPLETIONS):
        if (origin := checkpoint.parent.parent / name).exists():
            shutil.copy(origin, folder / name)


# --- properties ---


def accumulation(subject: Subject) -> None:
    """One micro-batch of eight and four of two give the same update; coupled records may refuse to be cut."""
    step: toys.Keywords = {"max_steps": 1, "max_grad_norm": 0.0, "model": Model(config=dict(toys.LLAMA), dtype=Dtype.float64)}
    start = train(subject, "start", **step, learning_rate=0.0)
    whole = train(subject, "whole", **step, learning_rate=1.0, micro_batch="8")
    try:
        cut = train(subject, "cut", **step, learning_rate=1.0, micro_batch="2")
    except UserError:
        coupled = subject.algorithm.couples is Couples.MICROBATCH
        expect(coupled, "micro-batches to be allowed", "an error", "a size that does not divide")
        return
    updates = [torch.cat([(run.weights[n] - x).flatten() for n, x in start.weights.items()]) for run in (whole, cut)]
    off = distance(*updates)
    cause = "a mean inside `loss`, or records coupled over the micro-batch: declare `couples`, use `prepare`"
    expect(off <= 1e-5, "the same update from 1 x 8 and 4 x 2 records", f"a relative difference of {off:.1e}", cause)


def trains(subject: Subject) -> None:
    """Three steps move the weights of every trained role, which stay finite."""
    start, end = train(subject, "start", max_steps=1, learning_rate=0.0), train(subject, "trained", learning_rate=0.1)
    for name in (name for name, role in subject.algorithm.roles().items() if role.trained):
        weights = {n: x for n, x in end.weights.items() if n.startswith(f"{name}.")}
        for x in weights.values():
            expect_finite(x, f"finite weights of {name}", "an unbounded loss")
        moved = any(not torch.equal(x, start.weights[n]) for n, x in weights.items())
        expect(moved, f"{name} to learn", "weights that don't move", f"`loss` gives {name} no gradient")


def resumes(subject: Subject) -> None:
    """Resumed at a step boundary, a run ends bit-identical: weights, optimizer, state and logs."""
    steps, whole = _steps(subject), _whole(subject)
    # the first, an odd one in the middle, where a rollout is half used, and the last
    for step in sorted({1, steps // 2 // 2 * 2 + 1, steps - 1}):
        resumed = train(subject, f"from-{step}", resume=_checkpoint(subject, step), **_pace(subject), **EVALUATED)
        unlike = "; ".join(whole.differences(resumed)[:3])
        expected = f"the same end when resumed at step {step} of {steps}"
        expect(not unlike, expected, unlike, "`state_dict` leaves something out")


def watching(subject: Subject) -> None:
    """Whether and when a run is evaluated or saved changes nothing else."""
    runs = []
    for run in (_whole(subject), train(subject, "unwatched", **_pace(subject))):
        logged = [row for row in run.metrics if "loss" in row] + run.metrics[-1:]  # the last row: the final evaluation
        runs.append(replace(run, metrics=logged, completions=[]))
    unlike = "; ".join(runs[0].differences(runs[1])[:3])
    cause = "state that `state_dict`, or sampling for evaluation, changes"
    expect(not unlike, "evaluating and saving to change nothing", unlike, cause)


def state(subject: Subject) -> None:
    """Every piece of saved state matters: changed in a checkpoint, it changes how the run ends."""
    whole = _whole(subject)
    # an odd step, so that a log line is under way; the last of a rollout, so that all that is left of the run is short
    origin = _checkpoint(subject, min(2 * subject.passes - 1, 7))
    cause = "it is saved but not restored, or not state at all"
    for piece, tampered in _tampered(origin, subject.passes, _runs(subject) / "tampered"):
        try:
            resumed = train(subject, "from-tampered", resume=tampered, **_pace(subject), **EVALUATED)
        except UserError:
            continue  # it matters so much that the run can't go on
        differs = bool(whole.differences(resumed))
        expect(differs, f"another end when {piece} is changed in a checkpoint", "the same", cause)


@lru_cache(maxsize=1)
def _whole(subject: Subject) -> Outcome:
    """An uninterrupted run, with a checkpoint at every step."""
    steps = _steps(subject)
    return train(subject, "saved", save_steps=1, keep_checkpoints=steps, **_pace(subject), **EVALUATED)


def _steps(subject: Subject) -> int:
    """Long enough for two rollouts."""
    return min(2 * subject.passes + 2, 10)


def _pace(subject: Subject) -> toys.Keywords:
    """Records that are coupled over the micro-batch are not cut."""
    uncut = {"micro_batch": "auto"} if subject.algorithm.couples is Couples.MICROBATCH else {}
    return PACE | uncut | {"max_steps": _steps(subject)}


def _checkpoint(subject: Subject, step: int) -> Path:
    return _runs(subject) / "saved" / CHECKPOINTS / f"checkpoint-{step}"


def _tampered(origin: Path, passes: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """(what, a copy of the checkpoint in which that one piece is changed)."""
    saved = records.load(origin / "state")
    pieces = [path for path, piece in leaves(saved, whole=True) if isinstance(piece, int | float | Tensor | Batch)]
    window = [path for path in pieces if path[0] == "window"][:1]
    pieces = [path for path in pieces if path[0] in ("algorithm", "reward", "loader")]
    rollout = saved["loader"].get("rollout")
    if rollout is not None and saved["loader"]["cursor"] * BATCH >= passes * len(rollout):
        pieces.remove(("loader", "rollout"))  # gone through: nothing reads it again
    for keys in [*pieces, *window, ("optimizer",)]:
        path = folder / CHECKPOINTS / origin.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(origin, path)
        copy_rows(origin, folder)
        if keys == ("optimizer",):
            optimizer = torch.load(path / "optimizer.pt", weights_only=True)
            optimizer["state"][0]["exp_avg"].neg_()  # of a size that leaves the weights, and numerics, as they are
            torch.save(optimizer, path / "optimizer.pt")
        else:
            records.save(_changed(saved, keys), path / "state")
        yield " / ".join(map(str, keys)), path


def _changed(state: Any, path: Keys) -> object:
    """A copy of the state with the piece at `path` changed: a number, a tensor; of a rollout in progress, its tokens."""
    if path:
        changed = copy.copy(state)
        changed[path[0]] = _changed(state[path[0]], path[1:])
        return changed
    if isinstance(state, Batch):
        return each_completions(state, _reworded)
    if isinstance(state, bool) or getattr(state, "dtype", None) == torch.bool:
        return state ^ True
    return state + 1


def _reworded(c: Completions) -> Columns:
    return {"ids": torch.where(c.attended, toys.WORDS.start + (c.ids + 1) % len(toys.WORDS), c.ids)}


CHECKS = (trains, resumes, watching, state)
