"""Algorithms that a program hands over as they are, a class or an instance, instead of naming them: for notebooks."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path

from alignzoo.common import imports

SESSION = "this session"
_by_name: dict[str, object] = {}
_of_the_zoo: dict[str, object] = {}  # those that have their names without us: their values are those of one config


def keep(name: str, algorithm: object, of_the_zoo: bool) -> None:
    (_of_the_zoo if of_the_zoo else _by_name)[name] = algorithm


def forget_values() -> None:
    """Another config begins: `algorithm=dpo` is DPO as it is defined, whatever instance was handed over before."""
    _of_the_zoo.clear()


def names() -> list[str]:
    return [*_by_name]


def schema(name: str) -> object:
    """The instance, whose values are the defaults, or the class; None for what was not handed over."""
    return _of_the_zoo.get(name, _by_name.get(name))


def class_of(algorithm: object) -> type:
    return algorithm if isinstance(algorithm, type) else type(algorithm)


def name_of(kind: type) -> str:
    """MyLoss as my_loss."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__).lower()


def source_of(kind: type) -> Path | None:
    """The file it is in; None where it was typed in."""
    file = None if kind.__module__ == "__main__" else getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file) if file else None


def as_its_file_is(algorithm: object) -> object:
    """The same of the file as it is now, where that was edited since it was last handed over."""
    kind = class_of(algorithm)
    if source_of(kind) is None:
        return algorithm
    try:
        now: type = attrgetter(kind.__qualname__)(imports.current(kind.__module__))
    except AttributeError:  # it was made within a function
        return algorithm
    if now is kind or algorithm is kind or not is_dataclass(algorithm):
        return algorithm if now is kind else now
    return now(**{f.name: getattr(algorithm, f.name) for f in fields(algorithm) if f.init})


def digest(name: str) -> dict[str, str]:
    """{what: SHA-256} of the text of a class that was typed in, as far as Python knows it."""
    try:
        text = inspect.getsource(class_of(_by_name[name]))
    except (KeyError, OSError, TypeError):
        return {}
    return {f"{SESSION}/{name}": hashlib.sha256(text.encode()).hexdigest()}
