"""The stages of a composed config: how far each is, and what is known to be wrong with them before the first is made."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, ListConfig, Node

from alignzoo.common.folder import SUMMARY
from alignzoo.config.composition import compose
from alignzoo.config.run import instantiate
from alignzoo.config.stage_plan import composed
from alignzoo.errors import UserError, nearest
from alignzoo.models.roles import main_role
from alignzoo.runs import single
from alignzoo.setup import Pipeline

TO_DO, UNFINISHED, DONE = "to do", "unfinished", "done"


@dataclass(frozen=True, eq=False)
class Stage:
    """One run of a pipeline; `overrides` are what `alignzoo train` takes to make it by itself, run_dir= included, and `inputs`
    the stages whose results it uses."""

    name: str
    place: str  # such as "2 of 3"
    overrides: tuple[str, ...]
    folder: Path
    inputs: tuple[Stage, ...] = ()
    whole: DictConfig | None = None  # of the last stage: the pipeline's config

    @cached_property
    def config(self) -> DictConfig:
        """As a run without stages before it."""
        cfg = copy.deepcopy(composed(self.overrides, self.name) if self.whole is None else self.whole)
        cfg.pipeline = Pipeline()
        return cfg

    @property
    def title(self) -> str:
        return f"stage {self.place}, {self.name}"

    @property
    def status(self) -> str:
        if (self.folder / SUMMARY).is_file():
            return DONE
        return UNFINISHED if any(self.folder.glob("checkpoints/checkpoint-*")) else TO_DO


def stages(cfg: DictConfig) -> list[Stage]:
    """In the order they are made; none of a single run."""
    placed: list[Stage] = []
    count = len(cfg.pipeline.stages)
    for number, (name, overrides) in enumerate(cfg.pipeline.stages.items(), 1):
        inputs = tuple(stage for stage in placed if any(str(stage.folder) in text for text in overrides))
        last = number == count
        folder = Path(cfg.run_dir if last else cfg.stages[name])
        placed.append(Stage(name, f"{number} of {count}", tuple(overrides), folder, inputs, cfg if last else None))
    return placed


def folder_of(overrides: Sequence[str], name: str) -> Path:
    """Where the stage `name` of the pipeline that these overrides of `alignzoo train` describe is, or will be. Raises UserError
    for a stage that it hasn't."""
    folders = {stage.name: stage.folder for stage in stages(compose(overrides))}
    if name not in folders:
        listed = ", ".join(folders) or "none, it is a single run"
        raise UserError(f"no stage {name!r}.{nearest(name, folders)} Stages: {listed}")
    return folders[name]


def check(placed: Sequence[Stage]) -> None:
    """Raises UserError, with the stage's name. For the model of a stage that is still to be made stands an empty folder."""
    with tempfile.TemporaryDirectory(prefix="alignzoo-stages-") as nowhere:
        waiting = [stage for stage in placed if stage.status != DONE]
        stand_ins = {str(stage.folder): f"{nowhere}/{stage.name}" for stage in waiting}
        for stand_in in stand_ins.values():
            Path(stand_in, "model").mkdir(parents=True)
        for stage in waiting:
            cfg = copy.deepcopy(stage.config)
            _replace({old: new for old, new in stand_ins.items() if old != str(stage.folder)}, cfg)
            try:
                _check_kinds(stage)
                single.check(cfg)
            except UserError as error:
                text = str(error)
                for folder, stand_in in stand_ins.items():
                    text = text.replace(stand_in, folder)
                raise UserError(f"stage {stage.name}: {text}") from error


def _replace(texts: Mapping[str, str], node: DictConfig | ListConfig) -> None:
    """Puts texts in place of others, everywhere in a config."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        inner = node._get_node(key)
        if isinstance(inner, DictConfig | ListConfig):
            if not inner._is_none() and not inner._is_missing():
                _replace(texts, inner)
            continue
        value = inner._value() if isinstance(inner, Node) else None
        longest = max((old for old in texts if isinstance(value, str) and old in value), key=len, default="")
        if longest:
            node[key] = str(value).replace(longest, texts[longest])


def _check_kinds(stage: Stage) -> None:
    """A policy starts from a policy, and reward=model asks a reward model. Raises UserError."""
    trained = _trains(stage)
    reward = stage.config.reward.get("path") if stage.config.choices.reward == "model" else None
    for used in stage.inputs:
        trained_before, folder = _trains(used), str(used.folder)
        if str(stage.config.model.path or "").startswith(folder) and trained == "policy" != trained_before:
            raise UserError(f"model.path is the result of the stage {used.name}, which trains no policy")
        if str(reward or "").startswith(folder) and trained_before == "policy":
            raise UserError(f"reward.path is the result of the stage {used.name}, which trains no reward model")


def _trains(stage: Stage) -> str:
    roles = instantiate(stage.config).algorithm.roles()
    return main_role([name for name, role in roles.items() if role.trained] or list(roles))
