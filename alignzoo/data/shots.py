"""Prompts with a format around them, and with solved examples before them: in-context learning and chains of thought."""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

from alignzoo.common.noise import generator
from alignzoo.data.messages import Message, Text, rebuilt, turns_of
from alignzoo.data.rows import Row
from alignzoo.errors import UserError, nearest

FORMATS = {
    "question": "Question: {prompt}\nAnswer:",
    "reasoning": "{prompt}\nLet's think step by step, and write the answer after ####.\n",  # Kojima et al. 2022; GSM8K's mark
}


def check_format(key: str, text: str, parts: Sequence[str]) -> None:
    """Raises UserError unless `text` has exactly these parts in braces."""
    try:
        braced = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise UserError(f"{key}={text!r}: {error}; write {{{{ and }}}} for braces") from None
    if braced != set(parts):
        wanted = " and ".join(f"{{{part}}}" for part in parts)
        names = f", or a name: {', '.join(FORMATS)}.{nearest(text, FORMATS)}" if parts == ("prompt",) else ""
        raise UserError(f"{key}={text!r} must hold {wanted} and nothing else in braces{names}")


def formatted(rows: Sequence[Row], form: str) -> list[Row]:
    """The rows with `form`, or the one of that name, around their prompts; of messages, around the last one of the user."""
    pattern = FORMATS.get(form, form)
    return [row.rewritten(_around(row["prompt"], pattern)) for row in rows]


def with_shots(rows: Sequence[Row], examples: Sequence[Row], shots: int, form: str, seed: int, chat: bool) -> list[Row]:
    """The rows with `shots` of the examples before each prompt, in `form`, or, of messages, as turns.

    Which ones is a function of the seed and the row's prompt; none has that prompt. Raises UserError where there are too few.
    """
    solved = {row.key: (row["prompt"], text) for row in examples if (text := answer(row)) is not None}
    keys = sorted(solved)
    shown = []
    for row in rows:
        if len(keys) - (row.key in solved) < shots:
            raise UserError(
                f"data.shots={shots}: there are {len(keys)} other prompts with an answer among the training rows\n"
                "examples are rows with a completion, a chosen one, or ranked ones: choose fewer, or other data"
            )
        order = generator(seed, "shots", row.key).permutation(len(keys))
        chosen = [keys[place] for place in order[: shots + 1] if keys[place] != row.key][:shots]
        shown.append(row.rewritten(_after([solved[key] for key in chosen], row["prompt"], form, chat)))
    return shown


def answer(row: Row) -> Text | None:
    """What a row shows as a good completion, or None."""
    values = row.values
    if "ranks" in values and "completions" in values:
        best: Text = values["completions"][values["ranks"].index(min(values["ranks"]))]
        return best
    text: Text | None = values.get("completion") if values.get("label", 1) > 0 else None
    return values.get("chosen") if text is None else text


def _after(examples: Sequence[tuple[Text, Text]], prompt: Text, form: str, chat: bool) -> Text:
    if isinstance(prompt, str) and not chat:
        return "".join(form.format(prompt=question, completion=text) for question, text in examples) + prompt
    system = [message for message in turns_of(prompt) if message["role"] == "system"]
    shown = [turn for question, text in examples for turn in (*_without_system(question), *turns_of(text, "assistant"))]
    return rebuilt(prompt, [*system, *shown, *_without_system(prompt)])


def _without_system(prompt: Text) -> list[Message]:
    return [message for message in turns_of(prompt) if message["role"] != "system"]


def _around(prompt: Text, pattern: str) -> Text:
    if isinstance(prompt, str):
        return pattern.format(prompt=prompt)
    last = max((place for place, message in enumerate(prompt) if message["role"] == "user"), default=None)
    if last is None:
        return prompt
    question = {**prompt[last], "content": pattern.format(prompt=prompt[last]["content"])}
    return rebuilt(prompt, [*prompt[:last], question, *prompt[last + 1 :]])
