"""Overrides of a pipeline's command line: as they were written, as Hydra reads them, and which stages they speak of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hydra.core.override_parser.types import Override

from alignzoo.config import command_line
from alignzoo.config.quoting import written

REFERENCE = re.compile(r"(['\"]?)\{stage:([^}]*)\}([^\s,\[\]{}()'\"]*)\1")


@dataclass(frozen=True, eq=False)
class StageOverride:
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
    def value(self) -> str:
        """What it was written with, after the equals sign."""
        return self.text.partition("=")[2]

    @property
    def chooses(self) -> bool:
        """An option of a group, or where to look for some, rather than the value of a key."""
        if self.head in ("plugins_dir", "hydra"):
            return True
        return "/" in self.key or "@" in self.key or (self.key in _groups() and not self.parsed.is_delete())

    @property
    def refined_by_stages(self) -> bool:
        """What the stages' own overrides are stronger than."""
        return self.head in ("experiment", "debug", "plugins_dir", "hydra")

    @property
    def uses(self) -> list[str]:
        return references(self.text)

    def is_tied(self, stage: Sequence[StageOverride]) -> bool:
        """Whether the stage takes this from another: `model=` changes none whose `model.path` is another's result."""
        return any(self.key == o.key or (self.chooses and self.head == o.head) for o in stage if o.uses)


def read(texts: Sequence[str]) -> list[StageOverride]:
    """Raises UserError for what Hydra can't read."""
    return [StageOverride(text, o) for text, o in zip(texts, command_line.parse(texts), strict=True)]


def references(text: str) -> list[str]:
    """The stages that an override speaks of by `{stage:NAME}`."""
    return [reference[2] for reference in REFERENCE.finditer(text)]


def replaced(text: str, folders: Mapping[str, str]) -> str:
    """With the folders of stages, quoted where they must be."""

    def folder(reference: re.Match[str]) -> str:
        path = folders[reference[2]] + reference[3]
        return f"{reference[1]}{path}{reference[1]}" if reference[1] else written(path)

    return REFERENCE.sub(folder, text)


@lru_cache(maxsize=1)
def _groups() -> frozenset[str]:
    with command_line.searching():
        return frozenset(command_line.groups())
