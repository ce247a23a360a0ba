"""The registry as a Hydra config source: an entry point is an option of its group, its dataclass is the schema."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from alignzoo.config.registry import GROUPS, Registry
from alignzoo.setup import RunConfig

EXPERIMENT = "experiment"
plugins_dir: ContextVar[str] = ContextVar("plugins_dir", default="")


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
        if group == EXPERIMENT:
            return self._settings(name) is not None
        return name in self.registry.names(group) if group in GROUPS else config_path.removesuffix(".yaml") == "schema"

    def _settings(self, name: str) -> Path | None:
        """Of EXPERIMENT/ALGORITHM, what a plugin brings."""
        experiment, _, algorithm = name.partition("/")
        return self.registry.settings(experiment, algorithm) if algorithm else None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        group = config_path.strip("/")
        if group in GROUPS:
            return [] if results_filter == ObjectType.GROUP else self.registry.names(group)
        return [] if results_filter == ObjectType.CONFIG else list(GROUPS)

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = _split(config_path)
        header: dict[str, str | None] = {"package": None}
        if group not in (*GROUPS, EXPERIMENT):
            node = OmegaConf.structured(RunConfig)
        elif file := self._settings(name) if group == EXPERIMENT else self.registry.get(group, name).preset:
            text = file.read_text("utf-8")
            header, node = self._get_header_dict(text), OmegaConf.create(text)
        else:
            node = _open(OmegaConf.structured(self.registry.schema(group, name)))
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
        search_path.append("alignzoo", f"zoo://{plugins_dir.get()}")


def _split(config_path: str) -> tuple[str, str, str]:
    return config_path.strip("/").removesuffix(".yaml").partition("/")


Plugins.instance().register(ZooSource)
Plugins.instance().register(ZooSearchPath)
