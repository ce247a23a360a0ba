"""Where questions come from: runs, and files of completions."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from alignzoo.common.folder import COMPLETIONS, SUMMARY, objects, read, result_step, rows
from alignzoo.errors import UserError, nearest
from alignzoo.label.items import Item, QuestionKind, Row, Text, item

COLUMNS = ("completion", "completions", "chosen", "rejected")
Written = tuple[Text, str]  # a completion, and who wrote it, or ""


def items(paths: Sequence[Path], kind: QuestionKind, seed: int, limit: int = 0) -> list[Item]:
    """Questions of this kind about the completions of these runs or files, in an order of their own; at most `limit`, 0: all.

    Pairs are each two completions of a prompt, rankings all of them; equal ones count once. Raises UserError where there is
    nothing to ask.
    """
    compared = not kind.of_one and sum(path.is_dir() for path in paths) == 1
    prompts: dict[str, tuple[Text, dict[str, Written]]] = {}
    for path in paths:
        for prompt, completion, writer in _of_run(path, compared) if path.is_dir() else _of_file(path):
            _, completions = prompts.setdefault(json.dumps(prompt, sort_keys=True), (prompt, {}))
            completions.setdefault(json.dumps(completion, sort_keys=True), (completion, writer))
    questions = [question for prompt, texts in prompts.values() for question in _about(prompt, list(texts.values()), kind)]
    unique = sorted({question.id: question for question in questions}.values(), key=lambda question: question.id)
    if not unique:
        few = "completions" if kind.of_one else "two different completions of any prompt"
        remedy = "give another run beside" if all(path.is_dir() for path in paths) else "list several in 'completions'"
        remedy = "" if kind.of_one else f"\n{remedy}, or ask for ratings: --as ratings"
        raise UserError(f"{', '.join(map(str, paths))}: there are no {few}: nothing to ask{remedy}")
    random.Random(seed).shuffle(unique)
    return unique[: limit or None]


def _about(prompt: Text, completions: list[Written], kind: QuestionKind) -> list[Item]:
    """What to ask about the completions of a prompt."""
    size = 1 if kind.of_one else 2 if kind is QuestionKind.pairs else max(2, len(completions))
    named = any(writer for _, writer in completions)
    return [
        item(kind, prompt, [text for text, _ in group], [writer for _, writer in group] if named else ())
        for group in combinations(completions, size)
    ]


def _of_run(folder: Path, beside_start: bool) -> Iterator[tuple[Text, Text, str]]:
    """What the policy that is the run's result wrote, and, with `beside_start`, at the first, before it was trained."""
    path, summary = folder / COMPLETIONS, folder / SUMMARY
    if not path.is_file():
        raise UserError(f"{folder} is no run with completions: it has no completions.jsonl")
    evaluated = rows(path)
    last = result_step(evaluated, read(summary) if summary.is_file() else {})
    for row in evaluated:
        messages = row.get("messages")
        prompt = row["prompt"] if messages is None else messages
        completion = row["completion"] if messages is None else [{"role": "assistant", "content": row["completion"]}]
        if row["step"] == last:
            yield prompt, completion, str(folder.name)
        elif beside_start and row["step"] == 0:
            yield prompt, completion, "start"


def _of_file(path: Path) -> Iterator[tuple[Text, Text, str]]:
    """Rows of a prompt with completion, completions, or chosen and rejected."""
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such run or file.{nearest(path.name, siblings)}")
    for number, row in objects(path):
        where = f"{path}, line {number}"
        if row is None:
            raise UserError(f"{where}: not a JSON object {{prompt, completion or completions}}")
        texts, writers = _texts(row, where), row.get("written_by")
        names = writers if isinstance(writers, list) and len(writers) == len(texts) else [""] * len(texts)
        for text, name in zip(texts, names, strict=True):
            yield row["prompt"], text, str(name)


def _texts(row: Row, where: str) -> list[Text]:
    columns = [name for name in COLUMNS if row.get(name) is not None]
    if "prompt" not in row or not columns:
        wanted = "'prompt'" if "prompt" not in row else " or ".join(map(repr, COLUMNS))
        raise UserError(f"{where}: no {wanted}; it has {', '.join(row) or 'no columns'}")
    texts = [text for name in columns for text in (row[name] if name == "completions" else [row[name]])]
    for text in (row["prompt"], *texts):
        messages = isinstance(text, list) and all(isinstance(part, dict) and "role" in part for part in text)
        if not (isinstance(text, str) or messages):
            raise UserError(f"{where}: {text!r:.40} must be a string, or a list of messages {{role, content}}")
    return texts
