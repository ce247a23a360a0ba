"""The runs of a pipeline, from a command line: which override is for which stage, what `{stage:NAME}` stands for, and where
each stage's folder is, by a hash of what it is made from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from alignzoo.common import fingerprint
from alignzoo.config import grammar
from alignzoo.config.code import code
from alignzoo.config.overrides import written
from alignzoo.config.stage_directives import directed
from alignzoo.config.stage_files import check_references, named
from alignzoo.config.stage_overrides import Given, references, replaced, text_of
from alignzoo.config.stage_routing import composed, distributed
from alignzoo.errors import UserError

__all__ = ["Pipeline", "Planned", "composed", "find", "last"]

PLACES = ("pipeline", "run_dir", "stages_dir", "resume")


@dataclass(frozen=True)
class Planned:
    """A stage: `overrides` are those of `alignzoo train`, with folders for what the command line calls `{stage:NAME}`; `inputs`
    names the stages it uses."""

    name: str
    overrides: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    folder: Path = Path()
    digest: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """The overrides of the run, place included."""
        return (*self.overrides, f"run_dir={written(self.folder)}")


@dataclass(frozen=True)
class Pipeline:
    """`stages` in the order they are made; the last is what the pipeline is for."""

    name: str
    description: str
    folder: Path
    stages: tuple[Planned, ...]
    stages_dir: str | None  # where those before the last are, where that is elsewhere
    asked: Mapping[str, Mapping[str, Any]]  # {stage: {key: value}} that the command line says of single stages

    @property
    def last(self) -> Planned:
        return self.stages[-1]


def find(overrides: Sequence[str]) -> Pipeline | None:
    """The pipeline that a command line asks for, by pipeline=NAME or an experiment that has one; None for a single run. Raises
    UserError for whatever is wrong with it."""
    given = [Given(text, o) for text, o in zip(overrides, grammar.parse(overrides), strict=True)]
    directives = [o for o in given if o.key.startswith("stage.")]
    rest = [o for o in given if not o.key.startswith("stage.")]
    name, described = named([o.parsed for o in rest])
    if not name:
        if directives:
            raise UserError(f"{directives[0].text}: a single run has no stages. Give pipeline=NAME too")
        return None
    stages = {str(stage): [str(text) for text in own or []] for stage, own in described["stages"].items()}
    origin = {stage: len(own) for stage, own in stages.items()}
    asked = directed(name, stages, directives)
    check_references(name, stages)
    parsed = [o.parsed for o in rest]
    folder = Path(text_of(grammar.value_of(parsed, "run_dir")) or Path("runs") / name)
    shared = text_of(grammar.value_of(parsed, "stages_dir"))
    lists = distributed(stages, origin, [o for o in rest if o.head not in PLACES])
    placed: list[Planned] = []
    for stage, own in lists.items():
        own_folder = folder if shared and stage == [*lists][-1] else None
        placed.append(_placed(stage, own, placed, Path(shared or folder), own_folder))
    return Pipeline(name, str(described.get("description") or ""), folder, tuple(placed), shared or None, asked)


def last(found: Pipeline) -> DictConfig:
    """The config of the last stage, which knows how all were made."""
    cfg = copy.deepcopy(composed(found.last.overrides, found.last.name))
    cfg.run_dir = str(found.last.folder)
    cfg.stages_dir = found.stages_dir
    cfg.stages = {stage.name: str(stage.folder) for stage in found.stages[:-1]}
    cfg.stage = {name: dict(said) for name, said in found.asked.items()}
    cfg.pipeline.name = found.name
    cfg.pipeline.description = found.description
    cfg.pipeline.stages = {stage.name: list(stage.command) for stage in found.stages}
    return cfg


def _placed(name: str, given: Sequence[str], before: Sequence[Planned], parent: Path, folder: Path | None) -> Planned:
    known = {stage.name: stage for stage in before}
    used = tuple(dict.fromkeys(found for text in given for found in references(text)))
    concrete = tuple(replaced(text, {name: str(stage.folder) for name, stage in known.items()}) for text in given)
    stage = Planned(name, concrete, used, folder or Path())
    if folder:
        return stage
    cfg = composed(stage.overrides, name)
    digest = fingerprint.of(cfg, {str(known[u].folder): known[u].digest for u in used}, code(fingerprint.resolved(cfg)))
    return replace(stage, digest=digest, folder=parent / f"{name}-{digest}")
