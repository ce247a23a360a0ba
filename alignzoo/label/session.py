"""One rater at a terminal: one item after the other, until all are answered or the rater has had enough."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignzoo.label.items import Answer, Item, QuestionKind, Scale, read_answer
from alignzoo.label.journal import Journal
from alignzoo.label.terminal import END, Keys, Screen

COMMANDS = "s skip · u undo · q quit"
ENTER, BACK = ("\n", "\r"), ("\x7f", "\b")
PREFER = {"1": [1, 2], "a": [1, 2], "2": [2, 1], "b": [2, 1], "t": [1, 1], "=": [1, 1], "0": [1, 1]}


class Quit(Exception):
    """The rater has had enough."""


class Undo(Exception):
    """The rater wants the last answer back."""


@dataclass(kw_only=True)
class Session:
    """Asks `rater` about every item but those `answered`, the ids of what they have answered, oldest first; calls `kept` after
    each answer.

    Completions are shown in a random order, another for each rater, and answers kept in that of the item.
    """

    items: Sequence[Item]
    journal: Journal
    rater: str
    keys: Keys
    screen: Screen
    scale: Scale = field(default_factory=Scale)
    answered: Sequence[str] = ()
    kept: Callable[[], None] = lambda: None

    def run(self) -> int:
        """How many items are left open when it ends."""
        by_id = {question.id: question for question in self.items}
        done = [by_id[name] for name in self.answered if name in by_id]
        todo = deque(question for question in self.items if question.id not in set(self.answered))
        while todo:
            try:
                answer = self._ask(todo[0], len(done))
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

    def _ask(self, about: Item, done: int) -> Answer:
        places = list(range(len(about.completions)))
        random.Random(f"{self.rater} {about.id}").shuffle(places)
        keys = f"{self._help(about)} · {COMMANDS}"
        self.screen.show(about, places, f"{done + 1} of {len(self.items)} · {self.rater}", keys)
        while True:
            try:
                answer = self._read(about)
            except ValueError as error:
                self.screen.say(f"{error}: {keys}")
                continue
            # ranks in the order shown, to ranks in the order of the item
            return [answer[places.index(place)] for place in sorted(places)] if isinstance(answer, list) else answer

    def _help(self, about: Item) -> str:
        if about.kind is QuestionKind.pairs:
            return "1 or 2 is better · t tie"
        if about.kind is QuestionKind.rankings:
            return "the numbers from best to worst, = between those that tie, such as 2 1=3, Enter"
        keys = self.scale.keys
        return f"{keys[0]} worst to {keys[-1]} best" if keys else f"a number {self.scale}, Enter"

    def _read(self, about: Item) -> Answer:
        """An answer in the order shown. Raises ValueError for one that is none."""
        key = self._key()
        if key == "s":
            return None
        if about.kind is QuestionKind.rankings:
            return ordered(self._line(key), len(about.completions))
        if about.kind is QuestionKind.ratings and not self.scale.keys:
            return read_answer(self._line(key), about, self.scale)
        answers = PREFER if about.kind is QuestionKind.pairs else {key: float(key) for key in self.scale.keys}
        if key not in answers:
            raise ValueError(f"{key!r} is no answer")
        return answers[key]

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


def ordered(text: str, size: int) -> list[int]:
    """Ranks of what is numbered 1 to `size`, from an order such as "2 1=3". Raises ValueError where it isn't one."""
    text_of_groups = re.sub(r"[\s=]*=[\s=]*", "=", re.sub("[>,]", " ", text)).strip("=")
    groups = [group.split("=") for group in text_of_groups.split()]
    numbers = [str(number) for number in range(1, size + 1)]
    if sorted(number for group in groups for number in group) != sorted(numbers):
        raise ValueError(f"{text!r:.40} must name each of {', '.join(numbers)} once")
    ranks = {number: rank for rank, group in enumerate(groups, 1) for number in group}
    return [ranks[number] for number in numbers]
