"""The runs of a pipeline, from a command line: which override is for which stage, what `{stage:NAME}` stands for, and where
each stage's folder is, by a hash of what it is made from."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo import config, config_errors, fingerprint
from alignzoo.overrides import split_list, written
from alignzoo.settings import UserError, nearest

# what the last stage climbs, and how: said of the pipeline as a whole, it is said of that one
OF_THE_LAST = ("algorithm", "reward", "reference", "rollout", "roles", "budget", "metrics", "early_stop", "label")
PLACES = ("pipeline", "run_dir", "stages_dir", "resume")
REFERENCE = re.compile(r"(['\"]?)\{stage:([^}]*)\}([^\s,\[\]{}()'\"]*)\1")
NAME = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True)
class Stage:
    """One run: `overrides` are those of `alignzoo train`, with folders for what the command line calls `{stage:NAME}`; `inputs`
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
class Given:
    """An override as it was written, and as Hydra reads it."""

    text: str
    parsed: Override

    @property
    def key(self) -> str:
        return self.parsed.get_key_element().lstrip("+~")

    @property
    def head(self) -> str:
        return re.split(r"[./@]", self.key)[0]

    @property
    def chooses(self) -> bool:
        """An option of a group, or where to look for some, rather than the value of a key."""
        if self.head in ("plugins_dir", "hydra"):
            return True
        return "/" in self.key or "@" in self.key or (self.key in _groups() and not self.parsed.is_delete())

    @property
    def first(self) -> bool:
        """What the stages' own overrides refine."""
        return self.head in ("experiment", "debug", "plugins_dir", "hydra")


@dataclass(frozen=True)
class Pipeline:
    """`stages` in the order they are made; the last is what the pipeline is for."""

    name: str
    description: str
    folder: Path
    stages: tuple[Stage, ...]
    stages_dir: str | None  # where those before the last are, where that is elsewhere
    asked: Mapping[str, Mapping[str, Any]]  # {stage: {key: value}} that the command line says of single stages

    @property
    def last(self) -> Stage:
        return self.stages[-1]


def find(overrides: Sequence[str]) -> Pipeline | None:
    """The pipeline that a command line asks for, by pipeline=NAME or an experiment that has one; None for a single run. Raises
    UserError for whatever is wrong with it."""
    given = [Given(text, o) for text, o in zip(overrides, config.parse(overrides), strict=True)]
    directives = [o for o in given if o.key.startswith("stage.")]
    rest = [o for o in given if not o.key.startswith("stage.")]
    named, described = _named([o.parsed for o in rest])
    if not named:
        if directives:
            raise UserError(f"{directives[0].text}: a single run has no stages. Give pipeline=NAME too")
        return None
    stages = {str(name): [str(text) for text in given or []] for name, given in described["stages"].items()}
    origin = {name: len(given) for name, given in stages.items()}
    asked = _directed(named, stages, directives)
    _check_references(named, stages)
    parsed = [o.parsed for o in rest]
    folder = Path(_text(config.value_of(parsed, "run_dir")) or Path("runs") / named)
    shared = _text(config.value_of(parsed, "stages_dir"))
    lists = _distributed(stages, origin, [o for o in rest if o.head not in PLACES])
    placed: list[Stage] = []
    for name, own in lists.items():
        own_folder = folder if shared and name == [*lists][-1] else None
        placed.append(_placed(name, own, placed, Path(shared or folder), own_folder))
    return Pipeline(named, str(described.get("description") or ""), folder, tuple(placed), shared or None, asked)


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


def _placed(name: str, given: Sequence[str], before: Sequence[Stage], parent: Path, folder: Path | None) -> Stage:
    known = {stage.name: stage for stage in before}
    used = tuple(dict.fromkeys(found for text in given for found in references(text)))
    concrete = tuple(_replaced(text, {name: str(stage.folder) for name, stage in known.items()}) for text in given)
    stage = Stage(name, concrete, used, folder or Path())
    if folder:
        return stage
    digest = fingerprint.of(composed(stage.overrides, name), {str(known[u].folder): known[u].digest for u in used})
    return replace(stage, digest=digest, folder=parent / f"{name}-{digest}")


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return config.single(overrides)


