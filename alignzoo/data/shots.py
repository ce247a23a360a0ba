"""Prompts with a format around them, and with solved examples before them: in-context learning and chains of thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import Formatter
from typing import Any

from alignzoo.common.noise import generator
from alignzoo.data.rows import Row, Text, rebuilt
from alignzoo.errors import UserError, nearest

FORMATS = {
    "question": "Question: {prompt}\nAnswer:",
    "reasoning": "{prompt}\nLet's think step by step, and write the answer after ####.\n",  # Kojima et al. 2022; GSM8K's mark
}


def check_format(key: str, text: str, parts: Sequence[str]) -> None:
    """Raises UserError unless `text` has exactly these parts in braces."""
    try:
        found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise UserError(f"{key}={text!r}: {error}; write {{{{ and }}}} for braces") from None
    if found != set(parts):
        wanted = " and ".join(f"{{{part}}}" for part in parts)
        names = f", or a name: {', '.join(FORMATS)}.{nearest(text, FORMATS)}" if parts == ("prompt",) else ""
        raise UserError(f"{key}={text!r} must hold {wanted} and nothing else in braces{names}")


def formatted(rows: Sequence[Row], form: str) -> list[Row]:
    """The rows with `form`, or the one of that name, around their prompts; of messages, around the last one of the user."""
    pattern = FORMATS.get(form, form)
    return [_with_prompt(row, _around(row["prompt"], pattern)) for row in rows]


def with_shots(rows: Sequence[Row], examples: Sequence[Row], shots: int, form: str, seed: int, chat: bool) -> list[Row]:
    """The rows with `shots` of the examples before each prompt, in `form`, or, of messages, as turns.

    Which ones is a function of the seed and the row's prompt; none has that prompt. Raises UserError where there are too few.
    """
    solved = {row.key: (row, found) for row in examples if (found := answer(row)) is not None}
    keys = sorted(solved)
    made = []
    for row in rows:
        if len(keys) - (row.key in solved) < shots:
            raise UserError(
                f"data.shots={shots}: there are {len(keys)} other prompts with an answer among the training rows\n"
                "examples are rows with a completion, a chosen one, or ranked ones: choose fewer, or other data"
            )
        order = generator(seed, "shots", row.key).permutation(len(keys))
        others = [keys[place] for place in order[: shots + 1] if keys[place] != row.key][:shots]
        made.append(_with_prompt(row, _after([solved[key] for key in others], row["prompt"], form, chat)))
    return made


def answer(row: Row) -> Text | None:
    """What a row shows as a good completion, or None."""
    values = row.values
    if "ranks" in values and "completions" in values:
        found = values["completions"][min(range(len(values["ranks"])), key=lambda i: values["ranks"][i])]
    else:
        found = values.get("completion") if values.get("label", 1) > 0 else None
    text: Text | None = values.get("chosen") if found is None else found
    return text


def _after(examples: Sequence[tuple[Row, Text]], prompt: Any, form: str, chat: bool) -> Any:
    if isinstance(prompt, str) and not chat:
        return "".join(form.format(prompt=row["prompt"], completion=text) for row, text in examples) + prompt
    turns = _messages(prompt, "user")
    system = [message for message in turns if message["role"] == "system"]
    shown = [message for row, text in examples for message in (*_asked(row["prompt"]), *_messages(text, "assistant"))]
    return rebuilt(prompt, [*system, *shown, *[message for message in turns if message["role"] != "system"]])


def _asked(prompt: Any) -> list[dict[str, Any]]:
    return [message for message in _messages(prompt, "user") if message["role"] != "system"]


def _messages(text: Any, role: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": text}] if isinstance(text, str) else list(text)


def _around(prompt: Any, pattern: str) -> Any:
    if isinstance(prompt, str):
        return pattern.format(prompt=prompt)
    last = max((i for i, message in enumerate(prompt) if message["role"] == "user"), default=None)
    if last is None:
        return prompt
    asked = {**prompt[last], "content": pattern.format(prompt=prompt[last]["content"])}
    return rebuilt(prompt, [*prompt[:last], asked, *prompt[last + 1 :]])


def _with_prompt(row: Row, prompt: Any) -> Row:
    return replace(row, values=row.values | {"prompt": prompt})
