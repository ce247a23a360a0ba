"""What a name, a path or a package stands for, as plugins under test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignzoo.config.registry import ENTRY_POINTS, METRIC, SAMPLER, Plugin, Registry
from alignzoo.contracts import Algorithm
from alignzoo.errors import UserError, nearest
from alignzoo.models.sampling.backends import ours
from alignzoo.testing.subject import Part, Subject


def subjects(target: str, folder: Path, overrides: Sequence[str] = ()) -> list[Part[object]]:
    """What a name, GROUP=NAME, a file or folder, or an installed package stands for. Raises UserError where that is nothing.

    `overrides` give plugins their settings, as `reward.path=...`; each subject works in a folder of its own within `folder`.
    """
    path = Path(target).expanduser()
    local = path.exists() or target.endswith(".py") or "/" in target
    home = _home(path) if local else None
    plugins = _local(path) if local else _installed(target)
    return [_subject(plugin, folder / plugin.group / plugin.name, home, overrides) for plugin in plugins]


def registered(name: str, folder: Path, plugins_dir: Path | None = None, overrides: Sequence[str] = ()) -> Subject:
    """The subject of a registered name: the defaults of an algorithm, or a preset, with `overrides`."""
    subject = _subject(Registry(plugins_dir).get("algorithm", name), folder, plugins_dir, overrides)
    assert isinstance(subject, Subject)
    return subject


def _subject(plugin: Plugin, folder: Path, plugins_dir: Path | None, overrides: Sequence[str]) -> Part[object]:
    if plugin.group == METRIC:
        return Part(plugin.name, METRIC, Registry(plugins_dir).metric(plugin.name), folder, plugin, plugins_dir)
    if plugin.group == SAMPLER:
        samplers = composed("samplers", [f"generation.decoding={plugin.name}", *overrides], plugins_dir)
        assert isinstance(samplers, dict)
        return Part(plugin.name, SAMPLER, (ours() | samplers)[plugin.name], folder, plugin, plugins_dir, overrides)
    instance = composed(plugin.group, [f"{plugin.group}={plugin.name}", *overrides], plugins_dir)
    if isinstance(instance, Algorithm):
        return Subject(plugin.name, instance, folder, plugin, plugins_dir, overrides)
    group = "trainer" if plugin.group == "algorithm" else plugin.group
    return Part(plugin.name, group, instance, folder, plugin, plugins_dir, overrides)


def composed(group: str, overrides: Sequence[str], plugins_dir: Path | None) -> object:
    """What a run has of this name that these overrides give: the instance of a config group, or its samplers."""
    from alignzoo.config.composition import compose
    from alignzoo.config.run import instantiate

    local = [f"plugins_dir={plugins_dir}"] if plugins_dir else []
    return getattr(instantiate(compose([*overrides, *local])), group)


def _installed(target: str) -> list[Plugin]:
    """The plugins of NAME or GROUP=NAME, or all that a distribution or package of that name registers."""
    registry = Registry()
    group, _, name = target.rpartition("=")
    if group and group not in ENTRY_POINTS:
        raise UserError(f"no group {group!r}.{nearest(group, ENTRY_POINTS)} Groups: {', '.join(ENTRY_POINTS)}")
    groups = [group] if group else list(ENTRY_POINTS)
    if named := [registry.get(g, name) for g in groups if name in registry.names(g)]:
        return named
    everything = [plugin for g in groups for plugin in registry.everything(g)]
    if packaged := [plugin for plugin in everything if _is_of(plugin, name)]:
        return packaged
    near = nearest(name, {plugin.name for plugin in everything})
    raise UserError(
        f"no plugin, file or package {target!r}.{near} "
        "`alignzoo plugin list` shows what is installed; a local one is given by its path"
    )


def _is_of(plugin: Plugin, package: str) -> bool:
    distribution, *_ = plugin.origin.split(" ")
    names = (distribution, distribution.replace("-", "_"), plugin.module.split(".")[0])
    return plugin.preset is None and package in names


def _local(path: Path) -> list[Plugin]:
    """The plugin of a file or of its own folder; all of a folder of plugins."""
    if not path.exists():
        raise UserError(f"no file or folder {path}")
    registry = Registry(_home(path))
    plugins = [plugin for group in ENTRY_POINTS for plugin in registry.everything(group)]
    inside = [plugin for plugin in plugins if plugin.source and plugin.source.is_relative_to(path.absolute())]
    if not inside:
        raise UserError(f"{path} holds no plugin: a plugin is NAME.py or NAME/NAME.py")
    return inside


def _home(path: Path) -> Path:
    """The folder that is `plugins_dir` for a plugin at `path`: that of NAME.py or NAME/NAME.py, or `path` itself."""
    path = path.absolute()
    folder = path.parent if path.is_file() else path
    return folder.parent if (folder / f"{folder.name}.py").is_file() else folder
