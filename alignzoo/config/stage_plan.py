"""The runs of a pipeline, from a command line: which override is for which stage, and where each stage's folder is, by a hash
of what it is made from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from alignzoo.common import fingerprint
from alignzoo.config import command_line, run
from alignzoo.config.code import code
from alignzoo.config.pipelines import Description, check_references, described, direct
from alignzoo.config.quoting import written
from alignzoo.config.stage_overrides import StageOverride, read, references, replaced
from alignzoo.errors import UserError

PLACES = ("pipeline", "run_dir", "stages_dir", "resume")
# what the last stage climbs, and how: said of the pipeline as a whole, it is said of that one
OF_THE_LAST = ("algorithm", "reward", "reference", "rollout", "roles", "budget", "metrics", "early_stop", "label")


def has_stages(overrides: Sequence[str]) -> bool:
    """Whether a command line asks for a pipeline rather than a single run. Raises UserError for what describes none."""
    return described([o.parsed for o in read(overrides) if not o.key.startswith("stage.")]) is not None


def last_stage(overrides: Sequence[str]) -> DictConfig | None:
    """The config of the last stage of the pipeline that a command line asks for, which knows how all were made:
    `pipeline.stages` are their overrides, those of `alignzoo train`, run_dir= included. None for a single run. Raises UserError
    for whatever is wrong with the pipeline."""
    line = read(overrides)
    directives = [o for o in line if o.key.startswith("stage.")]
    general = [o for o in line if not o.key.startswith("stage.")]
    parsed = [o.parsed for o in general]
    pipeline = described(parsed)
    if pipeline is None:
        if directives:
            raise UserError(f"{directives[0].text}: a single run has no stages. Give pipeline=NAME too")
        return None
    direct(pipeline, directives)
    check_references(pipeline)
    folder = Path(str(command_line.value_of(parsed, "run_dir") or Path("runs") / pipeline.name))
    shared = str(command_line.value_of(parsed, "stages_dir") or "")
    folders: dict[str, str] = {}
    stages: dict[str, list[str]] = {}
    for stage, lines in _distributed(pipeline, [o for o in general if o.head not in PLACES]).items():
        used = {folders[name] for text in lines for name in references(text)}
        stages[stage] = [replaced(text, folders) for text in lines]
        apart = bool(shared) and stage == pipeline.last  # in run_dir itself, whatever it is made from
        name = "" if apart else f"{stage}-{_digest(stage, stages[stage], used)}"
        folders[stage] = str(folder if apart else Path(shared or folder) / name)
    cfg = copy.deepcopy(composed(stages[pipeline.last], pipeline.last))
    cfg.stages_dir = shared or None
    cfg.run_dir = folders[pipeline.last]
    cfg.stages = {stage: place for stage, place in folders.items() if stage != pipeline.last}
    cfg.stage = pipeline.settings
    cfg.pipeline.name, cfg.pipeline.description = pipeline.name, pipeline.text
    cfg.pipeline.stages = {stage: [*lines, f"run_dir={written(folders[stage])}"] for stage, lines in stages.items()}
    return cfg


def composed(overrides: Sequence[str], name: str) -> DictConfig:
    """The config of a stage, which is not to be changed. Raises UserError that names the stage."""
    try:
        return _composed(tuple(overrides))
    except UserError as error:
        raise UserError(f"stage {name}: {error}") from error


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return run.single(overrides)


def _digest(stage: str, overrides: Sequence[str], used: set[str]) -> str:
    """Of a stage's settings, of the files that it reads, and of the stages it uses: a folder's name ends with its hash."""
    cfg = composed(overrides, stage)
    return fingerprint.of(cfg, {folder: folder.rpartition("-")[2] for folder in used}, code(fingerprint.resolved(cfg)))


def _distributed(pipeline: Description, line: Sequence[StageOverride]) -> dict[str, list[str]]:
    """The overrides of each stage: the file's, and of those for all (and for the last) the ones it has the keys of; what the
    command line says of single stages comes last. Raises UserError for one that no stage has the key of."""
    used: set[StageOverride] = set()
    lists = {}
    for stage in pipeline.file:
        direct_ones = pipeline.direct[stage]
        makes = any(o.head == "making" for o in pipeline.overrides(stage))
        meant = [
            o for o in line
            if (stage == pipeline.last or o.head not in OF_THE_LAST) and (makes or o.key != "making")
            and not o.is_tied(pipeline.overrides(stage))
        ]  # fmt: skip
        options = [o for o in meant if o.chooses]
        start = [
            "pipeline=none",
            *(o.text for o in options if o.refined_by_stages),
            *(o.text for o in _without_replaced(pipeline.file[stage], [*meant, *direct_ones])),
            *(o.text for o in options if not o.refined_by_stages),
        ]
        end = [o.text for o in direct_ones]
        values = [o for o in meant if not o.chooses]
        probe = _probe(pipeline, stage, [*start, *end]) if values else None
        fitting = [o for o in values if _has(probe, o)]
        used |= {*options, *fitting}
        lists[stage] = [*start, *(o.text for o in fitting), *end]
    for o in line:
        if o not in used:
            _refuse(pipeline, o, lists[pipeline.last])
    return lists


def _without_replaced(file: Sequence[StageOverride], stronger: Sequence[StageOverride]) -> list[StageOverride]:
    """What a file says of a stage, but for settings of an algorithm or reward in whose place the command line puts another."""
    values = {o.key: o.value for o in file}
    gone = [f"{o.key}." for o in stronger if o.key in ("algorithm", "reward") and o.value != values.get(o.key)]
    return [o for o in file if not o.key.startswith(tuple(gone))]


def _probe(pipeline: Description, stage: str, overrides: Sequence[str]) -> DictConfig:
    """A config by which to see which keys a stage has."""
    stand_ins = dict.fromkeys(pipeline.file, "stage")
    return composed([replaced(text, stand_ins) for text in overrides], stage)


def _has(cfg: DictConfig | None, o: StageOverride) -> bool:
    """Whether the run has the key; for a key to be added, its node. Settings of `making` are for a run that makes its data."""
    if cfg is None or (o.head == "making" and cfg.making.kind.name == "none"):
        return False
    parent, _, leaf = o.key.rpartition(".")
    node = cfg
    for name in parent.split(".") if parent else ():
        inner = node._get_node(name) if name in node else None
        if not isinstance(inner, DictConfig) or inner._is_none() or inner._is_missing():
            return False
        node = inner
    return leaf in node or o.parsed.is_add() or not OmegaConf.is_struct(node)


def _refuse(pipeline: Description, o: StageOverride, last: Sequence[str]) -> None:
    """An override that fits no stage: which takes it from another, or what is wrong with it in the last."""
    for stage in reversed(pipeline.file):
        for user in pipeline.overrides(stage):
            if o.is_tied([user]):
                remedy = f"Replace it: ~stage.{stage} '+stage.{stage}=[...]'"
                raise UserError(f"{o.text} fits no stage: {stage} has {user.text}. {remedy}")
    try:
        _probe(pipeline, pipeline.last, [*last, o.text])
    except UserError as error:
        raise UserError(f"{o.text} fits no stage: of {str(error).removeprefix('stage ')}") from None
    raise UserError(f"{o.text} fits no stage: none of {', '.join(pipeline.file)} has a use for it")
