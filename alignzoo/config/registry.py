"""Which plugins there are: entry points and local folders, found and described without importing them."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from importlib.metadata import Distribution, entry_points
from operator import attrgetter
from pathlib import Path

from alignzoo import API_VERSION, __version__
from alignzoo.common import imports
from alignzoo.config import declared, foreign_names, handed
from alignzoo.config.declared import Card
from alignzoo.errors import UserError, first_line, nearest

GROUPS = ("algorithm", "data", "reward", "reference", "gold")  # config groups; a hosted trainer is an option of `algorithm`
ALIASES = {"gold": "reward"}  # groups whose options are those of another
METRIC, SAMPLER = "metric", "sampler"
ENTRY_POINTS = {group: (group,) for group in (*GROUPS, METRIC, SAMPLER) if group not in ALIASES} | {
    "algorithm": ("algorithm", "trainer")
}
TYPES = "int, float, bool, str, an Enum, a dataclass, or list, dict and `| None` of these"


@dataclass(frozen=True)
class Plugin:
    """A name of the zoo. `attribute` is None where the class has to be looked for; `preset` is a variant's file."""

    group: str
    name: str
    module: str
    attribute: str | None
    origin: str  # the distribution or the file it comes from
    source: Path | None  # the module's file
    preset: Path | None = None


