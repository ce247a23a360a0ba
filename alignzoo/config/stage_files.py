"""Where a pipeline is described: a file of the config group `pipeline`, of an experiment's, or any other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.config import grammar, messages
from alignzoo.config.stage_overrides import references, text_of
from alignzoo.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z_][\w-]*")


def named(rest: Sequence[Override]) -> tuple[str, Mapping[str, Any]]:
    """The pipeline's name, empty for none, and what its file says."""
    given = text_of(grammar.value_of(rest, "pipeline"))
    if Path(given).suffix == ".yaml":
        return Path(given).stem, _checked(given, _read(Path(given)))
    if given == "none" or (not given and grammar.value_of(rest, "experiment") is None):
        return "", {}
    keys = ("pipeline", "experiment", "plugins_dir", "hydra.searchpath")
    kept = tuple(str(o.input_line) for o in rest if o.get_key_element().lstrip("+") in keys)
    name, node = _chosen(kept)
    return (name, _checked(name, node)) if name != "none" else ("", {})


def check_references(pipeline: str, stages: Mapping[str, Sequence[str]]) -> None:
    """A stage uses only what was made before it. Raises UserError."""
    order = list(stages)
    for place, name in enumerate(order):
        for text in stages[name]:
            for used in references(text):
                if used not in stages:
                    raise UserError(
                        f"stage {name}: {text}: {pipeline} has no stage {used!r}.{nearest(used, stages)} "
                        f"Stages: {', '.join(order)}"
                    )
                if order.index(used) >= place:
                    what = "uses itself" if used == name else f"uses {used}, which is made after it"
                    raise UserError(f"stage {name}: {text}: it {what}. The order is {', '.join(order)}")


@lru_cache(maxsize=64)
def _chosen(overrides: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    parsed = grammar.parse(overrides)
    with grammar.searching(parsed):
        grammar.check_options(parsed)
        try:
            whole = hydra_compose("train", list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(messages.explain(error)) from error
    node: Any = OmegaConf.to_container(whole.pipeline, resolve=False)
    return str(whole.hydra.runtime.choices.get("pipeline")), node


def _read(path: Path) -> Any:
    import yaml

    if not path.is_file():
        raise UserError(f"pipeline={path}: there is no such file")
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"pipeline={path} can't be read: {' '.join(str(error).split())}") from None


def _checked(name: str, said: Any) -> Mapping[str, Any]:
    """Raises UserError for what describes no pipeline."""
    stages = said.get("stages") if isinstance(said, dict) else None
    if not isinstance(stages, dict) or not stages or not all(isinstance(own, list | None) for own in stages.values()):
        raise UserError(f"pipeline={name} describes no stages: write stages: {{sft: [key=value, ...], policy: [...]}}")
    if wrong := sorted(set(said) - {"name", "description", "stages"}):
        raise UserError(f"pipeline={name} says {wrong[0]}, which means nothing: a pipeline has description and stages")
    if bad := [text for text in stages if not NAME.fullmatch(str(text))]:
        raise UserError(f"pipeline={name}: {bad[0]!r} is no name for a stage: write letters, digits, - and _")
    return dict(said)
