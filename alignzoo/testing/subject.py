"""What is checked: one instance of a plugin, and the toy runs made of it."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

from omegaconf import OmegaConf

from alignzoo.config.registry import Plugin
from alignzoo.contracts import Algorithm, OnlineAlgorithm
from alignzoo.settings import Dtype, Model
from alignzoo.setup import RunConfig
from alignzoo.testing import toys
from alignzoo.testing.lab import Lab

STARTS_FROM_A_MODEL = ("reward", "config")
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@dataclass(eq=False)
class Part(Generic[T_co]):
    """A plugin under test. `instance`, or a metric's function, is never run, only copies of it; `folder` is where its runs go;
    `errors` are those that properties ended with, and which was the first."""

    name: str
    group: str
    instance: T_co
    folder: Path
    plugin: Plugin | None = None
    plugins_dir: Path | None = None
    overrides: Sequence[str] = ()
    errors: dict[str, str] = field(default_factory=dict)

    def fresh(self) -> T_co:
        """An instance of its own, so that checks don't disturb each other."""
        return copy.deepcopy(self.instance)


class Subject(Part[Algorithm]):
    """An algorithm under test."""

    def __init__(self, name: str, algorithm: Algorithm, folder: Path, *origin: Any) -> None:
        super().__init__(name, "algorithm", algorithm, folder, *origin)
        self.algorithm = algorithm

    @property
    def online(self) -> bool:
        return isinstance(self.algorithm, OnlineAlgorithm)

    @property
    def passes(self) -> int:
        return self.algorithm.passes() if isinstance(self.algorithm, OnlineAlgorithm) else 1

    @cached_property
    def lab(self) -> Lab:
        return self.build()

    def build(self, still: bool = False, **changes: Any) -> Lab:
        """A run of it, built but not started, with other parts for those in `changes`."""
        parts: toys.Keywords = {
            "model": Model(config=dict(toys.LLAMA), dtype=Dtype.float64),
            "training": {"max_grad_norm": 0.0},
        } | changes
        return Lab(self.setup(**parts), self.folder / "lab", self.online, still)

    def setup(self, algorithm: Algorithm | None = None, **changes: Any) -> RunConfig:
        """The toy task around a copy of it, or of `algorithm`, with models for the roles that want one."""
        algorithm = copy.deepcopy(algorithm or self.algorithm)
        source = toys.ToySource()
        roles = [n for n, r in algorithm.roles().items() if r.start in STARTS_FROM_A_MODEL and not source.supplies(n)]
        paths = {name: str(saved_model(self.folder / "model")) for name in roles}
        parts: toys.Keywords = {"data": source, "roles": paths}
        if self.online:
            parts["reward"] = toys.CountReward(fails=True)
        return toys.setup(algorithm, self.name, **parts | changes)


@cache
def light_collections() -> None:
    """What is loaded by now is never garbage: left out of the collection that accelerate forces at the start of each run, which
    otherwise takes longer than the run."""
    gc.collect()
    gc.freeze()


def saved_model(folder: Path) -> Path:
    """A tiny language model on disk, for roles that start from one."""
    from alignzoo.models import modules

    if not folder.exists():
        settings = Model(config=dict(toys.LLAMA))
        module: Any = modules.policy(settings, modules.config(settings, modules.tokenizer(settings)), seed=7)
        module.save_pretrained(folder)
    return folder


class Option(NamedTuple):
    """A hyperparameter, or a dataclass of several."""

    path: str  # dotted
    value: object
    kind: object  # its annotation
    help: str


def options(settings: object, prefix: str = "") -> Iterator[Option]:
    """Every hyperparameter, those of nested dataclasses after the dataclass."""
    assert is_dataclass(settings)
    hints = get_type_hints(type(settings))
    for f in fields(settings):
        value = getattr(settings, f.name)
        yield Option(prefix + f.name, value, hints[f.name], f.metadata.get("help", ""))
        if is_dataclass(value):
            yield from options(value, f"{prefix}{f.name}.")


def varied(settings: T, changes: Mapping[str, object]) -> T:
    """A fresh instance with the hyperparameters at these dotted paths changed. Raises UserError where it is refused, and
    OmegaConf's errors where a value is of another type."""
    config = OmegaConf.structured(settings)
    for path, value in changes.items():
        OmegaConf.update(config, path, value)
    instance: Any = OmegaConf.to_object(config)
    return instance
