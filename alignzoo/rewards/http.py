"""`reward=http`: a scorer behind an address."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from alignzoo.batch import Completions
from alignzoo.contracts import Scores
from alignzoo.errors import require
from alignzoo.rewards.remote import NoAnswer, Remote
from alignzoo.rewards.texts import Written, column, scores, written


@dataclass(kw_only=True)
class Http(Remote):
    """A remote scorer. It gets POST {"prompts": [...], "completions": [...]} and answers {"scores": [...]}.

    One number a completion, null where it has none. `columns` of the data are sent beside, in {"columns": {NAME: [...]}}.
    """

    batch: int = field(default=64, metadata={"help": "completions of one request"})
    columns: list[str] = field(default_factory=list, metadata={"help": "data columns to send along"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch >= 1, "reward.batch", self.batch, ">= 1")

    def __call__(self, c: Completions) -> Scores:
        texts, numbers, failed = written(c), list[float | None](), dict[int, str]()
        for start in range(0, len(texts), self.batch):
            some = texts[start : start + self.batch]
            try:
                numbers += self._asked(some)
            except NoAnswer as error:
                failed |= dict.fromkeys(range(start, start + len(some)), f"got no score: {error}")
                numbers += [None] * len(some)
        return scores(numbers, c, failed)

    def _asked(self, texts: list[Written]) -> list[float | None]:
        message: dict[str, Any] = {"prompts": [one.prompt for one in texts], "completions": [one.text for one in texts]}
        if self.columns:
            message["columns"] = {name: [column(one, name, "reward.columns") for one in texts] for name in self.columns}
        answer = self.post(str(self.url), message)
        said = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(said, list) or len(said) != len(texts):
            raise NoAnswer(f'{self.url} must answer {{"scores": [...]}} with {len(texts)} of them, not {str(answer)[:60]}')
        for number in said:
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
                raise NoAnswer(f"{self.url} answered {number!r:.60}: a score must be a number, or null")
        return [None if number is None else number if math.isfinite(number) else math.nan for number in said]
