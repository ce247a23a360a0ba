"""Which turns of a conversation are trained."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Any

from alignzoo.data.messages import UnusableRow, rebuilt
from alignzoo.data.rows import Row

SIDES = ("completion", "chosen", "rejected")


class Turns(Enum):
    all = "all"  # every answer of the completion
    last = "last"  # the last one; what is before it is the prompt's


def last_turn(row: Row) -> Row:
    """The row, its prompt longer by all turns before the last answer. Raises UnusableRow where these are not the same on all
    sides of it."""
    sides = {name: row.values[name] for name in SIDES if isinstance(row.values.get(name), list)}
    listed = [text for text in row.values.get("completions", []) if isinstance(text, list)]
    before = [_before(text) for text in (*sides.values(), *listed)]
    if not any(before):
        return row
    if any(turns != before[0] for turns in before):
        raise UnusableRow(f"{row.where}: data.turns=last, and its sides differ before their last answers already", "turns")
    prompt = row.values["prompt"]
    history = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    values: dict[str, Any] = {name: text[len(before[0]) :][:1] for name, text in sides.items()}
    if listed:
        values["completions"] = [text[len(before[0]) :][:1] for text in listed]
    return replace(row, values=row.values | values | {"prompt": rebuilt(prompt, [*history, *before[0]])})


def _before(text: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = [i for i, message in enumerate(text) if message["role"] == "assistant"]
    return text[: answers[-1]] if answers else []
