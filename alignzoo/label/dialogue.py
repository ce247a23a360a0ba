"""One rater at a terminal: one item after the other, until all are answered or the rater has had enough."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignzoo.label.items import Answer, Item, QuestionKind, Scale, read_answer
from alignzoo.label.session import Session, Turn
from alignzoo.label.terminal import END, Keys, Screen

COMMANDS = "s skip · u undo · q quit"
ENTER, BACK = ("\n", "\r"), ("\x7f", "\b")
PREFER = {"1": [1, 2], "a": [1, 2], "2": [2, 1], "b": [2, 1], "t": [1, 1], "=": [1, 1], "0": [1, 1]}


class Quit(Exception):
    """The rater has had enough."""


class Undo(Exception):
    """The rater wants the last answer back."""


@dataclass(kw_only=True)
class Dialogue:
    """Asks until all is answered, or the rater has had enough."""

    session: Session
    keys: Keys
    screen: Screen

    def run(self) -> int:
        """How many items are left open when it ends."""
        remark = ""
        while (turn := self.session.turn()).about is not None:
            try:
                answer = self._ask(turn, turn.about, remark)
            except Quit:
                break
            except Undo:
                if turn.last:
                    self.session.undo(turn.last.item.id)
                continue
            remark = "" if self.session.answer(turn.about, answer) else " · the last was answered elsewhere meanwhile"
        return turn.total - turn.done

    def _ask(self, turn: Turn, about: Item, remark: str) -> Answer:
        keys = f"{self._help(about, turn.scale)} · {COMMANDS}"
        head = f"{turn.done + 1} of {turn.total} · {self.session.rater}{remark}"
        self.screen.show(about, self.session.places(about), head, keys)
        while True:
            try:
                return self._read(about, turn.scale)
            except ValueError as error:
                self.screen.say(f"{error}: {keys}")

    def _help(self, about: Item, scale: Scale) -> str:
        if about.kind is QuestionKind.pairs:
            return "1 or 2 is better · t tie"
        if about.kind is QuestionKind.rankings:
            return "the numbers from best to worst, = between those that tie, such as 2 1=3, Enter"
        keys = scale.keys
        return f"{keys[0]} worst to {keys[-1]} best" if keys else f"a number {scale}, Enter"

    def _read(self, about: Item, scale: Scale) -> Answer:
        """An answer in the order shown. Raises ValueError for one that is none."""
        key = self._key()
        if key == "s":
            return None
        if about.kind is QuestionKind.rankings:
            return ordered(self._line(key), len(about.completions))
        if about.kind is QuestionKind.ratings and not scale.keys:
            return read_answer(self._line(key), about, scale)
        answers = PREFER if about.kind is QuestionKind.pairs else {key: float(key) for key in scale.keys}
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
