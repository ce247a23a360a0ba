"""Request files: what a waiting program asks, and where it looks for answers.

request-0001-1a2b3c4d.jsonl           the questions, a line each
request-0001-1a2b3c4d.csv             the same for a spreadsheet: answers may be filled in there
request-0001-1a2b3c4d.answers.jsonl   answers, {"id", "answer"} a line; `alignzoo label` writes them here
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.common.disk import write_whole
from alignzoo.common.folder import line, objects
from alignzoo.errors import UserError, nearest
from alignzoo.label import spreadsheet
from alignzoo.label.items import Item, QuestionKind, Row, Scale, read_answer, read_item
from alignzoo.label.journal import RaterAnswer
from alignzoo.label.spreadsheet import Complain

PREFIX = "request-"
ANSWERS = ".answers.jsonl"
FOLDER = ".labels"  # after the name of a run whose requests are in it
SOMEONE = "someone"  # who answers without giving a name


def in_folder(folder: Path) -> list[Path]:
    """The requests of a folder, the oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*.jsonl") if not path.name.endswith(ANSWERS))


def among(paths: Sequence[Path], wait: bool = False) -> Path | None:
    """The request, or the folder of requests, among files and folders; None where there is none. With `wait` a folder that a
    run will put its requests into is one already. Raises UserError for one that is not alone."""
    waiting = [path for path in paths if _is_request(path) or in_folder(path) or (wait and path.suffix == FOLDER)]
    if waiting and len(paths) > 1:
        raise UserError(f"{waiting[0]} is a request, which is answered by itself: leave the others out")
    return waiting[0] if waiting else None


def _is_request(path: Path) -> bool:
    return path.name.startswith(PREFIX) and path.suffix == ".jsonl" and path.is_file()


def table_of(request: Path) -> Path:
    return request.with_suffix(".csv")


def answers_of(request: Path) -> Path:
    return request.with_suffix(ANSWERS)


@dataclass(frozen=True)
class Questionnaire:
    """What is asked, on which scale, and of how many people."""

    items: list[Item]
    scale: Scale = field(default_factory=Scale)
    raters: int = 1


def write(path: Path, request: Questionnaire) -> None:
    spreadsheet.write(table_of(path), request.items)
    scale = {"scale": [request.scale.low, request.scale.high]} if request.items[0].kind is QuestionKind.ratings else {}
    rows = [{**question.described(), **scale, "raters": request.raters} for question in request.items]
    write_whole(path, b"".join(map(line, rows)))


def read(path: Path) -> Questionnaire:
    """What it asks. Raises UserError for a file that is no request."""
    rows, items = objects(path), list[Item]()
    for number, row in rows:
        try:
            if row is None:
                raise ValueError("it isn't JSON")
            items.append(read_item(row))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number}: not of a request that alignzoo wrote ({error})") from None
    if not items:
        raise UserError(f"{path}: an empty request")
    last = rows[-1][1] or {}
    return Questionnaire(items, Scale.read(last), int(last.get("raters", 1)))


def answers(request: Path, complain: Complain) -> list[RaterAnswer]:
    """What was answered so far, in either file; mistakes in them go to `complain`, and count as no answer."""
    questionnaire = read(request)
    items, scale, table = questionnaire.items, questionnaire.scale, table_of(request)
    standing: dict[tuple[str, str], RaterAnswer] = {}
    try:
        for answer in spreadsheet.read(table, items, scale, SOMEONE, complain) if table.exists() else []:
            standing[answer.item.id, answer.rater] = answer
    except UserError as error:
        complain(str(error))
    by_id = {question.id: question for question in items}
    for number, row in objects(answers_of(request)):
        try:
            _take(row, by_id, scale, standing)
        except ValueError as error:
            complain(f"{answers_of(request)}, line {number}: {error}")
    return list(standing.values())


def _take(row: Row | None, by_id: dict[str, Item], scale: Scale, standing: dict[tuple[str, str], RaterAnswer]) -> None:
    """Puts the answer of a line in the place of an earlier one. Raises ValueError for a line that is none."""
    if row is None:
        raise ValueError('not JSON; it must be {"id": ..., "answer": ...}')
    key, rater = str(row.get("id")), str(row.get("rater") or SOMEONE)
    if key not in by_id:
        raise ValueError(f"no item has the id {row.get('id')!r}.{nearest(key, by_id)}")
    standing.pop((key, rater), None)
    if row.get("withdrawn"):
        return
    if "answer" not in row:
        raise ValueError("no 'answer'; null is one that is skipped")
    note = str(row.get("note") or "")
    standing[key, rater] = RaterAnswer(by_id[key], rater, read_answer(row["answer"], by_id[key], scale), note)
