"""What a name, a path or a package stands for."""

from __future__ import annotations

from pathlib import Path

from alignzoo.config.registry import ENTRY_POINTS, Plugin, Registry
from alignzoo.errors import UserError, nearest


def find(target: str) -> list[tuple[Plugin, Path | None]]:
    """Plugins, each with the local folder it is in, if any. Raises UserError where there are none.

    `target` is NAME, GROUP=NAME, a plugin's file or folder, or an installed distribution or package, for all that it registers.
    """
    path = Path(target).expanduser()
    if path.exists() or target.endswith(".py") or "/" in target:
        return [(plugin, _home(path)) for plugin in _local(path)]
    registry = Registry()
    group, _, name = target.rpartition("=")
    if group and group not in ENTRY_POINTS:
        raise UserError(f"no group {group!r}.{nearest(group, ENTRY_POINTS)} Groups: {', '.join(ENTRY_POINTS)}")
    groups = [group] if group else list(ENTRY_POINTS)
    if named := [registry.get(g, name) for g in groups if name in registry.names(g)]:
        return [(plugin, None) for plugin in named]
    everything = [plugin for g in groups for plugin in registry.everything(g)]
    if of_package := [plugin for plugin in everything if _package(plugin, name)]:
        return [(plugin, None) for plugin in of_package]
    near = nearest(name, {plugin.name for plugin in everything})
    raise UserError(
        f"no plugin, file or package {target!r}.{near} "
        "`alignzoo plugin list` shows what is installed; a local one is given by its path"
    )


def _local(path: Path) -> list[Plugin]:
    """The plugin of a file or of its own folder; all of a folder of plugins."""
    if not path.exists():
        raise UserError(f"no file or folder {path}")
    registry = Registry(_home(path))
    found = [plugin for group in ENTRY_POINTS for plugin in registry.everything(group)]
    inside = [plugin for plugin in found if plugin.source and plugin.source.is_relative_to(path.absolute())]
    if not inside:
        raise UserError(f"{path} holds no plugin: a plugin is NAME.py or NAME/NAME.py")
    return inside


def _home(path: Path) -> Path:
    """The folder that is `plugins_dir` for a plugin at `path`: that of NAME.py or NAME/NAME.py, or `path` itself."""
    path = path.absolute()
    folder = path.parent if path.is_file() else path
    own = (folder / f"{folder.name}.py").is_file()
    return folder.parent if own else folder


def _package(plugin: Plugin, name: str) -> bool:
    distribution, *_ = plugin.origin.split(" ")
    return plugin.preset is None and name in (distribution, distribution.replace("-", "_"), plugin.module.split(".")[0])
