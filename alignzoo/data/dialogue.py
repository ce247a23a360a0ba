"""Dialogues of Human: and Assistant: in one text, as HH has them (Bai et al. 2022), as messages for a chat template."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import takewhile
from typing import Any

from alignzoo.data.formats import SIDES
from alignzoo.data.messages import UnusableRow
from alignzoo.data.rows import Row

TURN = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")
MARK = re.compile(r"^\s*(Human|Assistant):", re.MULTILINE)
ROLES = {"Human": "user", "Assistant": "assistant"}


def as_messages(row: Row) -> Row:
    """The row, a dialogue's text as messages. Raises UnusableRow where it can't be told who says what."""
    prompt = row.values.get("prompt")
    sides = {name: row.values[name] for name in SIDES if name in row.values}
    listed = row.values.get("completions", [])
    if isinstance(prompt, list) and any(MARK.match(message["content"]) for message in prompt if message["role"] == "user"):
        raise _unclear(row)
    if not isinstance(prompt, str) or not MARK.search(prompt if prompt.strip() else prompt + next(iter(sides.values()), "")):
        return row
    wholes = [_turns(prompt + side, row) for side in (*sides.values(), *listed)]
    opening = _turns(prompt, row) if prompt.strip() else list(takewhile(lambda turn: turn["role"] == "user", wholes[0]))
    if opening and opening[-1]["role"] == "assistant" and (wholes or not opening[-1]["content"]):
        opening = opening[:-1]  # which the sides go on with
    if any(turns[: len(opening)] != opening for turns in wholes):
        raise _unclear(row)
    parts = [turns[len(opening) :] for turns in wholes]
    if not all(any(turn["content"] for turn in turns if turn["role"] == "assistant") for turns in parts):
        raise UnusableRow(f"{row.where}: no answer after 'Assistant:'; drop such rows with data.unusable=drop", "empty_text")
    values: dict[str, Any] = {"prompt": opening, **dict(zip(sides, parts, strict=False))}
    return replace(row, values=row.values | values | ({"completions": parts[len(sides) :]} if listed else {}))


def _turns(text: str, row: Row) -> list[dict[str, Any]]:
    before, *parts = TURN.split(text)
    turns = [{"role": ROLES[name], "content": words.strip()} for name, words in zip(parts[::2], parts[1::2], strict=True)]
    if before.strip() or any(MARK.search(turn["content"]) for turn in turns):
        raise _unclear(row)
    return turns


def _unclear(row: Row) -> UnusableRow:
    return UnusableRow(
        f"{row.where}: data.chat=true, and the text has turns of 'Human:' and 'Assistant:' that are not apart: begin it with "
        "'Human:', and put a blank line before each turn, or make it messages; drop such rows with data.unusable=drop",
        "dialogue",
    )
