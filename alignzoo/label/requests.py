"""Request files: what a waiting program asks, and where it looks for answers.

request-0001-1a2b3c4d.jsonl           the questions, a line each
request-0001-1a2b3c4d.csv             the same for a spreadsheet: answers may be filled in there
request-0001-1a2b3c4d.answers.jsonl   answers, {"id", "answer"} a line; `alignzoo label` writes them here
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.common import folder as folders
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import objects
from alignzoo.errors import UserError, nearest
from alignzoo.label import tables
from alignzoo.label.items import Item, Kind, Scale, item, parsed
from alignzoo.label.journal import Given

PREFIX = "request-"
SOMEONE = "someone"  # who answers without giving a name
Complain = Callable[[str], None]


def found(folder: Path) -> list[Path]:
    """The requests of a folder, the oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*.jsonl") if not path.name.endswith(".answers.jsonl"))


def table_of(request: Path) -> Path:
    return request.with_suffix(".csv")


def answers_of(request: Path) -> Path:
    return request.with_suffix(".answers.jsonl")


def of(answers: Path) -> Path:
    """The request that these are the answers to."""
    return answers.with_name(answers.name.removesuffix(".answers.jsonl") + ".jsonl")


def is_request(path: Path) -> bool:
    """Whether this file is a request."""
    return path.name.startswith(PREFIX) and path.suffix == ".jsonl" and path.is_file()


@dataclass(frozen=True)
class Request:
    """What is asked, on which scale, and of how many people."""

    items: list[Item]
    scale: Scale = field(default_factory=Scale)
    raters: int = 1


def write(path: Path, request: Request) -> None:
    tables.write(table_of(path), request.items)
    scale = {"scale": [request.scale.low, request.scale.high]} if request.items[0].kind is Kind.ratings else {}
    asked = [{**one.described(), **scale, "raters": request.raters} for one in request.items]
    write_whole(path, b"".join(map(folders.line, asked)))


def read(path: Path) -> Request:
    """What it asks. Raises UserError for a file that is no request."""
    items, line = [], dict[str, Any]()
    for number, found in objects(path):
        try:
            if found is None:
                raise ValueError("it isn't JSON")
            line = found
            items.append(item(Kind(line["as"]), line["prompt"], line["completions"]))
            if items[-1].id != line["id"]:
                raise ValueError("its id is not that of its texts")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number}: not of a request that alignzoo wrote ({error})") from None
    if not items:
        raise UserError(f"{path}: an empty request")
    return Request(items, Scale(*line["scale"]) if "scale" in line else Scale(), int(line.get("raters", 1)))


def stamp(request: Path) -> list[tuple[int, int] | None]:
    """Changes when an answer may have come in."""
    return [(s.st_mtime_ns, s.st_size) if (s := _stat(path)) else None for path in (table_of(request), answers_of(request))]


def answers(request: Path, complain: Complain) -> list[Given]:
    """What was answered so far, in either file; mistakes in them go to `complain`, and count as no answer."""
    asked = read(request)
    items, scale = asked.items, asked.scale
    given: dict[tuple[str, str], Given] = {}
    try:
        for one in tables.read(table_of(request), items, scale, SOMEONE, complain) if table_of(request).exists() else []:
            given[one.item.id, one.rater] = one
    except UserError as error:
        complain(str(error))
    by_id = {one.id: one for one in items}
    for number, line in objects(answers_of(request)):
        where = f"{answers_of(request)}, line {number}"
        try:
            place = _place(line, by_id, where)
            given.pop(place, None)
            if line and not line.get("withdrawn"):
                given[place] = Given(by_id[place[0]], place[1], _answer(line, by_id[place[0]], scale, where))
        except UserError as error:
            complain(str(error))
    return list(given.values())


def _place(line: dict[str, Any] | None, by_id: dict[str, Item], where: str) -> tuple[str, str]:
    if line is None:
        raise UserError(f'{where}: not JSON; it must be {{"id": ..., "answer": ...}}')
    if line.get("id") not in by_id:
        raise UserError(f"{where}: no item has the id {line.get('id')!r}.{nearest(str(line.get('id')), by_id)}")
    return str(line["id"]), str(line.get("rater") or SOMEONE)


def _answer(line: dict[str, Any], about: Item, scale: Scale, where: str) -> Any:
    if "answer" not in line:
        raise UserError(f"{where}: no 'answer'; null is one that is skipped")
    try:
        return parsed(line["answer"], about.kind, scale, len(about.completions))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
