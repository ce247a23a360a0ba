"""`reward=none`: nothing is scored."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError


@dataclass(kw_only=True)
class NoReward(Reward):
    """No reward: for algorithms that need none, whose evaluation then reports none."""

    def resolve(self, source: Source) -> None:
        return None

    def __call__(self, c: Completions) -> Scores:
        raise UserError("reward=none scores nothing: choose reward=task, reward=function or reward=model")
