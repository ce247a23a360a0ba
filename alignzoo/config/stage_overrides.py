"""Overrides as they were written, what they speak of by `{stage:NAME}`, and what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.types import Override

from alignzoo.config import grammar
from alignzoo.config.overrides import written

REFERENCE = re.compile(r"(['\"]?)\{stage:([^}]*)\}([^\s,\[\]{}()'\"]*)\1")


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
        return "/" in self.key or "@" in self.key or (self.key in groups() and not self.parsed.is_delete())

    @property
    def first(self) -> bool:
        """What the stages' own overrides refine."""
        return self.head in ("experiment", "debug", "plugins_dir", "hydra")


def references(text: str) -> list[str]:
    """The stages that an override speaks of by `{stage:NAME}`."""
    return [found[2] for found in REFERENCE.finditer(text)]


def replaced(text: str, folders: Mapping[str, str]) -> str:
    """With the folders of stages, quoted where they must be."""

    def folder(found: re.Match[str]) -> str:
        path = folders[found[2]] + found[3]
        return f"{found[1]}{path}{found[1]}" if found[1] else written(path)

    return REFERENCE.sub(folder, text)


def text_of(value: Any) -> str:
    """Of what `config.value_of` found, empty where that is nothing."""
    return "" if value is None else str(getattr(value, "text", value))


@lru_cache(maxsize=1)
def groups() -> frozenset[str]:
    with grammar.searching():
        return frozenset(grammar.groups())
