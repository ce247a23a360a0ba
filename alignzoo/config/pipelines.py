"""What a pipeline is: a file of the config group `pipeline`, of an experiment's, or any other, and what `stage.NAME...` on the
command line changes in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.config import command_line, hydra_errors
from alignzoo.config.quoting import split_list
from alignzoo.config.stage_overrides import StageOverride, read
from alignzoo.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z_][\w-]*")


@dataclass
class Description:
    """The stages of a pipeline in order: what its file says of each, and what the command line says of it alone."""

    name: str
    text: str = ""
    file: dict[str, list[StageOverride]] = field(default_factory=dict)
    direct: dict[str, list[StageOverride]] = field(default_factory=dict)
    settings: dict[str, dict[str, object]] = field(default_factory=dict)  # {stage as it was called: {key: value}} of `direct`

    @property
    def last(self) -> str:
        return [*self.file][-1]

    def overrides(self, stage: str) -> list[StageOverride]:
        return [*self.file[stage], *self.direct[stage]]


def described(rest: Sequence[Override]) -> Description | None:
    """What these overrides ask for, by pipeline=NAME or an experiment that has a pipeline; None for a single run. Raises
    UserError for a file that describes no pipeline."""
    name = str(command_line.value_of(rest, "pipeline") or "")
    if Path(name).suffix == ".yaml":
        return _checked(name, Path(name).stem, _file(Path(name)))
    if name == "none" or (not name and command_line.value_of(rest, "experiment") is None):
        return None
    keys = ("pipeline", "experiment", "plugins_dir", "hydra.searchpath")
    option, node = _chosen(tuple(str(o.input_line) for o in rest if o.get_key_element().lstrip("+") in keys))
    return None if option == "none" else _checked(option, option, node)


@lru_cache(maxsize=64)
def _chosen(overrides: tuple[str, ...]) -> tuple[str, object]:
    """The option of the group `pipeline`, and what it says."""
    parsed = command_line.parse(overrides)
    with command_line.searching(parsed):
        command_line.check_options(parsed)
        try:
            whole = hydra_compose("train", list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(hydra_errors.explain(error)) from error
    return str(whole.hydra.runtime.choices.get("pipeline")), OmegaConf.to_container(whole.pipeline)


def _file(path: Path) -> object:
    if not path.is_file():
        raise UserError(f"pipeline={path}: there is no such file")
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"pipeline={path} can't be read: {' '.join(str(error).split())}") from None


def _checked(source: str, name: str, content: object) -> Description:
    stages = content.get("stages") if isinstance(content, dict) else None
    described_stages = isinstance(stages, dict) and stages and all(isinstance(texts, list | None) for texts in stages.values())
    if not (isinstance(content, dict) and isinstance(stages, dict) and described_stages):
        raise UserError(f"pipeline={source} describes no stages: write stages: {{sft: [key=value, ...], policy: [...]}}")
    if wrong := sorted(set(content) - {"name", "description", "stages"}):
        raise UserError(f"pipeline={source} says {wrong[0]}, which means nothing: a pipeline has description and stages")
    if bad := [stage for stage in stages if not NAME.fullmatch(str(stage))]:
        raise UserError(f"pipeline={source}: {bad[0]!r} is no name for a stage: write letters, digits, - and _")
    file = {str(stage): _read(str(stage), texts or []) for stage, texts in stages.items()}
    return Description(name, str(content.get("description") or ""), file, {stage: [] for stage in file})


def _read(stage: str, texts: Sequence[object]) -> list[StageOverride]:
    try:
        return read(list(map(str, texts)))
    except UserError as error:
        raise UserError(f"stage {stage}: {error}") from error


def direct(pipeline: Description, directives: Sequence[StageOverride]) -> None:
    """Does to the pipeline what the command line says: `~stage.NAME` drops a stage, `+stage.NAME=[...]` puts one in its place,
    or at the end, `stage.NAME=[...]` and `stage.NAME.KEY=VALUE` change one. Raises UserError for a stage that isn't there."""
    dropped: dict[str, int] = {}
    for o in directives:
        called, _, key = o.key.removeprefix("stage.").partition(".")
        if o.text.startswith("+") and not key:
            _insert(pipeline, o, called, dropped.pop(called, None))
            continue
        stages = [*pipeline.file]
        name = stages[-1] if called == "last" and stages and "last" not in stages else called
        if name not in stages:
            listed = ", ".join(stages)
            raise UserError(f"{o.text}: {pipeline.name} has no stage {name!r}.{nearest(name, stages)} Stages: {listed}")
        if o.parsed.is_delete():
            dropped[name] = stages.index(name)
            del pipeline.file[name], pipeline.direct[name]
            pipeline.settings.pop(called, None)
            continue
        added = read([f"{key}={o.value}"]) if key else _listed(o)
        pipeline.direct[name] += added
        values = {item.key: None if item.parsed.is_delete() else item.parsed.value() for item in added}
        pipeline.settings.setdefault(called, {}).update(OmegaConf.to_container(OmegaConf.create(values)))  # type: ignore[arg-type]
    if not pipeline.file:
        raise UserError(f"pipeline={pipeline.name} has no stage left")


def _insert(pipeline: Description, o: StageOverride, name: str, place: int | None) -> None:
    """A stage in the place of one that was dropped says what the file said; a further one is the command line's."""
    if name in pipeline.file:
        raise UserError(f"{o.text}: there is a stage of this name: drop it first by ~stage.{name}")
    if not NAME.fullmatch(name):
        raise UserError(f"{o.text}: no name for a stage: letters, digits, - and _ make a name")
    stages, overrides = [*pipeline.file.items()], _listed(o)
    stages.insert(len(stages) if place is None else place, (name, [] if place is None else overrides))
    pipeline.file = dict(stages)
    pipeline.direct[name] = overrides if place is None else []


def _listed(o: StageOverride) -> list[StageOverride]:
    """The overrides in stage.NAME=[a=1,b=2]."""
    texts = split_list(str(o.parsed.value()))
    if not texts or any("=" not in text and not text.startswith("~") for text in texts):
        raise UserError(f"can't read {o.text!r}: write stage.NAME='[key=value,key=value]'")
    return read(texts)


def check_references(pipeline: Description) -> None:
    """A stage uses only what was made before it. Raises UserError."""
    order = [*pipeline.file]
    listed = ", ".join(order)
    for place, name in enumerate(order):
        for o in pipeline.overrides(name):
            for used in o.uses:
                if used not in order:
                    missing = f"{pipeline.name} has no stage {used!r}.{nearest(used, order)}"
                    raise UserError(f"stage {name}: {o.text}: {missing} Stages: {listed}")
                if order.index(used) >= place:
                    what = "uses itself" if used == name else f"uses {used}, which is made after it"
                    raise UserError(f"stage {name}: {o.text}: it {what}. The order is {listed}")
