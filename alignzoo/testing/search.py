"""The property that tuning can look where a plugin says."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.errors import UserError
from alignzoo.settings import Search, searches
from alignzoo.testing.settings import others
from alignzoo.testing.subject import Subject, expect, leaves, varied


def search_spaces(subject: Subject) -> None:
    """Declared search ranges hold the default, and values that the algorithm takes."""
    check(subject.algorithm)


def check(settings: Any) -> None:
    """Raise `Broken` where a range of these settings leaves out the default or holds a value that is refused."""
    values = {path: value for path, value, _ in leaves(settings)}
    for path, search in searches(type(settings)):
        expect(isinstance(search, Search), f"the search of {path} to be a Search", repr(search), "a pair of numbers")
        inside = values[path] in search
        expect(inside, f"the default of {path} to lie in its range, {search}", f"{values[path]}", "a Search too narrow")
        refused = [end for end in search.ends if not _taken(settings, path, end)]
        cause = "`__post_init__` refuses it, whatever one other setting is, or the field is of another type"
        expect(not refused, f"{path} to take every value of its range, {search}", f"{refused} refused", cause)


def _taken(settings: Any, path: str, value: Any) -> bool:
    """With the other settings as they are, or with one of them changed: some are refused until another gives them meaning."""
    changes = [{name: v} for name, now, kind in leaves(settings) if name != path for v in others(now, kind)]
    return any(_valid(settings, change | {path: value}) for change in [{}, *changes])


def _valid(settings: Any, changes: dict[str, Any]) -> bool:
    try:
        OmegaConf.structured(varied(settings, changes))
    except (UserError, OmegaConfBaseException):
        return False
    return True
