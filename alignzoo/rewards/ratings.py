"""`reward=ratings`: what people said."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.contracts import Context, Reward, Source
from alignzoo.errors import UserError
from alignzoo.rewards.texts import TextReward, Written

Key = tuple[str, str]


@dataclass(kw_only=True)
class Ratings(TextReward):
    """Human ratings from a JSON Lines file of prompt, completion and rating; the mean where several rated the same.

    Prompt and completion are compared as they are, blanks at both ends apart. A completion that nobody rated has no score.
    """

    path: str | None = field(default=None, metadata={"help": "a .jsonl file"})
    rating: str = field(default="rating", metadata={"help": "the key of the number in each line"})

    def resolve(self, source: Source) -> Reward:
        if not self.path:
            raise UserError("reward=ratings needs a file: give reward.path=PATH")
        if not Path(self.path).expanduser().is_file():
            raise UserError(f"reward.path={self.path}: no such file")
        return self

    def setup(self, context: Context) -> None:
        found: dict[Key, list[float]] = defaultdict(list)
        for number, line in enumerate(Path(str(self.path)).expanduser().read_text("utf-8").split("\n"), 1):
            if line.strip():
                key, rating = self._entry(line, f"reward.path={self.path}, line {number}")
                found[key].append(rating)
        if not found:
            raise UserError(f"reward.path={self.path}: the file is empty")
        self._means = {key: sum(ratings) / len(ratings) for key, ratings in found.items()}

    def rate(self, one: Written) -> float | None:
        return self._means.get((one.prompt.strip(), one.text.strip()))

    def _entry(self, line: str, place: str) -> tuple[Key, float]:
        try:
            entry: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place}: no JSON: {error}") from error
        for name in ("prompt", "completion"):
            if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
                raise UserError(f"{place}: must be an object with the texts prompt and completion, and a {self.rating}")
        rating = entry.get(self.rating)
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
            raise UserError(f"{place}: {self.rating} is {rating!r}: must be a finite number")
        return (entry["prompt"].strip(), entry["completion"].strip()), float(rating)
