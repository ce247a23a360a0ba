"""A rater's way through the questions, whatever shows them: what is next, in which order, what is kept, what is undone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignzoo.label.items import Answer, Item, Scale
from alignzoo.label.journal import RaterAnswer
from alignzoo.label.work import Work


@dataclass(frozen=True)
class Turn:
    """Where a rater stands: `about` is what is asked now, None where nothing is, and `last` what `undo` would take back. What
    enough others have answered counts as done."""

    about: Item | None
    scale: Scale
    done: int
    total: int
    last: RaterAnswer | None


@dataclass(kw_only=True)
class Session:
    """One rater before the items of `works`, which is called anew at each turn: a running program may ask more.

    Nothing is remembered between turns but on disk: sessions of one rater may go on at the same time, and after a crash.
    """

    works: Callable[[], Sequence[Work]]
    rater: str

    def turn(self) -> Turn:
        about, scale, left, total, last = None, Scale(), 0, 0, None
        for work in self.works():
            answers, ids = work.answers(), {item.id for item in work.items}
            todo = work.open_to(self.rater, answers)
            if about is None and todo:
                about, scale = todo[0], work.scale
            left, total = left + len(todo), total + len(work.items)
            last = next((answer for answer in reversed(answers) if self._mine(answer) and answer.item.id in ids), last)
        return Turn(about, scale, total - left, total, last)

    def places(self, about: Item) -> list[int]:
        """The completions in the order in which they are shown: a random one, another for each rater."""
        places = list(range(len(about.completions)))
        random.Random(f"{self.rater} {about.id}").shuffle(places)
        return places

    def answer(self, about: Item, answer: Answer, note: str = "") -> bool:
        """Keeps an answer, with ranks in the order shown. False where this rater has answered otherwise meanwhile, which
        stands. Raises LookupError for an item that nobody asks about any more."""
        work, places = self._asking(about.id), self.places(about)
        if isinstance(answer, list):
            answer = [answer[places.index(place)] for place in sorted(places)]
        with work.journal.alone():
            before = self._standing(work, about.id)
            if before is None:
                work.journal.append(self.rater, about, answer, work.scale, note)
        work.keep()
        return before is None or (before.answer, before.note) == (answer, note)

    def undo(self, item_id: str) -> RaterAnswer | None:
        """Takes back this rater's answer to an item, and returns it; None where there is none."""
        work = self._asking(item_id)
        with work.journal.alone():
            before = self._standing(work, item_id)
            if before is not None:
                work.journal.withdraw(self.rater, before.item)
        work.keep()
        return before

    def item(self, item_id: str) -> tuple[Item, Scale]:
        """Raises LookupError where nobody asks about it any more."""
        work = self._asking(item_id)
        return next(item for item in work.items if item.id == item_id), work.scale

    def _asking(self, item_id: str) -> Work:
        for work in self.works():
            if any(item.id == item_id for item in work.items):
                return work
        raise LookupError(item_id)

    def _standing(self, work: Work, item_id: str) -> RaterAnswer | None:
        return next((answer for answer in work.answers() if self._mine(answer) and answer.item.id == item_id), None)

    def _mine(self, answer: RaterAnswer) -> bool:
        return answer.rater == self.rater
