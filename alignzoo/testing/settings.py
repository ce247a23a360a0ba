"""The property that no hyperparameter is ignored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, get_args

from alignzoo.contracts import Algorithm
from alignzoo.errors import UserError
from alignzoo.settings import Rollout
from alignzoo.testing import toys
from alignzoo.testing.reshape import tensors
from alignzoo.testing.subject import Subject, expect, leaves, varied
from alignzoo.testing.training import numbers, train

STEPS = 7  # more than three passes over a rollout of two steps, so that a number of passes shows
CAUSE = "no code reads it there: refuse it in `__post_init__` where it does nothing"


def hyperparameters(subject: Subject) -> None:
    """Changing a hyperparameter changes what is learned, by itself or beside another choice that gives it a meaning."""
    choices = {path: list(others(value, kind)) for path, value, kind in leaves(subject.algorithm)}
    for path, values in choices.items():
        taken = [{path: value} for value in values if _made(subject, {path: value})]
        if not values or any(_ending(subject, change) != _ending(subject, {}) for change in taken):
            continue
        contexts = [{name: value} for name, other in choices.items() for value in other if name != path]
        pairs = [(c, c | {path: v}) for c in contexts if _made(subject, c) for v in values if _made(subject, c | {path: v})]
        matters = any(_ending(subject, context) != _ending(subject, change) for context, change in pairs)
        found = f"the same outcome with {_values(taken)}" if taken else f"the same outcome in {len(pairs)} tries"
        expect(matters, f"{path} to matter" + ("" if taken else " beside some other choice"), found, CAUSE)


def others(value: Any, kind: Any) -> Iterator[Any]:
    """Other values to try; of text, lists and tables none is known."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, Enum):
        yield from (member for member in type(value) if member is not value)
    elif isinstance(value, int) or (value is None and int in kinds and float not in kinds):
        yield from (v for v in ((value or 0) + 1, 2 * (value or 1), (value or 2) - 1) if v != value)
    elif isinstance(value, float) or (value is None and float in kinds):
        near = [2 * value, value / 2, value / 100] if value else []
        yield from (v for v in (*near, 0.5, 1e-6, 0.9, 5.0, 0.0, 1.0) if v != value)


def _made(subject: Subject, changes: Mapping[str, Any]) -> Algorithm | None:
    try:
        return varied(subject.algorithm, changes)
    except UserError:
        return None


def _ending(subject: Subject, chosen: Mapping[str, Any]) -> str:
    """A digest of a short run with what is chosen; where the toy task can't run it, of what it asks for."""
    key = f"ending {sorted(chosen.items())}"
    if key not in subject.runs:
        algorithm = varied(subject.algorithm, chosen)
        try:
            # some scores equal, and rollouts of two steps, so that options for these cases show
            changes: dict[str, Any] = {
                "reward": toys.CountReward(coarse=True, fails=True),
                "rollout": Rollout(prompts=8, samples=2),
            }
            end = train(subject, "varied", algorithm, max_steps=STEPS, **changes)
            parts = [x.numpy().tobytes() for _, x in tensors([end.weights, end.state])] + [numbers(end.state).encode()]
        except UserError:
            parts = [repr(sorted(algorithm.roles().items())).encode()]
        subject.runs[key] = hashlib.sha256(b"".join(parts)).hexdigest()
    return subject.runs[key]


def _values(changes: list[dict[str, Any]]) -> str:
    return ", ".join(str(value) for change in changes for value in change.values())