def composed(overrides: Sequence[str], name: str) -> DictConfig:
    """The config of a stage. Raises UserError that names the stage."""
    try:
        return _composed(tuple(overrides))
    except UserError as error:
        raise UserError(f"stage {name}: {error}") from error


# --- what the command line says of stages ---


def _directed(pipeline: str, stages: dict[str, list[str]], directives: Sequence[Given]) -> dict[str, dict[str, Any]]:
    """Does to `stages` what the command line says: `~stage.NAME` drops one, `+stage.NAME=[...]` puts one in its place, or at
    the end, `stage.NAME=[...]` and `stage.NAME.KEY=VALUE` change one. Returns what was said, by stage and key."""
    asked: dict[str, dict[str, Any]] = {}
    dropped: dict[str, int] = {}
    for o in directives:
        name, _, key = o.key.removeprefix("stage.").partition(".")
        line = o.text
        if line.startswith("+") and not key:
            if name in stages or not NAME.fullmatch(name):
                remedy = f"drop it first by ~stage.{name}" if name in stages else "letters, digits, - and _ make a name"
                raise UserError(
                    f"{line}: {'there is a stage of this name' if name in stages else 'no name for a stage'}: {remedy}"
                )
            _insert(stages, name, _listed(o), dropped.pop(name, len(stages)))
            continue
        told, name = name, [*stages][-1] if name == "last" and stages and "last" not in stages else name
        if name not in stages:
            raise UserError(f"{line}: {pipeline} has no stage {name!r}.{nearest(name, stages)} Stages: {', '.join(stages)}")
        if o.parsed.is_delete():
            dropped[name] = list(stages).index(name)
            del stages[name]
            asked.pop(told, None)
            continue
        given = [f"{key}={line.partition('=')[2]}"] if key else _listed(o)
        stages[name] += given
        asked.setdefault(told, {}).update({p.get_key_element().lstrip("+~"): _plain(p) for p in config.parse(given)})
    if not stages:
        raise UserError(f"pipeline={pipeline} has no stage left")
    return asked


def _insert(stages: dict[str, list[str]], name: str, given: list[str], place: int) -> None:
    items = [*stages.items()]
    items.insert(place, (name, given))
    stages.clear()
    stages.update(items)


def _listed(o: Given) -> list[str]:
    """The overrides in stage.NAME=[a=1,b=2]."""
    given = split_list(_text(o.parsed.value()))
    if not given or any("=" not in text and not text.startswith("~") for text in given):
        raise UserError(f"can't read {o.text!r}: write stage.NAME='[key=value,key=value]'")
    return given


def _plain(o: Override) -> Any:
    value = None if o.is_delete() else o.value()
    return OmegaConf.to_container(OmegaConf.create({"value": value}))["value"]  # type: ignore[index, call-overload]


# --- what stages say of each other ---


def references(text: str) -> list[str]:
    """The stages that an override speaks of by `{stage:NAME}`."""
    return [found[2] for found in REFERENCE.finditer(text)]


def _check_references(pipeline: str, stages: Mapping[str, Sequence[str]]) -> None:
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


def _replaced(text: str, folders: Mapping[str, str]) -> str:
    """With the folders of stages, quoted where they must be."""

    def folder(found: re.Match[str]) -> str:
        path = folders[found[2]] + found[3]
        return f"{found[1]}{path}{found[1]}" if found[1] else written(path)

    return REFERENCE.sub(folder, text)


# --- which override is for which stage ---


def _distributed(stages: Mapping[str, list[str]], origin: Mapping[str, int], given: Sequence[Given]) -> dict[str, list[str]]:
    """The overrides of each stage: its own, and of those for all (and for the last) the ones it has the keys of; what the
    command line says of single stages comes last. Raises UserError for one that no stage has the key of."""
    last = [*stages][-1]
    used: set[int] = set()
    lists = {}
    for name, own in stages.items():
        tied = [Given(text, config.parse([text])[0]) for text in own if references(text)]
        makes = any(text.startswith("making") for text in own)
        meant = [
            o for o in given
            if (name == last or o.head not in OF_THE_LAST) and (makes or o.key != "making") and not _is_tied(o, tied)
        ]  # fmt: skip
        file, single = own[: origin.get(name, 0)], own[origin.get(name, 0) :]
        file = _without_replaced(file, [*meant, *(Given(text, config.parse([text])[0]) for text in single)])
        before, chosen = ([o.text for o in meant if o.chooses and o.first is first] for first in (True, False))
        start = ["pipeline=none", *before, *file, *chosen]
        values = [o for o in meant if not o.chooses]
        probe = _probe([*start, *single], stages, name) if values else None
        fitting = [o for o in values if _has(probe, o)]
        used |= {id(o) for o in meant if o.chooses or o in fitting}
        lists[name] = [*start, *(o.text for o in fitting), *single]
    for o in given:
        if id(o) not in used:
            _refuse(o, stages, lists)
    return lists


