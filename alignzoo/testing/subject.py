"""What is checked: one instance of an algorithm, and the toy runs made of it."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_type_hints

from alignzoo.config.registry import Plugin, Registry
from alignzoo.contracts import Algorithm, OnlineAlgorithm
from alignzoo.settings import Dtype, Model
from alignzoo.setup import RunConfig
from alignzoo.testing import toys
from alignzoo.testing.lab import Lab

STARTS_FROM_A_MODEL = ("reward", "config")


class Broken(AssertionError):
    """A property that does not hold: what was expected, what was found, and what usually causes it."""

    def __init__(self, expected: str, found: str, cause: str) -> None:
        super().__init__(f"expected {expected}; found {found}. Likely cause: {cause}")
        self.expected, self.found, self.cause = expected, found, cause


class RepeatedFailure(Broken):
    """The error that an earlier property ended with."""

    def __init__(self, earlier: str) -> None:
        super().__init__("no error", f"the one that `{earlier}` ends with", "that one's")
        self.earlier = earlier


def expect(holds: bool, expected: str, found: str, cause: str) -> None:
    """Raise `Broken` unless `holds`."""
    if not holds:
        raise Broken(expected, found, cause)


@dataclass
class Subject:
    """An algorithm under test. `algorithm` itself is never run, only copies of it; `folder` is where its runs go;
    `errors` are those that properties ended with, and which was the first."""

    name: str
    algorithm: Algorithm
    folder: Path
    plugin: Plugin | None = None
    plugins_dir: Path | None = None
    overrides: list[str] = field(default_factory=list)
    runs: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def online(self) -> bool:
        return isinstance(self.algorithm, OnlineAlgorithm)

    @property
    def passes(self) -> int:
        return self.algorithm.passes() if isinstance(self.algorithm, OnlineAlgorithm) else 1

    @cached_property
    def lab(self) -> Lab:
        return self.build()

    def build(self, algorithm: Algorithm | None = None, still: bool = False, **changes: Any) -> Lab:
        """A run of it, or of `algorithm`, built but not started, with other parts for those in `changes`."""
        parts = {"model": Model(config=dict(toys.LLAMA), dtype=Dtype.float64), "training": {"max_grad_norm": 0.0}} | changes
        return Lab(self.setup(algorithm, **parts), self.folder / "lab", self.online, still)

    def setup(self, algorithm: Algorithm | None = None, **changes: Any) -> RunConfig:
        """The toy task around a copy of the algorithm, with models for the roles that want one."""
        made = copy.deepcopy(algorithm or self.algorithm)
        source = toys.ToySource()
        wanted = [n for n, r in made.roles().items() if r.start in STARTS_FROM_A_MODEL and not source.supplies(n)]
        roles = {name: str(saved_model(self.folder / "model")) for name in wanted}
        reward = {"reward": toys.CountReward(fails=True)} if self.online else {}
        return toys.setup(made, self.name, **{"data": source, "roles": roles} | reward | changes)


@cache
def light_collections() -> None:
    """What is loaded by now is never garbage: left out of the collection that accelerate forces at the start of each run, which
    otherwise takes longer than the run."""
    gc.collect()
    gc.freeze()


def registered(name: str, folder: Path, plugins_dir: Path | None = None, overrides: Sequence[str] = ()) -> Subject:
    """The subject of a registered name: the defaults of an algorithm, or a preset, with `overrides`."""
    plugin = Registry(plugins_dir).get("algorithm", name)
    made = composed([f"algorithm={name}", *overrides], plugins_dir)
    return Subject(name, made, folder, plugin, plugins_dir, list(overrides))


def composed(overrides: list[str], plugins_dir: Path | None) -> Algorithm:
    """The algorithm that these overrides give."""
    from alignzoo.config.composition import compose
    from alignzoo.config.run import instantiate

    local = [f"plugins_dir={plugins_dir}"] if plugins_dir else []
    return instantiate(compose([*overrides, *local])).algorithm


def saved_model(folder: Path) -> Path:
    """A tiny language model on disk, for roles that start from one."""
    from alignzoo.models import build

    if not folder.exists():
        settings = Model(config=dict(toys.LLAMA))
        module: Any = build.policy(settings, build.config(settings, build.tokenizer(settings)), seed=7)
        module.save_pretrained(folder)
    return folder


def leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, value, type) of every hyperparameter, those of nested dataclasses included."""
    hints = get_type_hints(type(settings))
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value, hints[f.name]


def varied(settings: Any, changes: Mapping[str, Any]) -> Any:
    """A fresh instance with the hyperparameters at these dotted paths changed. Raises UserError where it is refused."""
    nested = {f.name for f in fields(settings) if is_dataclass(getattr(settings, f.name))}
    given = {path: value for path, value in changes.items() if "." not in path}
    for name in nested:
        inner = {path.removeprefix(f"{name}."): v for path, v in changes.items() if path.startswith(f"{name}.")}
        given[name] = varied(getattr(settings, name), inner)
    return replace(settings, **given)
