"""One rater at a terminal: one item after the other, until all are answered or the rater has had enough."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignzoo.label.items import Answer, Item, Kind, Scale, parsed
from alignzoo.label.journal import Journal
from alignzoo.label.keys import END, Keys
from alignzoo.label.shown import Screen

COMMANDS = "s skip · u undo · q quit"
ENTER, BACK = ("\n", "\r"), ("\x7f", "\b")
PREFER = {"1": [1, 2], "a": [1, 2], "2": [2, 1], "b": [2, 1], "t": [1, 1], "=": [1, 1], "0": [1, 1]}


class Quit(Exception):
    """The rater has had enough."""


class Undo(Exception):
    """The rater wants the last answer back."""


@dataclass(kw_only=True)
class Session:
    """Asks `rater` about every item but those `known`, the ids of what they have answered, oldest first; calls `kept` after
    each answer.

    Completions are shown in a random order, another for each rater, and answers kept in that of the item.
    """

    items: Sequence[Item]
    journal: Journal
    rater: str
    keys: Keys
    screen: Screen
    scale: Scale = field(default_factory=Scale)
    known: Sequence[str] = ()
    kept: Callable[[], None] = lambda: None

    def run(self) -> int:
        """How many items are left open when it ends."""
        by_id = {one.id: one for one in self.items}
        done = [by_id[name] for name in self.known if name in by_id]
        todo = deque(one for one in self.items if one.id not in set(self.known))
        while todo:
            try:
                answer = self._asked(todo[0], len(done))
            except Quit:
                break
            except Undo:
                if done:
                    todo.appendleft(done.pop())
                    self.journal.withdraw(self.rater, todo[0])
                    self.kept()
                continue
            self.journal.append(self.rater, todo[0], answer, self.scale)
            self.kept()
            done.append(todo.popleft())
        return len(todo)

    def _asked(self, about: Item, done: int) -> Answer:
        places = list(range(len(about.completions)))
        random.Random(f"{self.rater} {about.id}").shuffle(places)
        self.screen.show(about, places, f"{done + 1} of {len(self.items)} · {self.rater}", f"{self._help(about)} · {COMMANDS}")
        while True:
            try:
                return self._read(about, places)
            except ValueError as error:
                self.screen.say(f"{error}: {self._help(about)} · {COMMANDS}")

    def _help(self, about: Item) -> str:
        if about.kind is Kind.pairs:
            return "1 or 2 is better · t tie"
        if about.kind is Kind.ratings:
            return (
                f"{self.scale.keys[0]} worst to {self.scale.keys[-1]} best"
                if self.scale.keys
                else f"a number {self.scale}, Enter"
            )
        return "the numbers from best to worst, = between those that tie, such as 2 1=3, Enter"

    def _read(self, about: Item, places: list[int]) -> Answer:
        """An answer in the order of the item. Raises ValueError for one that is none."""
        key = self._key()
        if key == "s":
            return None
        if about.kind is Kind.pairs:
            if key not in PREFER:
                raise ValueError(f"{key!r} is no answer")
            return _back(PREFER[key], places)
        if about.kind is Kind.ratings and self.scale.keys:
            if key not in self.scale.keys:
                raise ValueError(f"{key!r} is no answer")
            return float(key)
        said = self._line(key)
        if about.kind is Kind.ratings:
            return parsed(said, about.kind, self.scale, 1)
        return _back(ordered(said, len(places)), places)

    def _key(self) -> str:
        key = self.keys.read().lower()
        while key.isspace():
            key = self.keys.read().lower()
        if key in (END, "q"):
            raise Quit
        if key == "u":
            raise Undo
        return key

    def _line(self, first: str) -> str:
        """What is typed up to Enter, shown as it is typed."""
        typed, key = "", first
        while key not in ENTER:
            if key == END:
                raise Quit
            typed = typed[:-1] if key in BACK else typed + key
            self.screen.typing(typed)
            key = self.keys.read()
        self.screen.say("")
        return typed


def ordered(said: str, size: int) -> list[int]:
    """Ranks of what is numbered 1 to `size`, from an order such as "2 1=3". Raises ValueError where it isn't one."""
    groups: list[list[str]] = []
    tied = False
    for part in said.replace(">", " ").replace(",", " ").replace("=", " = ").split():
        if part == "=":
            tied = True
        elif tied and groups:
            groups[-1].append(part)
            tied = False
        else:
            groups.append([part])
    ranks = {number: rank for rank, group in enumerate(groups, 1) for number in group}
    numbers = [str(number) for number in range(1, size + 1)]
    if sorted(number for group in groups for number in group) != sorted(numbers):
        raise ValueError(f"{said!r:.40} must name each of {', '.join(numbers)} once")
    return [ranks[number] for number in numbers]


def _back(ranks: list[int], places: list[int]) -> list[int]:
    """Ranks in the order shown, to ranks in the order of the item."""
    return [ranks[places.index(place)] for place in range(len(places))]
