"""Properties of settings: tuning can look where a plugin says, and no hyperparameter is ignored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import get_args

from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from alignzoo.errors import UserError
from alignzoo.settings import Rollout, Search, searches
from alignzoo.testing import toys
from alignzoo.testing.expect import expect
from alignzoo.testing.reshape import leaves
from alignzoo.testing.subject import Part, Subject, options, varied
from alignzoo.testing.training import train

STEPS = 7  # more than three passes over a rollout of two steps, so that a number of passes shows
Changes = Mapping[str, object]


def search_spaces(part: Part[object]) -> None:
    """Declared search ranges hold the default, and values that it takes."""
    settings = part.instance
    values = {option.path: option.value for option in options(settings)}
    for path, search in searches(type(settings)):
        expect(isinstance(search, Search), f"the search of {path} to be a Search", repr(search), "a pair of numbers")
        inside = values[path] in search
        expect(inside, f"the default of {path} to lie in its range, {search}", f"{values[path]}", "a Search too narrow")
        refused = [end for end in search.ends if not _taken(settings, path, end)]
        cause = "`__post_init__` refuses it, whatever one other setting is, or the field is of another type"
        expect(not refused, f"{path} to take every value of its range, {search}", f"{refused} refused", cause)


def _taken(settings: object, path: str, value: object) -> bool:
    """With the other settings as they are, or with one of them changed: some are refused until another gives them meaning."""
    changes: list[Changes] = [{o.path: v} for o in options(settings) if o.path != path for v in alternatives(o.value, o.kind)]
    return any(_valid(settings, {**change, path: value}) for change in [{}, *changes])


def _valid(settings: object, changes: Changes) -> bool:
    try:
        varied(settings, changes)
    except (UserError, OmegaConfBaseException):
        return False
    return True


def hyperparameters(subject: Subject) -> None:
    """Changing a hyperparameter changes what is learned or written, alone or beside another choice that gives it a meaning."""
    ending = cache(lambda chosen: _ending(subject, dict(chosen)))

    def same(a: Changes, b: Changes) -> bool:
        return bool(ending(frozenset(a.items())) == ending(frozenset(b.items())))

    def valid(changes: Changes) -> bool:
        return _valid(subject.algorithm, changes)

    choices = {option.path: list(alternatives(option.value, option.kind)) for option in options(subject.algorithm)}
    cause = "no code reads it there: refuse it in `__post_init__` where it does nothing"
    for path, values in choices.items():
        taken: list[Changes] = [{path: value} for value in values if valid({path: value})]
        if not values or not all(same(change, {}) for change in taken):
            continue
        contexts: list[Changes] = [{name: v} for name, tries in choices.items() for v in tries if name != path]
        pairs = [(c, {**c, path: v}) for v in values for c in contexts if valid(c) and valid({**c, path: v})]
        matters = not all(same(*pair) for pair in pairs)
        tried = ", ".join(str(value) for change in taken for value in change.values()) or f"{len(pairs)} tries"
        beside = "" if taken else " beside some other choice"
        expect(matters, f"{path} to matter{beside}", f"the same outcome {'with' if taken else 'in'} {tried}", cause)


def alternatives(value: object, kind: object) -> Iterator[object]:
    """Other values to try; of text, lists, tables and dataclasses none is known."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, Enum):
        yield from (member for member in type(value) if member is not value)
    elif isinstance(value, int) or (value is None and int in kinds and float not in kinds):
        yield from (v for v in ((value or 0) + 1, 2 * (value or 1), (value or 2) - 1, 1) if v != value)  # 1: of what is seldom
    elif isinstance(value, float) or (value is None and float in kinds):
        near = [2 * value, value / 2, value / 100] if value else []
        yield from (v for v in (*near, 0.5, 1e-6, 0.9, 5.0, 0.0, 1.0) if v != value)


def _ending(subject: Subject, chosen: Changes) -> str:
    """A digest of a short run with what is chosen; where the toy task can't run it, of what it asks for."""
    algorithm = varied(subject.algorithm, chosen)
    # some scores equal, and rollouts of two steps, so that options for these cases show
    reward, rollout = toys.CountReward(coarse=True, fails=True), Rollout(prompts=8, samples=2, refill=0)
    try:
        end = train(subject, "varied", algorithm, max_steps=STEPS, reward=reward, rollout=rollout)
        parts = leaves([end.weights, end.state, end.completions])
        state = [(path, x.numpy().tobytes() if isinstance(x, Tensor) else x) for path, x in parts]
        return hashlib.sha256(repr(state).encode()).hexdigest()
    except UserError:
        return repr(sorted(algorithm.roles().items()))
