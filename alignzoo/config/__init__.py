"""What a run is made of, in words: plugins as options, overrides, pipelines, and the objects they become.

What was handed on when this was one file still is; it is imported when it is first used.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "alignzoo.config.composition": ("compose", "load_run", "tied"),
    "alignzoo.config.command_line": ("check_options", "groups", "options", "parse", "searching", "value_of"),
    "alignzoo.config.run": ("complete", "instantiate", "single"),
    "alignzoo.setup": ("Pipeline", "RunConfig"),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alignzoo.config' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
