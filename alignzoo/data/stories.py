"""Openings and titles of stories, and how they go on, that come with alignzoo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from alignzoo.batch import Batch, Completions
from alignzoo.data.files import JsonLines
from alignzoo.data.json_text import Report
from alignzoo.data.rows import Row
from alignzoo.data.stored import RawRow
from alignzoo.errors import UserError

FOLDER = Path(__file__).parents[1] / "stories" / "data"


class StoryPart(Enum):
    """Which rows: `continuations` have a prompt and what follows it, `prompts` are more varied and have nothing else."""

    auto = "auto"  # continuations for algorithms that learn from demonstrations, prompts for others
    prompts = "prompts"
    continuations = "continuations"


@dataclass(kw_only=True)
class Stories(JsonLines):
    """Openings and titles of stories in lower case, alone or with what follows them; nothing to download."""

    part: StoryPart = field(
        default=StoryPart.auto, metadata={"help": "prompts alone, or with a continuation; auto: as the algorithm needs"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._view: type[Batch] | None = None
        if self.path or self.heldout_path:
            raise UserError("data=stories brings its own files: leave data.path out, or take data=jsonl for yours")

    def rows_for(self, view: type[Batch]) -> tuple[list[Row], list[Row], Report]:
        self._view = view
        return super().rows_for(view)

    def demonstrated(self) -> list[Row]:
        """There are continuations, whatever is trained on."""
        return self._canonical(self.read_file(FOLDER / f"{StoryPart.continuations.value}_heldout.jsonl"), Counter())

    def read(self, heldout: bool) -> Iterable[RawRow]:
        """The rows of one side. Held-out rows have files of their own, of stories that benchmarks/stories does not train on."""
        part = self.part
        if part is StoryPart.auto:
            part = StoryPart.continuations if self._view is Completions else StoryPart.prompts
        return self.read_file(FOLDER / f"{part.value}_{'heldout' if heldout else 'train'}.jsonl")
