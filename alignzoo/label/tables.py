"""Questions as CSV for spreadsheets and other tools, and the answers in it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.common.disk import write_whole
from alignzoo.data.readable import readable
from alignzoo.errors import UserError, nearest
from alignzoo.label.items import Answer, Item, Kind, Scale, parsed
from alignzoo.label.journal import Given

ANSWER = {Kind.pairs: "preferred", Kind.ratings: "rating", Kind.rankings: "ranks"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
Complain = Callable[[str], None]


def write(path: Path, items: Sequence[Item]) -> None:
    """A row for each item, its id first and the answer last, empty."""
    import io

    columns = _columns(items)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for one in items:
        texts = [_cell(readable(text)) for text in (one.prompt, *one.completions)]
        writer.writerow([one.id, *texts, *[""] * (len(columns) - len(texts) - 1)])
    write_whole(path, out.getvalue())


def read(path: Path, items: Sequence[Item], scale: Scale, rater: str, complain: Complain | None = None) -> list[Given]:
    """The answers of those rows that have one, by the rater of the column `rater`, where there is one, or else `rater`.

    Raises UserError, naming the row, for an id that was not asked about, an answer that is none, and other columns than
    `write` writes; with `complain`, the row's mistake goes there, and the other rows are read.
    """
    by_id = {one.id: one for one in items}
    found: dict[tuple[str, str], Given] = {}
    for where, row, column in _rows(path, items):
        try:
            said = (row[column] or "").strip()
            if not said:
                continue
            about = by_id.get(row["id"] or "")
            if about is None:
                raise UserError(
                    f"{where}: no item has the id {row['id']!r}.{nearest(str(row['id']), by_id)} Was it exported from this?"
                )
            given = Given(about, (row.get("rater") or "").strip() or rater, _answer(said, about, scale, f"{where}: {column}"))
            if (about.id, given.rater) in found:
                raise UserError(f"{where}: {given.rater} has answered {about.id} in a row above")
            found[about.id, given.rater] = given
        except UserError as error:
            if complain is None:
                raise
            complain(str(error))
    return list(found.values())


def _rows(path: Path, items: Sequence[Item]) -> Iterable[tuple[str, Mapping[str, Any], str]]:
    """(where, row, the column of answers)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            answer = ANSWER[items[0].kind]
            for name in ("id", answer):
                if name not in columns:
                    known = ", ".join(columns) or "none"
                    raise UserError(f"{path}: no column {name!r}; it has {known}.{nearest(name, columns)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise UserError(f"{where}: more cells than the {len(columns)} columns")
                yield where, row, answer
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: no CSV ({error})") from None


def _answer(said: Any, about: Item, scale: Scale, where: str) -> Answer:
    try:
        return parsed(said, about.kind, scale, len(about.completions))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _columns(items: Sequence[Item]) -> list[str]:
    kind, most = items[0].kind, max(len(one.completions) for one in items)
    names = {Kind.pairs: ["first", "second"], Kind.ratings: ["completion"]}
    texts = names.get(kind) or [f"completion_{i}" for i in range(1, most + 1)]
    return ["id", "prompt", *texts, ANSWER[kind]]


def _cell(text: str) -> str:
    """With a blank before what a spreadsheet would carry out as a formula."""
    return f" {text}" if text.startswith(FORMULA) else text