def _without_replaced(file: Sequence[str], given: Sequence[Given]) -> list[str]:
    """A stage's own overrides without the settings of an algorithm or reward in whose place the command line puts another."""
    own = {text.partition("=")[0]: text.partition("=")[2] for text in file}
    gone = {o.key for o in given if o.key in ("algorithm", "reward") and o.text.partition("=")[2] != own.get(o.key)}
    return [text for text in file if not any(text.startswith(f"{key}.") for key in gone)]


def _probe(overrides: list[str], stages: Mapping[str, Any], name: str) -> DictConfig:
    """A config by which to see which keys a stage has."""
    stand_ins = {stage: "stage" for stage in stages}
    return composed([_replaced(text, stand_ins) for text in overrides], name)


def _has(cfg: Any, o: Given) -> bool:
    """Whether the run has the key; for a key to be added, its node. Settings of `making` are for a run that makes its data."""
    if o.head == "making" and cfg.making.kind.name == "none":
        return False
    node, (*parents, leaf) = cfg, o.key.split(".")
    for name in parents:
        node = node._get_node(name) if isinstance(node, DictConfig) and name in node else None
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return False
    return leaf in node or o.parsed.is_add() or not OmegaConf.is_struct(node)


def _refuse(o: Given, stages: Mapping[str, list[str]], lists: Mapping[str, list[str]]) -> None:
    """An override that fits no stage: which takes it from another, or what is wrong with it in the last."""
    for name in [*stages][::-1]:
        for text in stages[name]:
            if references(text) and _is_tied(o, [Given(text, config.parse([text])[0])]):
                raise UserError(f"{o.text} fits no stage: {name} has {text}. Replace it: ~stage.{name} '+stage.{name}=[...]'")
    last = [*stages][-1]
    try:
        _probe([*lists[last], o.text], stages, last)
    except UserError as error:
        raise UserError(f"{o.text} fits no stage: of {str(error).removeprefix('stage ')}") from None
    raise UserError(f"{o.text} fits no stage: none of {', '.join(stages)} has a use for it")


def _is_tied(o: Given, tied: Sequence[Given]) -> bool:
    """What a stage takes from another stays so: model=, where its model.path is another's result."""
    return any(o.key == other.key or (o.chooses and o.head == other.head) for other in tied)


@lru_cache(maxsize=1)
def _groups() -> frozenset[str]:
    with config.searching():
        return frozenset(config.groups())


def _text(value: Any) -> str:
    return "" if value is None else str(getattr(value, "text", value))


# --- where a pipeline is described ---


def _named(rest: Sequence[Override]) -> tuple[str, Mapping[str, Any]]:
    """The pipeline's name, empty for none, and what its file says."""
    given = _text(config.value_of(rest, "pipeline"))
    if Path(given).suffix == ".yaml":
        return Path(given).stem, _checked(given, _read(Path(given)))
    if given == "none" or (not given and config.value_of(rest, "experiment") is None):
        return "", {}
    keys = ("pipeline", "experiment", "plugins_dir", "hydra.searchpath")
    kept = tuple(str(o.input_line) for o in rest if o.get_key_element().lstrip("+") in keys)
    name, node = _chosen(kept)
    return (name, _checked(name, node)) if name != "none" else ("", {})


@lru_cache(maxsize=64)
def _chosen(overrides: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    parsed = config.parse(overrides)
    with config.searching(parsed):
        config.check_options(parsed)
        try:
            whole = hydra_compose("train", list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(config_errors.explain(error)) from error
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
