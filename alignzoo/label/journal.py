"""Answers on disk: a line each, appended and synced one by one, never changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.common.folder import line, objects
from alignzoo.errors import UserError
from alignzoo.label.items import Answer, Item, Kind, Scale, item, parsed, written


@dataclass(frozen=True)
class Given:
    """What a rater said of an item."""

    item: Item
    rater: str
    answer: Answer


class Journal:
    """The answers of any number of raters. A later line on the same item by the same rater takes the place of an earlier one.

    An answer is on disk when `append` returns. What a crash left of a line is no answer, and stops nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, rater: str, about: Item, answer: Answer, scale: Scale) -> None:
        row = {**about.described(), "rater": rater, "answer": written(answer, about.kind)}
        if about.kind is Kind.ratings:
            row["scale"] = [scale.low, scale.high]
        if about.writers:
            row["written_by"] = list(about.writers)
        self._write(row)

    def withdraw(self, rater: str, about: Item) -> None:
        """As if the rater had not been asked."""
        self._write({"id": about.id, "rater": rater, "withdrawn": True})

    def given(self) -> list[Given]:
        """The answers that stand, in the order in which they were given. Raises UserError for lines of another origin."""
        standing: dict[tuple[str, str], Given] = {}
        for number, row in objects(self.path):
            if row is None:
                continue
            try:
                place = str(row["id"]), str(row["rater"])
                standing.pop(place, None)
                if not row.get("withdrawn"):
                    standing[place] = Given(_item(row), place[1], _answer(row))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{self.path}, line {number}: no answer that alignzoo label wrote ({error})") from None
        return list(standing.values())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process or thread that asks for the same is there."""
        import fcntl

        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def scale(self) -> Scale | None:
        """That of the ratings in it; None where there are none."""
        return next((_scale(row) for _, row in objects(self.path) if row and "scale" in row), None)

    def _write(self, row: dict[str, Any]) -> None:
        with self.path.open("ab+") as file:
            if file.tell() and not _ended(file):
                file.write(b"\n")  # behind what a crash left
            file.write(line(row))
            file.flush()
            os.fsync(file.fileno())


def data_rows(given: Sequence[Given]) -> list[dict[str, Any]]:
    """What a data source reads: a row for each item, with the votes of all who didn't skip it.

    A pair's votes are 1 for the chosen, 0 for the rejected and 0.5 for a tie, where more chose the chosen; those on a rating
    are the ratings; those on a ranking, ranks of its completions.
    """
    by_item: dict[str, list[Given]] = {}
    for one in given:
        if one.answer is not None:
            by_item.setdefault(one.item.id, []).append(one)
    return [_row(said[0].item, said) for said in by_item.values()]


def _row(about: Item, said: list[Given]) -> dict[str, Any]:
    answers: list[Any] = [one.answer for one in said]
    row: dict[str, Any] = {"prompt": about.prompt}
    places = list(range(len(about.completions)))
    if about.kind is Kind.ratings:
        row |= {"completion": about.completions[0], "label": sum(answers) / len(answers), "votes": answers}
    elif about.kind is Kind.rankings:
        mean = [sum(ranks[i] for ranks in answers) / len(answers) for i in places]
        row |= {"completions": list(about.completions), "ranks": mean, "votes": answers}
    else:
        votes = [(1 + second - first) / 2 for first, second in answers]
        if sum(votes) < len(votes) / 2:
            places, votes = [1, 0], [1 - vote for vote in votes]
        row |= {"chosen": about.completions[places[0]], "rejected": about.completions[places[1]], "votes": votes}
    row["raters"] = [one.rater for one in said]
    return row | ({"written_by": [about.writers[i] for i in places]} if about.writers else {})


def _item(line: dict[str, Any]) -> Item:
    made = item(Kind(line["as"]), line["prompt"], line["completions"])
    if made.id != line["id"] or list(made.completions) != line["completions"]:
        raise ValueError("its id is not that of its texts")
    return Item(made.kind, made.prompt, made.completions, tuple(line.get("written_by", ())))


def _answer(line: dict[str, Any]) -> Answer:
    return parsed(line["answer"], Kind(line["as"]), _scale(line), len(line["completions"]))


def _scale(line: dict[str, Any]) -> Scale:
    return Scale(*map(float, line["scale"])) if "scale" in line else Scale()


def _ended(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
