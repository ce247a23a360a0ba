"""Which plugins there are: entry points and local folders, found and described without importing them."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from alignzoo.settings import UserError, nearest

GROUPS = ("algorithm", "data", "reward", "reference")


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


@dataclass(frozen=True)
class Card:
    """What a plugin says of itself: the front matter of its card, else the first line of its class's docstring."""

    summary: str = ""
    family: str = ""
    needs: list[str] = field(default_factory=list)
    data: str = ""
    paper: str = ""
    text: str = ""


class Registry:
    """The plugins of every group, of the installed distributions and of the folder `plugins_dir`.

    A local folder holds algorithms: `<name>/<name>.py` or `<name>.py`, each with one dataclass that is an `Algorithm`.
    """

    def __init__(self, plugins_dir: str | Path | None = None) -> None:
        self.plugins_dir = Path(plugins_dir).expanduser().absolute() if plugins_dir else None
        self._plugins = {group: self._find(group) for group in GROUPS}

    def names(self, group: str) -> list[str]:
        return sorted(self._plugins[group])

    def get(self, group: str, name: str) -> Plugin:
        """Raises UserError for a name nobody has, with the nearest ones, and for a name that two have."""
        found = self._plugins[group].get(name, [])
        if not found:
            raise UserError(unknown(group, name, self.names(group)))
        if len(found) > 1:
            raise UserError(
                f"{group} {name!r} is there twice: in {' and in '.join(p.origin for p in found)}. Remove or rename one."
            )
        return found[0]

    def load(self, group: str, name: str) -> type:
        """The class; for a preset, that of the plugin it is a variant of. Raises UserError where it can't be imported."""
        plugin = self.get(group, name)
        try:
            if plugin.module.startswith("alignzoo_local_"):
                self._make_importable(plugin.module)
            module = importlib.import_module(plugin.module)
            found = getattr(module, plugin.attribute) if plugin.attribute else _only_algorithm(module)
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"the plugin {name!r} ({plugin.origin}) can't be imported: {reason}") from error
        if not (isinstance(found, type) and is_dataclass(found)):
            raise UserError(
                f"the plugin {name!r} ({plugin.origin}) names {plugin.module}:{plugin.attribute}, which is no dataclass"
            )
        return found

    def everything(self, group: str) -> list[Plugin]:
        """All plugins and presets of a group, by name; a name that two have comes twice."""
        return [plugin for name in self.names(group) for plugin in self._plugins[group][name]]

    def card(self, group: str, name: str) -> Card:
        return card_of(self.get(group, name))

    def _find(self, group: str) -> dict[str, list[Plugin]]:
        found: dict[str, list[Plugin]] = {}
        plugins = [*_installed(group), *(self._local() if group == "algorithm" else [])]
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
            if inner.is_file():
                yield Plugin("algorithm", path.name, f"{package}.{path.name}.{path.name}", None, str(inner), inner)
            elif path.suffix == ".py" and path.stem != "__init__":
                yield Plugin("algorithm", path.stem, f"{package}.{path.stem}", None, str(path), path)

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
    card = plugin.source.with_name("README.md") if plugin.source else None
    if card is not None and card.is_file() and card.read_text("utf-8").startswith("---\n"):
        return _read_card(card)
    return Card(summary=_docstring(plugin))


def first_comment(path: Path) -> str:
    """What a YAML file says of itself: its first comment line."""
    lines = path.read_text("utf-8").splitlines()
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line), "")


def unknown(group: str, name: str, options: Iterable[str]) -> str:
    names = sorted(options)
    return f"no {group} {name!r}.{nearest(name, names)} Available: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _installed(group: str) -> Iterator[Plugin]:
    for point in entry_points(group=f"alignzoo.{group}"):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        yield Plugin(group, point.name, point.module, point.attr, origin, _source(point.module))


def _presets(plugin: Plugin) -> Iterator[Plugin]:
    folder = plugin.source.parent / "presets" if plugin.source else None
    own_folder = plugin.source is not None and plugin.source.parent.name == plugin.source.stem
    for path in sorted(folder.glob("*.yaml")) if folder and own_folder else []:
        yield Plugin(plugin.group, path.stem, plugin.module, plugin.attribute, str(path), plugin.source, preset=path)


def _source(module: str) -> Path | None:
    """The file of a module. Only its top-level package is looked up, because looking up a submodule imports its parents."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    places = [Path(place, *rest) for place in spec.submodule_search_locations or []]
    candidates = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in candidates if file.is_file()), None)


def _local_package(folder: Path) -> str:
    return "alignzoo_local_" + hashlib.sha256(str(folder).encode()).hexdigest()[:8]


def _only_algorithm(module: types.ModuleType) -> type:
    from alignzoo.contracts import Algorithm

    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    found = [cls for cls in own if issubclass(cls, Algorithm)]
    whole = [cls for cls in found if not inspect.isabstract(cls)]
    if not whole and len(found) == 1:
        missing = ", ".join(sorted(found[0].__abstractmethods__))
        raise UserError(f"{module.__file__}: {found[0].__name__} is not finished: it does not say its {missing}")
    found = whole or found
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise UserError(
            f"{module.__file__} must hold exactly one algorithm (a dataclass that is an Algorithm); it holds {names}"
        )
    return found[0]


def _read_card(path: Path) -> Card:
    _, front, text = path.read_text("utf-8").split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(front) or {}
    needs = values.get("needs") or []
    return Card(
        summary=str(values.get("summary", "")),
        family=str(values.get("family", "")),
        needs=[str(n) for n in needs] if isinstance(needs, list) else [str(needs)],
        data=str(values.get("data", "")),
        paper=str(values.get("paper", "")),
        text=text.strip(),
    )


def field_names(plugin: Plugin) -> list[str]:
    """The settings that the plugin's own class declares, read from the source."""
    declared = [node for cls in _classes(plugin) for node in cls.body if isinstance(node, ast.AnnAssign)]
    return [ast.unparse(node.target) for node in declared if "ClassVar" not in ast.unparse(node.annotation)]


def _docstring(plugin: Plugin) -> str:
    """The first line of the class's docstring, read from the source."""
    texts = [ast.get_docstring(node) for node in _classes(plugin)]
    return next((text.splitlines()[0] for text in texts if text), "")


def _classes(plugin: Plugin) -> list[ast.ClassDef]:
    """The plugin's class in its source; every class of the file where the registry doesn't know which it is."""
    try:
        tree = ast.parse(plugin.source.read_text("utf-8") if plugin.source else "")
    except (OSError, SyntaxError):
        return []
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and plugin.attribute in (None, node.name)]
