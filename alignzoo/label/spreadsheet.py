"""Questions as CSV for spreadsheets and other tools, and the answers in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from alignzoo.common.disk import write_whole
from alignzoo.data.readable import readable
from alignzoo.errors import UserError, nearest
from alignzoo.label.items import Item, QuestionKind, Scale, read_answer
from alignzoo.label.journal import RaterAnswer

ONE = ["completion"]
TEXTS = {QuestionKind.pairs: ["first", "second"], QuestionKind.ratings: ONE, QuestionKind.corrections: ONE}  # columns
ANSWER = {
    QuestionKind.pairs: "preferred", QuestionKind.ratings: "rating", QuestionKind.rankings: "ranks",
    QuestionKind.corrections: "correction",
}  # fmt: skip
BOM = "\ufeff"  # by which spreadsheets know UTF-8
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
Complain = Callable[[str], None]


def write(path: Path, items: Sequence[Item]) -> None:
    """A row for each item, its id first and the answer last, empty."""
    kind, most = items[0].kind, max(len(question.completions) for question in items)
    names = TEXTS.get(kind) or [f"completion_{i}" for i in range(1, most + 1)]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "prompt", *names, ANSWER[kind]], lineterminator="\n")
    writer.writeheader()
    for question in items:
        texts = zip(["prompt", *names], (question.prompt, *question.completions), strict=False)
        writer.writerow({"id": question.id, **{name: _cell(readable(text)) for name, text in texts}})
    write_whole(path, BOM + out.getvalue())


def read(path: Path, items: Sequence[Item], scale: Scale, rater: str, complain: Complain | None = None) -> list[RaterAnswer]:
    """The answers of those rows that have one, by the rater of the column `rater`, where there is one, or else `rater`.

    Raises UserError, naming the row, for an id that was not asked about, an answer that is none, and other columns than
    `write` writes; with `complain`, the row's mistake goes there, and the other rows are read.
    """
    by_id, column = {question.id: question for question in items}, ANSWER[items[0].kind]
    answers: dict[tuple[str, str], RaterAnswer] = {}
    for where, row in _rows(path, ("id", column)):
        cell, name, key = (str(row.get(part) or "").strip() for part in (column, "rater", "id"))
        if not cell:
            continue
        rater_name = name or rater
        try:
            if key not in by_id:
                raise UserError(f"{where}: no item has the id {key!r}.{nearest(key, by_id)} Was it exported from this?")
            if (key, rater_name) in answers:
                raise UserError(f"{where}: {rater_name} has answered {key} in a row above")
            answers[key, rater_name] = RaterAnswer(by_id[key], rater_name, read_answer(cell, by_id[key], scale))
        except (UserError, ValueError) as error:
            message = str(error) if isinstance(error, UserError) else f"{where}: {column}: {error}"
            if complain is None:
                raise UserError(message) from None
            complain(message)
    return list(answers.values())


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(where, row) of a file that has the columns `needed`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            for name in needed:
                if name not in columns:
                    there = ", ".join(columns) or "none"
                    raise UserError(f"{path}: no column {name!r}; it has {there}.{nearest(name, columns)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise UserError(f"{where}: more cells than the {len(columns)} columns")
                yield where, row
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: no CSV ({error})") from None


def _cell(text: str) -> str:
    """With a blank before what a spreadsheet would carry out as a formula."""
    return f" {text}" if text.startswith(FORMULA) else text
