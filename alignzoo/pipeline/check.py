"""What can be known to be wrong with every stage before the first of them is made."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from alignzoo.config.run import instantiate
from alignzoo.errors import UserError
from alignzoo.models.roles import main_role
from alignzoo.pipeline.plan import DONE, Stage, inputs
from alignzoo.runs import single


def check(every: Sequence[Stage]) -> None:
    """Raises UserError, with the stage's name. For the model of a stage that is still to be made stands an empty folder."""
    with tempfile.TemporaryDirectory(prefix="alignzoo-stages-") as nowhere:
        stand_ins = {str(stage.folder): f"{nowhere}/{stage.name}" for stage in every if stage.status != DONE}
        for stand_in in stand_ins.values():
            Path(stand_in, "model").mkdir(parents=True)
        for stage in every:
            if stage.status == DONE:
                continue
            cfg = copy.deepcopy(stage.config)
            replace({old: new for old, new in stand_ins.items() if old != str(stage.folder)}, cfg)
            try:
                _check_kinds(every, stage)
                single.check(cfg)
            except UserError as error:
                text = str(error)
                for folder, stand_in in stand_ins.items():
                    text = text.replace(stand_in, folder)
                raise UserError(f"stage {stage.name}: {text}") from error


def replace(texts: Mapping[str, str], node: DictConfig | ListConfig) -> None:
    """Puts texts in place of others, everywhere in a config."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        inner = node._get_node(key)
        if isinstance(inner, DictConfig | ListConfig):
            if not inner._is_none() and not inner._is_missing():
                replace(texts, inner)
        elif isinstance(value := inner._value(), str) and (found := [old for old in texts if old in value]):  # type: ignore[union-attr]
            node[key] = value.replace(max(found, key=len), texts[max(found, key=len)])


def _check_kinds(every: Sequence[Stage], stage: Stage) -> None:
    """A policy starts from a policy, and reward=model asks a reward model. Raises UserError."""
    mine = _trains(stage)
    for other in inputs(every, stage):
        theirs, folder = _trains(other), str(other.folder)
        if str(stage.config.model.path or "").startswith(folder) and mine == "policy" != theirs:
            raise UserError(f"model.path is the result of the stage {other.name}, which trains no policy")
        path = stage.config.reward.get("path") if stage.config.choices.reward == "model" else None
        if str(path or "").startswith(folder) and theirs == "policy":
            raise UserError(f"reward.path is the result of the stage {other.name}, which trains no reward model")


def _trains(stage: Stage) -> str:
    declared = instantiate(stage.config).algorithm.roles()
    return main_role([name for name, role in declared.items() if role.trained] or list(declared))
