"""Which plugins there are: entry points and local folders, found and described without importing them."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from alignzoo import API_VERSION, __version__
from alignzoo.common import imports
from alignzoo.config import declared, foreign_names
from alignzoo.config.declared import Card
from alignzoo.errors import UserError, nearest

GROUPS = ("algorithm", "data", "reward", "reference", "gold")  # config groups; a hosted trainer is an option of `algorithm`
ALIASES = {"gold": "reward"}  # groups whose options are those of another
METRIC = "metric"
ENTRY_POINTS = {group: (group,) for group in (*GROUPS, METRIC) if group not in ALIASES} | {
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
    `Reward`, a `Reference` or a `Source` (one of several is possible), or with a function called `<name>`, a metric.
    """

    def __init__(self, plugins_dir: str | Path | None = None) -> None:
        self.plugins_dir = Path(plugins_dir).expanduser().absolute() if plugins_dir else None
        local, points = list(self._local()), entry_points()  # read once: it opens a file of every distribution there is
        self._plugins = {group: self._find(group, local, points) for group in ENTRY_POINTS}

    def names(self, group: str) -> list[str]:
        return sorted(self._plugins[ALIASES.get(group, group)])

    def get(self, group: str, name: str) -> Plugin:
        """Raises UserError for a name nobody has, with the nearest ones, and for a name that two have."""
        found = self._plugins[ALIASES.get(group, group)].get(name, [])
        if not found:
            raise UserError(unknown(group, name, self.names(group)))
        if len(found) > 1:
            raise UserError(
                f"{group} {name!r} is there twice: in {' and in '.join(p.origin for p in found)}. Remove or rename one."
            )
        return found[0]

    def load(self, group: str, name: str) -> type:
        """The class; for a preset, that of the plugin it is a variant of. Raises UserError where it can't be imported, was made
        for another version of the contract, or is not what its group asks for."""
        plugin = self.get(group, name)
        found = self._import(plugin)
        _check_class(plugin, found)
        return found

    def metric(self, name: str) -> Callable[..., Any]:
        """The function of a metric. Raises UserError like `load`."""
        plugin = self.get(METRIC, name)
        found = self._import(plugin)
        if not callable(found):
            raise UserError(f"the metric {name!r} ({plugin.origin}) is a {type(found).__name__}, not a function of completions")
        return found

    def _import(self, plugin: Plugin) -> Any:
        stated = declared.api_version(plugin.source, plugin.attribute)
        if stated is not None:
            _check_version(plugin, stated)
        try:
            if plugin.module.startswith("alignzoo_local_"):
                self._make_importable(plugin.module)
            module = imports.current(plugin.module)
            return _named(module, plugin.attribute) if plugin.attribute else _only(module, plugin)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            circular = " (a circular import: move what both files need into a third)" if "circular" in str(error) else ""
            reason = f"{type(error).__name__}: {first_line(error)}{circular}"
            raise UserError(f"the plugin {plugin.name!r} ({plugin.origin}) can't be imported: {reason}") from error

    def settings(self, experiment: str, algorithm: str) -> Path | None:
        """The file of the settings that an algorithm, or the plugin it is a preset of, brings for an experiment:
        EXPERIMENT.yaml beside it, in a folder of its own."""
        found = self._plugins["algorithm"].get(algorithm, [])
        source = found[0].source if len(found) == 1 else None
        file = source.with_name(f"{experiment}.yaml") if source and _own_folder(source) else None
        return file if file and file.is_file() else None

    def everything(self, group: str) -> list[Plugin]:
        """All plugins and presets of a group, by name; a name that two have comes twice."""
        return [plugin for name in self.names(group) for plugin in self._plugins[ALIASES.get(group, group)][name]]

    def card(self, group: str, name: str) -> Card:
        return card_of(self.get(group, name))

    def _find(self, group: str, local: list[Plugin], points: Any) -> dict[str, list[Plugin]]:
        found: dict[str, list[Plugin]] = {}
        installed = list(_installed(group, points))
        known = {(plugin.name, plugin.source) for plugin in installed}  # also found in its folder, it is one
        plugins = [*installed, *(p for p in local if p.group == group and (p.name, p.source) not in known)]
        presets = [preset for plugin in plugins for preset in _presets(plugin)]
        for plugin in [*plugins, *presets]:
            found.setdefault(plugin.name, []).append(plugin)
        return found

    def _local(self) -> Iterator[Plugin]:
        if self.plugins_dir is None:
            return
        if not self.plugins_dir.is_dir():
            raise UserError(f"plugins_dir={self.plugins_dir} is not a folder")
        package = _local_package(self.plugins_dir)
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


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _installed(group: str, points: Any) -> Iterator[Plugin]:
    for point in (point for kind in ENTRY_POINTS[group] for point in points.select(group=f"alignzoo.{kind}")):
        origin = _release(point.dist) if point.dist else point.value
        yield Plugin(group, point.name, point.module, point.attr, origin, _source(point.module))