class Registry:
    """The plugins of every group, of the installed distributions and of the folder `plugins_dir`.

    A local folder holds `<name>/<name>.py` or `<name>.py`, each with one dataclass that is an `Algorithm`, a `TrainerPlugin`, a
    `Reward`, a `Reference`, a `Sampler` or a `Source` (one of several is possible), or with a function of its name, a metric.
    """

    def __init__(self, plugins_dir: str | Path | None = None) -> None:
        self.plugins_dir = Path(plugins_dir).expanduser().absolute() if plugins_dir else None
        self._plugins: dict[str, dict[str, list[Plugin]]] = {group: {} for group in ENTRY_POINTS}
        plugins = list(_installed())
        installed = {(plugin.group, plugin.name, plugin.source) for plugin in plugins}  # also there in its folder, it is one
        plugins += _handed({name for group, name, _ in installed if group == "algorithm"})
        plugins += [plugin for plugin in self._local() if (plugin.group, plugin.name, plugin.source) not in installed]
        presets = [preset for plugin in plugins for preset in _presets(plugin)]
        for plugin in (*plugins, *presets):
            self._plugins[plugin.group].setdefault(plugin.name, []).append(plugin)

    def names(self, group: str) -> list[str]:
        return sorted(self._plugins[ALIASES.get(group, group)])

    def get(self, group: str, name: str) -> Plugin:
        """Raises UserError for a name nobody has, with the nearest ones, and for a name that two have."""
        plugins = self._plugins[ALIASES.get(group, group)].get(name, [])
        if not plugins:
            raise UserError(unknown(group, name, self.names(group)))
        if len(plugins) > 1:
            places = " and in ".join(plugin.origin for plugin in plugins)
            raise UserError(f"{group} {name!r} is there twice: in {places}. Remove or rename one.")
        return plugins[0]

    def load(self, group: str, name: str) -> type:
        """The class; for a preset, that of the plugin it is a variant of. Raises UserError where it can't be imported, was made
        for another version of the contract, or is not what its group asks for."""
        plugin = self.get(group, name)
        return _checked_class(plugin, self._import(plugin))

    def metric(self, name: str) -> Callable[..., object]:
        """The function of a metric. Raises UserError like `load`."""
        plugin = self.get(METRIC, name)
        function = self._import(plugin)
        if not callable(function):
            kind = type(function).__name__
            raise UserError(f"the metric {name!r} ({plugin.origin}) is a {kind}, not a function of completions")
        return function

    def schema(self, group: str, name: str) -> object:
        """What the config of an option is made from: its class, or an instance that was handed over."""
        kind = self.load(group, name)
        value = handed.schema(name) if group == "algorithm" else None
        return kind if value is None or handed.class_of(value) is not kind else value

    def hand(self, algorithm: object) -> str:
        """The name by which an algorithm, a class or an instance of one, can be chosen from now on. Raises UserError where that
        is another one's."""
        algorithm = handed.as_its_file_is(algorithm)
        kind = handed.class_of(algorithm)
        ours = [p for name in self.names("algorithm") for p in self._plugins["algorithm"][name] if p.preset is None]
        known_as = [p.name for p in ours if (p.module, p.attribute) == (kind.__module__, kind.__qualname__)]
        name = known_as[0] if known_as else handed.name_of(kind)
        if not known_as and name in self._plugins["algorithm"]:
            raise UserError(f"algorithm={kind.__name__} would be called {name}, as one that there is: name the class otherwise")
        _checked_class(Plugin("algorithm", name, kind.__module__, kind.__qualname__, handed.SESSION, None), kind)
        handed.keep(name, algorithm, bool(known_as))
        return name

    def _import(self, plugin: Plugin) -> object:
        if plugin.origin == handed.SESSION:
            return handed.class_of(handed.schema(plugin.name))
        _check_version(plugin, declared.api_version(plugin.source, plugin.attribute))
        try:
            if plugin.module.startswith("alignzoo_local_"):
                self._make_importable(plugin.module)
            module = imports.current(plugin.module)
            return attrgetter(plugin.attribute)(module) if plugin.attribute else _only(module, plugin)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            circular = " (a circular import: move what both files need into a third)" if "circular" in str(error) else ""
            reason = f"{type(error).__name__}: {first_line(error)}{circular}"
            raise UserError(f"the plugin {plugin.name!r} ({plugin.origin}) can't be imported: {reason}") from error

    def settings(self, experiment: str, algorithm: str) -> Path | None:
        """The file of the settings that an algorithm, or the plugin it is a preset of, brings for an experiment:
        EXPERIMENT.yaml beside it, in a folder of its own."""
        plugins = self._plugins["algorithm"].get(algorithm, [])
        source = plugins[0].source if len(plugins) == 1 else None
        file = source.with_name(f"{experiment}.yaml") if source and _own_folder(source) else None
        return file if file and file.is_file() else None

    def everything(self, group: str) -> list[Plugin]:
        """All plugins and presets of a group, by name; a name that two have comes twice."""
        return [plugin for name in self.names(group) for plugin in self._plugins[ALIASES.get(group, group)][name]]

    def card(self, group: str, name: str) -> Card:
        return card_of(self.get(group, name))

    def _local(self) -> Iterator[Plugin]:
        if self.plugins_dir is None:
            return
        if not self.plugins_dir.is_dir():
            raise UserError(f"plugins_dir={self.plugins_dir} is not a folder")
        package = "alignzoo_local_" + hashlib.sha256(str(self.plugins_dir).encode()).hexdigest()[:8]
        for path in sorted(self.plugins_dir.iterdir()):
            inner = path / f"{path.name}.py"
            file, module = (inner, f"{path.name}.{path.name}") if inner.is_file() else (path, path.stem)
            if file.suffix == ".py" and not file.name.startswith(("_", "test_", "conftest")):
                for group in declared.groups(file):
                    yield Plugin(group, file.stem, f"{package}.{module}", None, str(file), file)

    def _make_importable(self, module: str) -> None:
        """A package whose path is the local folder, so that plugins in it may import files beside them."""
        name = module.split(".")[0]
        package = types.ModuleType(name)
        package.__path__ = [str(self.plugins_dir)]
        sys.modules.setdefault(name, package)
        importlib.invalidate_caches()


def card_of(plugin: Plugin) -> Card:
    """Read from files alone: the plugin is not imported."""
    if plugin.preset:
        return Card(summary=first_comment(plugin.preset))
    files = [plugin.source.with_suffix(".md"), plugin.source.with_name("README.md")] if plugin.source else []
    card = next((card for card in map(declared.read_card, files) if card), None)
    return card or Card(summary=declared.docstring(plugin.source, plugin.attribute))


