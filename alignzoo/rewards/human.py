"""`reward=human`: people are asked while the run waits; `reward=ratings`: what they said before."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.common.folder import objects
from alignzoo.contracts import Context, Reward, Source
from alignzoo.errors import UserError, require
from alignzoo.label.asking import Asker, mean
from alignzoo.label.items import QuestionKind, Scale, item
from alignzoo.label.requests import FOLDER
from alignzoo.rewards.text_reward import Rating, TextReward, Written


@dataclass(kw_only=True)
class Human(TextReward):
    """The mean rating of people, for whom the run waits.

    Each rollout writes a request file and goes on when it is answered: with `alignzoo label REQUEST`, on the page of
    `alignzoo label FOLDER --serve`, in its CSV, or by any program.

    Requests are blind and shuffled. What was answered once is never asked again: a run that was stopped while it waited goes on
    with the request that is open. A completion that all raters skip has no score.
    """

    folder: str | None = field(
        default=None, metadata={"help": "where requests and answers are; null: beside the run's folder, RUN.labels"}
    )
    low: float = field(default=1.0, metadata={"help": "the lowest rating"})
    high: float = field(default=5.0, metadata={"help": "the highest rating"})
    raters: int = field(default=1, metadata={"help": "how many people rate each completion"})
    timeout: float = field(
        default=0.0, metadata={"help": "seconds to wait; what has no answer then is handled by scoring.on_error; 0: no end"}
    )
    poll: float = field(default=1.0, metadata={"help": "seconds between two looks for answers"})
    evaluations: bool = field(
        default=False, metadata={"help": "ask about what evaluations sample as well; otherwise only known answers count there"}
    )

    def __post_init__(self) -> None:
        require(self.low < self.high, "reward.low", self.low, f"below reward.high={self.high:g}")
        require(self.raters >= 1, "reward.raters", self.raters, ">= 1")
        require(self.timeout >= 0, "reward.timeout", self.timeout, ">= 0")
        require(self.poll > 0, "reward.poll", self.poll, "> 0")

    def setup(self, context: Context) -> None:
        self._context = context
        self._asker = Asker(
            folder=Path(self.folder).expanduser() if self.folder else _beside(context),
            scale=Scale(self.low, self.high), raters=self.raters, timeout=self.timeout, poll=self.poll,
        )  # fmt: skip

    def rate_all(self, completions: list[Written]) -> list[Rating]:
        shared = self._context.shared
        waits = self.evaluations or shared is None or shared.noise.purpose != "evaluation"
        items = [item(QuestionKind.ratings, completion.prompt, [completion.text]) for completion in completions]
        missing = f"got no answer within {self.timeout:g} s" if waits else None
        answers = self._asker.ask(items, wait=waits)
        return [mean(several) if len(several) >= self.raters else missing for several in answers]


def _beside(context: Context) -> Path:
    """Not in the run's folder: what people did outlives a run that is begun anew."""
    if context.folder is None:
        return context.cache / "labels"
    return context.folder.with_name(f"{context.folder.name}{FOLDER}")


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
        ratings: dict[tuple[str, str], list[float]] = defaultdict(list)
        for number, row in objects(Path(str(self.path)).expanduser()):
            place = f"reward.path={self.path}, line {number}"
            prompt, completion, rating = ((row or {}).get(name) for name in ("prompt", "completion", self.rating))
            if not isinstance(prompt, str) or not isinstance(completion, str):
                raise UserError(
                    f"{place}: must be an object with the texts prompt and completion, and a {self.rating}, as JSON"
                )
            if isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
                raise UserError(f"{place}: {self.rating} is {rating!r}: must be a finite number")
            ratings[prompt.strip(), completion.strip()].append(float(rating))
        if not ratings:
            raise UserError(f"reward.path={self.path}: the file is empty")
        self._means = {texts: sum(several) / len(several) for texts, several in ratings.items()}

    def rate(self, completion: Written) -> float | None:
        return self._means.get((completion.prompt.strip(), completion.text.strip()))