@functools.lru_cache(maxsize=8)
def _release(distribution: Any) -> str:
    """Its name and version, for which a file is parsed: once for all its plugins."""
    return f"{distribution.name} {distribution.version}"


def _presets(plugin: Plugin) -> Iterator[Plugin]:
    folder = plugin.source.parent / "presets" if plugin.source else None
    for path in sorted(folder.glob("*.yaml")) if folder and plugin.source and _own_folder(plugin.source) else []:
        yield Plugin(plugin.group, path.stem, plugin.module, plugin.attribute, str(path), plugin.source, preset=path)


def _own_folder(source: Path) -> bool:
    return source.parent.name == source.stem


def _source(module: str) -> Path | None:
    """The file of a module. Only its top-level package is looked up, because looking up a submodule imports its parents."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # half imported, or not to be found: told when the plugin is loaded
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    places = [Path(place, *rest) for place in spec.submodule_search_locations or []]
    candidates = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in candidates if file.is_file()), None)


def _local_package(folder: Path) -> str:
    return "alignzoo_local_" + hashlib.sha256(str(folder).encode()).hexdigest()[:8]


def _named(module: types.ModuleType, attribute: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _contracts(group: str) -> tuple[type, ...]:
    """What the classes of a group are subclasses of."""
    from alignzoo import contracts

    return {
        "algorithm": (contracts.Algorithm, contracts.TrainerPlugin),
        "data": (contracts.Source,),
        "reward": (contracts.Reward,),
        "reference": (contracts.Reference,),
    }[group]


def _only(module: types.ModuleType, plugin: Plugin) -> Any:
    """What a local file holds for its group: the function of its name, or the one class."""
    if plugin.group == METRIC:
        return getattr(module, plugin.name)
    contracts = _contracts(plugin.group)
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    found = [cls for cls in own if issubclass(cls, contracts)]
    whole = [cls for cls in found if not inspect.isabstract(cls)]
    found = whole or found
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        kinds = " or ".join(f"{'an' if cls.__name__[0] == 'A' else 'a'} {cls.__name__}" for cls in contracts)
        raise UserError(
            f"{module.__file__} must hold exactly one {plugin.group} (a dataclass that is {kinds}); it holds {names}"
        )
    return found[0]


def _check_class(plugin: Plugin, found: Any) -> None:
    """Raise UserError for what declares nonsense: no dataclass, none of its group's, unfinished, not expressible as config."""
    who = f"the plugin {plugin.name!r} ({plugin.origin})"
    if not (isinstance(found, type) and is_dataclass(found)):
        raise UserError(f"{who} names {plugin.module}:{plugin.attribute or found.__name__}, which is no dataclass")
    if "__dataclass_fields__" not in vars(found):
        raise UserError(
            f"{who}: {found.__name__} is a dataclass only through its base: write @dataclass(kw_only=True) above it"
        )
    contracts = _contracts(plugin.group)
    if not issubclass(found, contracts):
        names = " or ".join(cls.__name__ for cls in contracts)
        raise UserError(f"{who}: {found.__name__} is registered as {plugin.group}, but is no alignzoo.contracts.{names}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"{who}: {found.__name__} is not finished: it does not say its {missing}")
    if (stated := getattr(found, "api_version", None)) is not None:
        _check_version(plugin, str(stated))
    _check_fields(who, found)


def _check_fields(who: str, found: type) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.structured(found)
    except (OmegaConfBaseException, NameError, TypeError, ValueError) as error:
        where = getattr(error, "full_key", None) or getattr(error, "key", None)
        field = f" the field {where!r}" if where else ""
        raise UserError(f"{who}:{field} can't be in a config: {first_line(error)}. Use {TYPES}") from error


def _check_version(plugin: Plugin, stated: str) -> None:
    """A plugin made for 1.2 runs with 1.2, 1.3, ..., not with 1.1 or 2.0."""
    wanted, own = ([int(part) for part in version.split(".") if part.isdigit()] for version in (stated, API_VERSION))
    if wanted[:1] != own[:1] or wanted > own:
        remedy = "a newer version of the plugin" if wanted < own else "a newer alignzoo"
        raise UserError(
            f"the plugin {plugin.name!r} ({plugin.origin}) was made for version {stated} of the plugin contract, and alignzoo "
            f"{__version__} has version {API_VERSION}: install {remedy}"
        )


def field_names(plugin: Plugin) -> list[str]:
    """The settings that the plugin's own class declares, read from the source."""
    return declared.field_names(plugin.source, plugin.attribute)
