"""Where questions come from: runs, files of completions, and requests."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from alignzoo.common.folder import COMPLETIONS, SUMMARY, objects, read, result_step, rows
from alignzoo.errors import UserError, nearest
from alignzoo.label import requests
from alignzoo.label.items import Item, Kind, Text, item

COLUMNS = ("completion", "completions", "chosen", "rejected")


@dataclass
class Prompted:
    """The completions of one prompt, each with who wrote it, or ""."""

    prompt: Text
    completions: list[tuple[Text, str]] = field(default_factory=list)


def items(paths: Sequence[Path], kind: Kind, seed: int, limit: int = 0) -> list[Item]:
    """Questions of this kind about the completions of these runs or files, in an order of their own; at most `limit`, 0: all.

    Pairs are each two completions of a prompt, rankings all of them; equal ones count once. Raises UserError where there is
    nothing to ask.
    """
    found = [one for prompted in _prompted(paths, kind) for one in _asked(prompted, kind)]
    unique = sorted({one.id: one for one in found}.values(), key=lambda one: one.id)
    if not unique:
        few = "two different completions of any prompt" if kind is not Kind.ratings else "completions"
        raise UserError(f"{', '.join(map(str, paths))}: there are no {few}: nothing to ask" + _remedy(paths, kind))
    random.Random(seed).shuffle(unique)
    return unique[: limit or None]


def _asked(prompted: Prompted, kind: Kind) -> list[Item]:
    """What to ask about the completions of a prompt."""
    written: dict[str, tuple[Text, str]] = {}
    for text, writer in prompted.completions:
        written.setdefault(json.dumps(text, sort_keys=True), (text, writer))
    texts = list(written.values())
    if kind is Kind.ratings:
        groups: Iterable[Sequence[tuple[Text, str]]] = [[one] for one in texts]
    else:
        groups = combinations(texts, 2) if kind is Kind.pairs else [texts] if len(texts) > 1 else []
    named = any(writer for _, writer in texts)
    return [
        item(kind, prompted.prompt, [text for text, _ in group], [who for _, who in group] if named else ()) for group in groups
    ]


def _prompted(paths: Sequence[Path], kind: Kind) -> list[Prompted]:
    compared = kind is not Kind.ratings and sum(path.is_dir() for path in paths) == 1
    found: dict[str, Prompted] = {}
    for path in paths:
        read = _of_run(path, compared) if path.is_dir() else _of_file(path)
        for prompt, completion, writer in read:
            key = json.dumps(prompt, sort_keys=True)
            found.setdefault(key, Prompted(prompt)).completions.append((completion, writer))
    return list(found.values())


def _of_run(folder: Path, beside_start: bool) -> Iterator[tuple[Text, Text, str]]:
    """What the policy that is the run's result wrote, and, with `beside_start`, at the first, before it was trained."""
    path = folder / COMPLETIONS
    if not path.is_file():
        raise UserError(f"{folder} is no run with completions: it has no completions.jsonl")
    kept, summary = rows(path), folder / SUMMARY
    last = result_step(kept, read(summary) if summary.is_file() else {})
    for row in kept:
        messages = row.get("messages")
        prompt = row["prompt"] if messages is None else messages
        written = row["completion"] if messages is None else [{"role": "assistant", "content": row["completion"]}]
        if row["step"] == last:
            yield prompt, written, str(folder.name)
        elif beside_start and row["step"] == 0:
            yield prompt, written, "start"


def _of_file(path: Path) -> Iterator[tuple[Text, Text, str]]:
    """Rows of a prompt with completion, completions, or chosen and rejected."""
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such run or file.{nearest(path.name, siblings)}")
    for number, row in objects(path):
        where = f"{path}, line {number}"
        if row is None:
            raise UserError(f"{where}: not a JSON object {{prompt, completion or completions}}")
        texts = _texts(row, where)
        writers = row.get("written_by")
        names = writers if isinstance(writers, list) and len(writers) == len(texts) else [""] * len(texts)
        for text, name in zip(texts, names, strict=True):
            yield row["prompt"], text, str(name)


def _texts(row: dict[str, Any], where: str) -> list[Text]:
    given = [name for name in COLUMNS if row.get(name) is not None]
    if "prompt" not in row or not given:
        wanted = "'prompt'" if "prompt" not in row else " or ".join(map(repr, COLUMNS))
        raise UserError(f"{where}: no {wanted}; it has {', '.join(row) or 'no columns'}")
    texts = [text for name in given for text in (row[name] if name == "completions" else [row[name]])]
    wrong = next((text for text in [row["prompt"], *texts] if not _is_text(text)), None)
    if wrong is not None:
        raise UserError(f"{where}: {wrong!r:.40} must be a string, or a list of messages {{role, content}}")
    return texts


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(part, dict) and "role" in part for part in value)
    )


def _remedy(paths: Sequence[Path], kind: Kind) -> str:
    if kind is Kind.ratings:
        return ""
    if all(path.is_dir() for path in paths):
        return "\ngive another run beside, or ask for ratings: --as ratings"
    return "\nlist several in 'completions', or ask for ratings: --as ratings"


def request(paths: Sequence[Path]) -> Path | None:
    """The request among them; None where there is none. Raises UserError for a request that is not alone."""
    asked = [path for path in paths if requests.is_request(path)]
    if asked and len(paths) > 1:
        raise UserError(f"{asked[0]} is a request, which is answered by itself: leave the others out")
    return asked[0] if asked else None