def first_comment(path: Path) -> str:
    """What a YAML file says of itself: its first comment line."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line), "")


def unknown(group: str, name: str, options: Iterable[str]) -> str:
    if meant := foreign_names.option(group, name):
        return f"no {group} {name!r}: write {meant}"
    names = sorted(options)
    return f"no {group} {name!r}.{nearest(name, names)} Available: {', '.join(names)}"


def _handed(taken: set[str]) -> Iterator[Plugin]:
    for name in handed.names():
        if name not in taken:
            kind = handed.class_of(handed.schema(name))
            yield Plugin("algorithm", name, kind.__module__, kind.__qualname__, handed.SESSION, handed.source_of(kind))


def _installed() -> Iterator[Plugin]:
    points = entry_points()  # read once: it opens a file of every distribution there is
    for group, kinds in ENTRY_POINTS.items():
        for point in (point for kind in kinds for point in points.select(group=f"alignzoo.{kind}")):
            origin = _release(point.dist) if point.dist else point.value
            yield Plugin(group, point.name, point.module, point.attr, origin, imports.source_of(point.module))


@functools.lru_cache(maxsize=8)
def _release(distribution: Distribution) -> str:
    """Its name and version, for which a file is parsed: once for all its plugins."""
    return f"{distribution.name} {distribution.version}"


def _presets(plugin: Plugin) -> Iterator[Plugin]:
    folder = plugin.source.parent / "presets" if plugin.source else None
    for path in sorted(folder.glob("*.yaml")) if folder and plugin.source and _own_folder(plugin.source) else []:
        yield Plugin(plugin.group, path.stem, plugin.module, plugin.attribute, str(path), plugin.source, preset=path)


def _own_folder(source: Path) -> bool:
    return source.parent.name == source.stem


def _contracts(group: str) -> tuple[type, ...]:
    """What the classes of a group are subclasses of."""
    from alignzoo import contracts

    return {
        "algorithm": (contracts.Algorithm, contracts.TrainerPlugin),
        "data": (contracts.Source,),
        "reward": (contracts.Reward,),
        "reference": (contracts.Reference,),
        "sampler": (contracts.Sampler,),
    }[group]


def _only(module: types.ModuleType, plugin: Plugin) -> object:
    """What a local file holds for its group: the function of its name, or the one class."""
    if plugin.group == METRIC:
        return getattr(module, plugin.name)
    contracts = _contracts(plugin.group)
    values = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    classes = [cls for cls in values if issubclass(cls, contracts)]
    classes = [cls for cls in classes if not inspect.isabstract(cls)] or classes
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        kinds = " or ".join(f"{'an' if cls.__name__[0] == 'A' else 'a'} {cls.__name__}" for cls in contracts)
        raise UserError(
            f"{module.__file__} must hold exactly one {plugin.group} (a dataclass that is {kinds}); it holds {names}"
        )
    return classes[0]


def _checked_class(plugin: Plugin, cls: object) -> type:
    """Raise UserError for what declares nonsense: no dataclass, none of its group's, unfinished, not expressible as config."""
    who = f"the plugin {plugin.name!r} ({plugin.origin})"
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise UserError(
            f"{who} names {plugin.module}:{plugin.attribute or getattr(cls, '__name__', cls)}, which is no dataclass"
        )
    name = cls.__name__
    if "__dataclass_fields__" not in vars(cls):
        raise UserError(f"{who}: {name} is a dataclass only through its base: write @dataclass(kw_only=True) above it")
    contracts = _contracts(plugin.group)
    if not issubclass(cls, contracts):
        names = " or ".join(contract.__name__ for contract in contracts)
        raise UserError(f"{who}: {name} is registered as {plugin.group}, but is no alignzoo.contracts.{names}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise UserError(f"{who}: {name} is not finished: it does not say its {missing}")
    _check_version(plugin, getattr(cls, "api_version", None))
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.structured(cls)
    except (OmegaConfBaseException, NameError, TypeError, ValueError) as error:
        where = getattr(error, "full_key", None) or getattr(error, "key", None)
        field = f" the field {where!r}" if where else ""
        raise UserError(f"{who}:{field} can't be in a config: {first_line(error)}. Use {TYPES}") from error
    return cls


def _check_version(plugin: Plugin, stated: object) -> None:
    """A plugin made for 1.2 runs with 1.2, 1.3, ..., not with 1.1 or 2.0; one that states no version with any."""
    if stated is None:
        return
    wanted, ours = ([int(part) for part in version.split(".") if part.isdigit()] for version in (str(stated), API_VERSION))
    if wanted[:1] != ours[:1] or wanted > ours:
        remedy = "a newer version of the plugin" if wanted < ours else "a newer alignzoo"
        raise UserError(
            f"the plugin {plugin.name!r} ({plugin.origin}) was made for version {stated} of the plugin contract, and alignzoo "
            f"{__version__} has version {API_VERSION}: install {remedy}"
        )


def field_names(plugin: Plugin) -> list[str]:
    """The settings that the plugin's own class declares, read from the source."""
    return declared.field_names(plugin.source, plugin.attribute)
