"""The registry as a Hydra config source, and runs composed from it.

An entry point is an option of its group, its dataclass is the schema, and `instantiate` turns the composed node back
into the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignzoo import config_errors
from alignzoo.common.folder import CONFIG
from alignzoo.errors import UserError
from alignzoo.overrides import readable
from alignzoo.registry import GROUPS, Registry, unknown
from alignzoo.settings import Budget, EarlyStop, Generation, Making, Model, Peft, Rollout, Scoring, Training

_plugins_dir: ContextVar[str] = ContextVar("plugins_dir", default="")


@dataclass(kw_only=True)
class Pipeline:
    """Runs made one after the other: the overrides of each, by name; the last is the run itself. None: one run by itself."""

    name: str = ""  # filled in by `compose`
    description: str = ""
    stages: dict[str, list[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class RunConfig:
    """Everything a run is made from: the schema of `conf/train.yaml`, and, instantiated, the objects themselves."""

    algorithm: Any = MISSING
    model: Model = field(default_factory=Model)
    data: Any = MISSING
    reward: Any = MISSING
    reference: Any = MISSING
    gold: Any = None  # a Reward, or None
    peft: Peft = field(default_factory=Peft)
    trainer: Training = field(default_factory=Training)
    budget: Budget = field(default_factory=Budget)
    generation: Generation = field(default_factory=Generation)
    rollout: Rollout = field(default_factory=Rollout)
    scoring: Scoring = field(default_factory=Scoring)
    making: Making = field(default_factory=Making)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    seed: int = 0
    label: str | None = None  # what comparisons call it; none: by its algorithm
    run_dir: str | None = None
    resume: str | None = None
    plugins_dir: str | None = None
    metrics: list[str] = field(default_factory=list)  # further measures of evaluation, by the names of metric plugins
    pipeline: Pipeline = field(default_factory=Pipeline)
    stages_dir: str | None = None
    stages: dict[str, str] = field(default_factory=dict)  # the folders of the runs it was made from, by stage
    stage: dict[str, Any] = field(default_factory=dict)  # {stage: {key: value}} that were asked of single stages
    roles: dict[str, str | None] = field(default_factory=dict)
    choices: dict[str, str | None] = field(default_factory=dict)  # the option taken of each group; filled in by `compose`

    @property
    def training(self) -> Training:
        return self.trainer

    @property
    def measures(self) -> dict[str, Callable[..., Any]]:
        """The functions that `metrics` names. Raises UserError for a name nobody has."""
        registry = Registry(self.plugins_dir)
        return {name: registry.metric(name) for name in self.metrics}


class ZooSource(ConfigSource):
    """Config source zoo://PLUGINS_DIR: the registry's plugins and presets as options, and the schema of the whole."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.registry = Registry(self.path or None)

    @staticmethod
    def scheme() -> str:
        return "zoo"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in ("", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        group, _, name = _split(config_path)
        return name in self.registry.names(group) if group in GROUPS else config_path.removesuffix(".yaml") == "schema"

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        group = config_path.strip("/")
        if group in GROUPS:
            return [] if results_filter == ObjectType.GROUP else self.registry.names(group)
        return [] if results_filter == ObjectType.CONFIG else list(GROUPS)

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = _split(config_path)
        header: dict[str, str | None] = {"package": None}
        if group not in GROUPS:
            node = OmegaConf.structured(RunConfig)
        elif preset := self.registry.get(group, name).preset:
            text = preset.read_text("utf-8")
            header, node = self._get_header_dict(text), OmegaConf.create(text)
        else:
            node = _open(OmegaConf.structured(self.registry.load(group, name)))
        return ConfigResult(provider=self.provider, path=self.full_path(), config=node, header=header)


def _open(node: DictConfig) -> DictConfig:
    """The schema of a plugin, whose mappings that are empty by default take any key without a plus."""
    for name in map(str, node):
        if OmegaConf.get_type(node, name) is dict and node[name] == {}:
            OmegaConf.set_struct(node[name], False)
    return node


class ZooSearchPath(SearchPathPlugin):
    """Makes the zoo's plugins and presets findable in every search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("alignzoo", f"zoo://{_plugins_dir.get()}")


Plugins.instance().register(ZooSource)
Plugins.instance().register(ZooSearchPath)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run, typed, resolved and checked for keys; of a pipeline's last, with the overrides of all in `pipeline`.
    Raises UserError for whatever is wrong with `overrides`."""
    from alignzoo import stages

    parsed = parse(overrides)
    resumed = value_of(parsed, "resume")
    if resumed is not None:
        return _resumed(Path(str(resumed)), parsed)
    found = stages.find(overrides)
    return single(overrides) if found is None else stages.last(found)


def single(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of one run, which is no pipeline's last."""
    parsed = parse(overrides)
    with searching(parsed):
        check_options(parsed)
        try:
            return _compose(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(config_errors.explain(error)) from error


def tied(overrides: Sequence[str] = ()) -> dict[str, str]:
    """{key: expression} of the settings of a run that take their value from others, as in `beta: ${data.beta}`."""
    from alignzoo import stages

    found = stages.find(overrides)
    own = list(overrides) if found is None else list(found.last.overrides)
    with searching(parse(own)):
        try:
            return dict(_interpolations(hydra_compose("train", own)))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(config_errors.explain(error)) from error


def instantiate(cfg: DictConfig) -> RunConfig:
    """The objects a config describes. Raises UserError where a value is out of range or missing."""
    try:
        made = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise UserError(config_errors.describe(error)) from error
    run = cast(RunConfig, made)
    _check_roles(run)
    run.gold = _gold(run)
    return run


def load_run(folder: str | Path) -> DictConfig:
    """The config that a run was started with, typed. Raises UserError where the folder holds none."""
    saved = _saved(Path(folder))
    choices = {group: name for group, name in saved["choices"].items() if group not in ("experiment", "debug", "pipeline")}
    given = [f"{group}={name}" for group, name in choices.items()]
    cfg = compose(given + ([f"plugins_dir={saved['plugins_dir']}"] if saved.get("plugins_dir") else []))
    try:
        for key, value in saved.items():
            _assign(cfg, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{folder}/config.yaml is not a config of this version: {config_errors.describe(error)}") from error
    return cfg


def parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(map(readable, overrides)))
    except HydraException as error:
        wrong = next((text for text in overrides if not _readable(text)), "")
        remedy = "write key=value, and quote a value with spaces: 'key=\"a b\"'"
        raise UserError(f"can't read the override {wrong!r}: {remedy}") from error


def _readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(readable(override))
    except HydraException:
        return False
    return True


def value_of(parsed: Sequence[Override], key: str) -> Any:
    """What `key=value` says among the overrides, the last one if several, or None."""
    values = [o.value() for o in parsed if o.get_key_element().lstrip("+") == key and not o.is_delete()]
    value = values[-1] if values else None
    return value.text if isinstance(value, QuotedString) else value


def options(group: str, parsed: Sequence[Override] = ()) -> list[str]:
    """The options of a config group, within `searching`; `hydra.searchpath` among `parsed` may add some."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    paths = [str(o.input_line) for o in parsed if o.get_key_element() == "hydra.searchpath"]
    return hydra.config_loader.get_group_options(group, config_name="train", overrides=paths)


def groups() -> list[str]:
    """The config groups there are, within `searching`."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return [name for name in hydra.config_loader.get_group_options("", ObjectType.GROUP) if name != "hydra"]


def searching(parsed: Sequence[Override] = ()) -> Any:
    """A context in which Hydra finds our configs, those of `plugins_dir=` among `parsed` included."""
    folder = value_of(parsed, "plugins_dir")
    _plugins_dir.set(str(Path(str(folder)).expanduser().absolute()) if folder else "")
    Registry(folder)
    return initialize_config_module("alignzoo_conf", version_base="1.3", job_name="alignzoo")


def check_options(parsed: Sequence[Override]) -> None:
    """Raise UserError for an option that a group doesn't have, before anything is imported."""
    every = groups()
    for override in parsed:
        group = override.get_key_element().lstrip("+~").split("@")[0]
        if group not in every:
            continue
        known = options(group, parsed)
        if override.is_delete():
            raise UserError(f"~{group}: a run needs one. Available: {', '.join(known)}")
        taken = override.sweep_iterator() if override.is_sweep_override() else iter([override.value()])
        for name in taken:
            if name is None:
                raise UserError(f"{group}=null chooses nothing: leave it out, or take one of {', '.join(known)}")
            if str(name) not in known:
                raise UserError(unknown(group, str(name), known))


def complete(cfg: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """What Hydra composed, resolved, with the options chosen. Raises UserError for a key that no dataclass has."""
    with open_dict(cfg):
        cfg.choices = {group: choice for group, choice in choices.items() if group.isidentifier()}
    OmegaConf.resolve(cfg)
    config_errors.check_keys(cfg)
    return cfg


def _compose(overrides: Sequence[str]) -> DictConfig:
    whole = hydra_compose("train", list(overrides), return_hydra_config=True)
    choices = whole.hydra.runtime.choices
    with open_dict(whole):
        del whole["hydra"]
    return complete(whole, choices)


def _interpolations(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key in map(str, node):
        inner: Any = node._get_node(key)
        if OmegaConf.is_interpolation(node, key):
            yield f"{prefix}{key}", str(inner._value())
        elif isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
            yield from _interpolations(inner, f"{prefix}{key}.")


def _saved(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml")
    saved = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(saved, dict) or "choices" not in saved:
        raise UserError(f"{path} is not the config of a run")
    return cast(dict[str, Any], saved)


def _resumed(folder: Path, parsed: Sequence[Override]) -> DictConfig:
    cfg = load_run(folder)
    given = [o for o in parsed if o.get_key_element() not in ("resume", "run_dir")]
    wanted = [f"{o.get_key_element()}: {_text(o)} here, {_kept(cfg, o)} in the run" for o in given if _text(o) != _kept(cfg, o)]
    if wanted:
        raise UserError(f"resume={folder} goes on with the run's own config; these differ:\n  " + "\n  ".join(wanted[:3]))
    cfg.run_dir = cfg.resume = str(folder)
    return cfg


def _text(override: Override) -> str:
    return "deleted" if override.is_delete() else str(OmegaConf.create({"value": override.value()}).value)


def _kept(cfg: DictConfig, override: Override) -> str:
    key = override.get_key_element().lstrip("+~")
    value = cfg.choices[key] if key in cfg.choices else OmegaConf.select(cfg, key)
    return str(getattr(value, "value", value))


def _assign(cfg: DictConfig, key: str, value: Any) -> None:
    """Set a node to a saved value: field by field where it is typed, as a whole where it is not."""
    node = cfg._get_node(key)
    if isinstance(node, DictConfig) and OmegaConf.get_type(node) is not dict and isinstance(value, dict):
        for name, inner in value.items():
            _assign(node, name, inner)
    else:
        cfg[key] = value


def _check_roles(run: RunConfig) -> None:
    """A path given for a role that nothing has would be ignored."""
    known = {**run.algorithm.roles(), **run.reward.roles()}
    for name, path in run.roles.items():
        if path is not None and name not in known:
            raise UserError(f"roles.{name}={path}, but {run.choices['algorithm']} takes no {name}: leave it out")


def _gold(run: RunConfig) -> Any:
    """The judge of a run, or None. Raises UserError for one that changes while it judges."""
    gold = run.gold and run.gold.resolve(run.data)
    if gold is None and run.choices["gold"] == "task":
        raise UserError(f"gold=task, and data={run.choices['data']} brings no reward: choose another judge, or none")
    if gold is not None and (gold.roles() or gold.teaches()):
        raise UserError(f"gold={run.choices['gold']} learns while it judges: choose a reward that stays as it is")
    return gold


def _split(config_path: str) -> tuple[str, str, str]:
    return config_path.strip("/").removesuffix(".yaml").partition("/")
