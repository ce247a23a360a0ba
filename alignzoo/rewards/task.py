"""`reward=task`: the reward the data brings; `reward=none`: nothing is scored."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError


@dataclass(kw_only=True)
class Task(Reward):
    """The data source's own reward, or none: algorithms that learn from pairs or demonstrations need none."""

    def resolve(self, source: Source) -> Reward | None:
        return source.reward()

    def __call__(self, c: Completions) -> Scores:
        raise UserError(
            "reward=task stands for the data's own reward, and this data has none: choose reward=function or reward=model"
        )


@dataclass(kw_only=True)
class NoReward(Reward):
    """No reward: for algorithms that need none, whose evaluation then reports none."""

    def resolve(self, source: Source) -> None:
        return None

    def __call__(self, c: Completions) -> Scores:
        raise UserError("reward=none scores nothing: choose reward=task, reward=function or reward=model")
