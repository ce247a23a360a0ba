"""Answers on disk: a line each, appended and synced one by one, never changed."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.common.folder import line, objects, objects_in
from alignzoo.errors import UserError
from alignzoo.label.items import Answer, Item, QuestionKind, Row, Scale, corrected, read_answer, read_item, stored


@dataclass(frozen=True)
class RaterAnswer:
    """What a rater said of an item."""

    item: Item
    rater: str
    answer: Answer
    note: str = ""


@dataclass(frozen=True)
class _Read:
    """Of a file the first `end` bytes, and what stands after those."""

    inode: int
    end: int = 0
    lines: int = 0
    standing: dict[tuple[str, str], RaterAnswer] = field(default_factory=dict)


class Journal:
    """The answers of any number of raters. A later line on the same item by the same rater takes the place of an earlier one.

    An answer is on disk when `append` returns. What a crash left of a line is no answer, and stops nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read, self._reading = _Read(0), threading.Lock()

    def append(self, rater: str, about: Item, answer: Answer, scale: Scale, note: str = "") -> None:
        row: dict[str, object] = {**about.described(), "rater": rater, "answer": stored(answer, about.kind)}
        if about.kind is QuestionKind.ratings:
            row["scale"] = [scale.low, scale.high]
        if about.writers:
            row["written_by"] = list(about.writers)
        if note:
            row["note"] = note
        self._write(row)

    def withdraw(self, rater: str, about: Item) -> None:
        """As if the rater had not been asked."""
        self._write({"id": about.id, "rater": rater, "withdrawn": True})

    def answers(self) -> list[RaterAnswer]:
        """Those that stand, in the order in which they were given; only lines that are new are read. Raises UserError for lines
        of another origin."""
        if not self.path.exists():
            return []
        with self._reading, self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._read.inode or status.st_size < self._read.end:  # another file
                self._read = _Read(status.st_ino)
            file.seek(self._read.end)
            whole, newline, torn = file.read().rpartition(b"\n")
            self._read = self._after(self._read, whole + newline)
            return list(self._after(self._read, torn).standing.values())

    def _after(self, before: _Read, data: bytes) -> _Read:
        """What stands after these lines too."""
        standing = dict(before.standing)
        for number, row in objects_in(data):
            if row is None:
                continue
            try:
                place = str(row["id"]), str(row["rater"])
                standing.pop(place, None)
                if not row.get("withdrawn"):
                    about = read_item(row)
                    answer, note = read_answer(row["answer"], about, Scale.read(row)), str(row.get("note") or "")
                    standing[place] = RaterAnswer(about, place[1], answer, note)
            except (KeyError, TypeError, ValueError) as error:
                where = f"{self.path}, line {before.lines + number}"
                raise UserError(f"{where}: no answer that alignzoo label wrote ({error})") from None
        return _Read(before.inode, before.end + len(data), before.lines + data.count(b"\n"), standing)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process or thread that asks for the same is there."""
        import fcntl

        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def scale(self) -> Scale | None:
        """That of the ratings in it; None where there are none."""
        return next((Scale.read(row) for _, row in objects(self.path) if row and "scale" in row), None)

    def _write(self, row: Row) -> None:
        with self.path.open("ab+") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # behind what a crash left
            file.write(line(dict(row)))
            file.flush()
            os.fsync(file.fileno())


def by_item(answers: Iterable[RaterAnswer]) -> dict[str, list[RaterAnswer]]:
    """By the item's id."""
    groups = defaultdict(list)
    for answer in answers:
        groups[answer.item.id].append(answer)
    return groups


def data_rows(answers: Iterable[RaterAnswer]) -> list[dict[str, Any]]:
    """What a data source reads: a row for each item, with the votes of all who didn't skip it.

    A pair's votes are 1 for the chosen, 0 for the rejected and 0.5 for a tie, where more chose the chosen; those on a rating
    are the ratings; those on a ranking, ranks of its completions. Each correction is a row of its own, a demonstration.
    """
    groups = by_item(answer for answer in answers if answer.answer is not None)
    return [
        row
        for group in groups.values()
        for row in (
            map(_demonstration, group)
            if group[0].item.kind is QuestionKind.corrections
            else [_row(group[0].item, [answer.answer for answer in group], [answer.rater for answer in group])]
        )
    ]


def _demonstration(answer: RaterAnswer) -> dict[str, Any]:
    about = answer.item
    return {
        "prompt": about.prompt,
        "completion": corrected(about.completions[0], str(answer.answer)),
        "written_by": [answer.rater],
    }


def _row(about: Item, answers: list[Any], raters: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": about.prompt}
    places = list(range(len(about.completions)))
    if about.kind is QuestionKind.ratings:
        row |= {"completion": about.completions[0], "label": sum(answers) / len(answers), "votes": answers}
    elif about.kind is QuestionKind.rankings:
        mean = [sum(ranks[i] for ranks in answers) / len(answers) for i in places]
        row |= {"completions": list(about.completions), "ranks": mean, "votes": answers}
    else:
        votes = [(1 + second - first) / 2 for first, second in answers]
        if sum(votes) < len(votes) / 2:
            places, votes = [1, 0], [1 - vote for vote in votes]
        row |= {"chosen": about.completions[places[0]], "rejected": about.completions[places[1]], "votes": votes}
    row["raters"] = raters
    return row | ({"written_by": [about.writers[i] for i in places]} if about.writers else {})
