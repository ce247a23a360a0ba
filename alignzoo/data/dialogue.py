"""Dialogues of Human: and Assistant: in one text, as HH has them (Bai et al. 2022), as messages; which turns are trained."""

from __future__ import annotations

import re
from enum import Enum
from itertools import takewhile

from alignzoo.data.messages import Message, UnusableRow, rebuilt, turns_of
from alignzoo.data.rows import Row

TURN = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")
MARK = re.compile(r"^\s*(Human|Assistant):", re.MULTILINE)
ROLES = {"Human": "user", "Assistant": "assistant"}


class Turns(Enum):
    all = "all"  # every answer of the completion
    last = "last"  # the last one; what is before it is the prompt's


def as_messages(row: Row) -> Row:
    """The row, a dialogue's text as messages. Raises UnusableRow where it can't be told who says what."""
    prompt, sides = row.values.get("prompt"), [text for _, text in row.answers()]
    if isinstance(prompt, list) and any(MARK.match(message["content"]) for message in prompt if message["role"] == "user"):
        raise _unclear(row)
    if not isinstance(prompt, str) or not MARK.search(prompt if prompt.strip() else f"{prompt}{sides[0] if sides else ''}"):
        return row
    dialogues = [_turns(f"{prompt}{side}", row) for side in sides]
    opening = _turns(prompt, row) if prompt.strip() else list(takewhile(lambda turn: turn["role"] == "user", dialogues[0]))
    if opening and opening[-1]["role"] == "assistant" and (dialogues or not opening[-1]["content"]):
        opening = opening[:-1]  # which the sides go on with
    if any(turns[: len(opening)] != opening for turns in dialogues):
        raise _unclear(row)
    answers = [turns[len(opening) :] for turns in dialogues]
    if not all(any(turn["content"] for turn in turns if turn["role"] == "assistant") for turns in answers):
        raise UnusableRow(f"{row.where}: no answer after 'Assistant:'", "empty_text")
    return row.rewritten(opening, answers)


def _turns(text: str, row: Row) -> list[Message]:
    before, *parts = TURN.split(text)
    turns = [{"role": ROLES[name], "content": words.strip()} for name, words in zip(parts[::2], parts[1::2], strict=True)]
    if before.strip() or any(MARK.search(turn["content"]) for turn in turns):
        raise _unclear(row)
    return turns


def _unclear(row: Row) -> UnusableRow:
    return UnusableRow(
        f"{row.where}: data.chat=true, and the text has turns of 'Human:' and 'Assistant:' that are not apart: begin it with "
        "'Human:', and put a blank line before each turn, or make it messages",
        "dialogue",
    )


def last_turn(row: Row) -> Row:
    """The row, its prompt longer by all turns before the last answer. Raises UnusableRow where these are not the same on all
    sides of it."""
    conversations = [text for _, text in row.answers() if isinstance(text, list)]
    before = [_before_last_answer(turns) for turns in conversations]
    if not any(before):
        return row
    if any(turns != before[0] for turns in before):
        raise UnusableRow(f"{row.where}: data.turns=last, and its sides differ before their last answers already", "turns")
    prompt, start = row.values["prompt"], len(before[0])
    return row.rewritten(
        rebuilt(prompt, [*turns_of(prompt), *before[0]]), [turns[start : start + 1] for turns in conversations]
    )


def _before_last_answer(turns: list[Message]) -> list[Message]:
    answers = [place for place, message in enumerate(turns) if message["role"] == "assistant"]
    return turns[: answers[-1]] if answers else []
