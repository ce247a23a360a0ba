"""The stages of a composed config, and how far each is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from alignzoo.common.folder import SUMMARY
from alignzoo.config.composition import compose
from alignzoo.config.stages import composed
from alignzoo.errors import UserError, nearest
from alignzoo.setup import Pipeline

TO_DO, UNFINISHED, DONE = "to do", "unfinished", "done"


@dataclass(frozen=True)
class Stage:
    """One run of a pipeline; `overrides` are what `alignzoo train` takes to make it by itself, run_dir= included."""

    name: str
    place: int  # from 1 on
    of: int
    overrides: tuple[str, ...]
    config: DictConfig

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def digest(self) -> str:
        return self.folder.name.rpartition("-")[2]

    @property
    def title(self) -> str:
        return f"stage {self.place} of {self.of}, {self.name}"

    @property
    def status(self) -> str:
        if (self.folder / SUMMARY).is_file():
            return DONE
        return UNFINISHED if any(self.folder.glob("checkpoints/checkpoint-*")) else TO_DO


def stages(cfg: DictConfig) -> list[Stage]:
    """In the order they are made; the last one's config is `cfg` itself, as a run without stages before it."""
    given = {str(name): tuple(overrides) for name, overrides in cfg.pipeline.stages.items()}
    made = []
    for place, (name, overrides) in enumerate(given.items(), 1):
        own = copy.deepcopy(composed(overrides, name)) if place < len(given) else copy.deepcopy(cfg)
        own.pipeline = Pipeline()
        made.append(Stage(name, place, len(given), overrides, own))
    return made


def folder_of(overrides: Sequence[str], name: str) -> Path:
    """Where the stage `name` of the pipeline that these overrides of `alignzoo train` describe is, or will be. Raises UserError
    for a stage that it hasn't."""
    found = {stage.name: stage for stage in stages(compose(overrides))}
    if name not in found:
        raise UserError(f"no stage {name!r}.{nearest(name, found)} Stages: {', '.join(found) or 'none, it is a single run'}")
    return found[name].folder


def inputs(every: Sequence[Stage], stage: Stage) -> list[Stage]:
    """The stages whose results a stage uses."""
    return [other for other in every if other.place < stage.place and any(str(other.folder) in o for o in stage.overrides)]
