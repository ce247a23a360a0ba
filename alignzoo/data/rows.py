"""Raw rows of any data set become rows with canonical columns, those of TRL's dataset types.

prompt | prompt, completion | prompt, completion, label | prompt, chosen, rejected (margin) | prompt, completions, ranks |
text | messages

Labels of several people are a row for each `rater`, or the `votes` of `raters`: see `alignzoo.data.raters`.

Each text is a string, or a list of messages {role, content}. `messages` become a prompt (all before the first answer) and a
completion (the rest); `text` has an empty prompt; a pair without a prompt has the beginning that its two sides share.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from alignzoo.errors import UserError, nearest

Text = str | list[dict[str, Any]]
TEXTS = ("prompt", "completion", "chosen", "rejected")
CANONICAL = (*TEXTS, "label", "margin", "completions", "ranks", "text", "messages", "rater", "raters", "votes")


class Messages(list[dict[str, Any]]):
    """A conversation with what its chat template is handed besides: `tools` that may be called, None where there are none, and
    `options` of the template (a row's `chat_template_kwargs`). Slices and sums of it are plain lists: see `rebuilt`."""

    def __init__(
        self,
        messages: Iterable[dict[str, Any]] = (),
        tools: list[dict[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(messages)
        self.tools = tools or None  # a template handed [] may write that there are tools (Llama 3.1)
        self.options: dict[str, Any] = dict(options or {})

    def __eq__(self, other: object) -> bool:
        beside = (getattr(other, "tools", None), getattr(other, "options", {}))
        return list.__eq__(self, other) is True and (self.tools, self.options) == beside

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return f"Messages({list.__repr__(self)}, tools={self.tools}, options={self.options})"


def rebuilt(prompt: Text, messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """These messages in place of those of `prompt`, with the tools and options that travel with it."""
    return Messages(messages, prompt.tools, prompt.options) if isinstance(prompt, Messages) else list(messages)


def whole(prompt: Text) -> Any:
    """All that a prompt says, as JSON has it: equal for equal prompts only, tools and options included."""
    if isinstance(prompt, Messages) and (prompt.tools or prompt.options):
        return [list(prompt), prompt.tools, prompt.options]
    return prompt


class UnusableRow(UserError):
    """A row that teaches nothing."""


@dataclass(frozen=True)
class Row:
    """`where` names it in errors; `values` are its canonical columns; `columns` all columns, the data's own names included;
    `remaining` those of no meaning here, such as a reference answer for a reward."""

    where: str
    values: dict[str, Any]
    columns: dict[str, Any]
    remaining: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        if self.values.get(name) is None:
            raise UserError(f"{self.where}: no {name!r}, which other rows have\nfill it in, or drop the row")
        return self.values[name]

    def texts(self) -> list[str]:
        """Every text of the row, those of messages included."""
        listed = [self.values[name] for name in TEXTS if name in self.values] + self.values.get("completions", [])
        parts = [
            [part] if isinstance(part, str) else [str(message.get("content") or "") for message in part] for part in listed
        ]
        return [text for part in parts for text in part]

    @cached_property
    def key(self) -> str:
        """A hash of the prompt, or of the whole row where there is none: rows of one key are never parted."""
        prompt = self.values.get("prompt")
        content = whole(prompt) if prompt else {name: whole(value) for name, value in self.values.items()} or self.columns
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def canonical(raw: Mapping[str, Any], where: str, mapping: Mapping[str, str]) -> Row:
    """One raw row, its columns renamed by `mapping`. Raises UserError where a value is unusable."""
    picked = {name: _pick(raw, name, mapping.get(name, name), where) for name in CANONICAL if name in mapping or name in raw}
    values = {name: value for name, value in picked.items() if value is not None}
    if "messages" in values:
        values |= _parts_of_conversation(values.pop("messages"), where)
    elif "text" in values and "prompt" not in values:
        values |= {"prompt": "", "completion": values["text"]}
    values.pop("text", None)
    if "chosen" in values and "rejected" in values and "prompt" not in values:
        values |= _shared_beginning(values["chosen"], values["rejected"], where)
    _check(values, where)
    consumed = {*CANONICAL, *mapping.values()}
    remaining = {name: value for name, value in raw.items() if name not in consumed}
    return Row(where=where, values=values, columns={**raw, **picked}, remaining=remaining)


def split(rows: Iterable[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows: a row is held out if the hash of its prompt falls below `share`, so that all rows of a
    prompt, duplicates among them, fall on the same side, whatever other rows there are. At least one prompt is held out if
    `share` > 0."""
    rows = list(rows)
    keys = {row.key for row in rows}
    heldout = {key for key in keys if int(key, 16) < share * 16**64}
    if share > 0 and not heldout and len(keys) > 1:
        heldout = {min(keys)}
    return [row for row in rows if row.key not in heldout], [row for row in rows if row.key in heldout]


def _pick(raw: Mapping[str, Any], name: str, column: str, where: str) -> Any:
    """The value of `column`, which is a name, or a template over columns such as '{question}\\nAnswer:'."""
    try:
        return raw[column] if column in raw or "{" not in column else column.format_map(raw)
    except (KeyError, ValueError, IndexError):
        known = ", ".join(raw)
        raise UserError(
            f"{where}: data.columns.{name}={column!r} fits none of the columns {known}.{nearest(column, raw)}"
        ) from None


def _parts_of_conversation(messages: Any, where: str) -> dict[str, Text]:
    _check_messages(messages, "messages", where)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        return {"prompt": messages}
    return {"prompt": messages[: answers[0]], "completion": messages[answers[0] :]}


def _shared_beginning(chosen: Any, rejected: Any, where: str) -> dict[str, Any]:
    """The prompt of a pair that has none: the shared messages, or the shared text up to its last space or line end."""
    if not isinstance(chosen, str | list) or type(chosen) is not type(rejected):
        raise UnusableRow(f"{where}: 'chosen' and 'rejected' must both be strings, or both be lists of messages")
    if chosen == rejected:
        raise UnusableRow(
            f"{where}: 'chosen' equals 'rejected', so there is nothing to prefer; drop it with data.unusable=drop"
        )
    size = sum(takewhile(bool, (one == other for one, other in zip(chosen, rejected, strict=False))))
    if isinstance(chosen, str):
        size = max(chosen.rfind(" ", 0, size), chosen.rfind("\n", 0, size), 0)
    return {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]}


def _check(values: dict[str, Any], where: str) -> None:
    texts = [(name, values[name]) for name in TEXTS if name in values]
    texts += [("completions", text) for text in _list(values, "completions", where)]
    for name, text in texts:
        _check_text(text, name, where)
        if isinstance(text, str) != isinstance(texts[0][1], str):
            raise UnusableRow(f"{where}: {texts[0][0]!r} and {name!r} must both be strings, or both be lists of messages")
    if "chosen" in values and values["chosen"] == values.get("rejected"):
        raise UnusableRow(
            f"{where}: 'chosen' equals 'rejected', so there is nothing to prefer; drop it with data.unusable=drop"
        )
    for name in ("label", "margin"):
        if name in values and not _is_number(values[name]):
            raise UnusableRow(f"{where}: {name!r} is {values[name]!r}: must be true, false or a number")
    _check_votes(values, where)
    ranks, completions = _list(values, "ranks", where), values.get("completions", [])
    if "ranks" not in values:
        return
    if len(ranks) != len(completions) or not all(map(_is_number, ranks)):
        raise UnusableRow(
            f"{where}: 'ranks' must hold one number for each of the {len(completions)} 'completions' (the lowest is best)"
        )
    if len(set(ranks)) < 2 and not {"rater", "votes"} & set(values):  # one rater's tie is a vote like another
        what = "of one completion" if len(ranks) == 1 else f"of {len(ranks)} completions that are all equal"
        raise UnusableRow(f"{where}: a ranking {what} prefers nothing; drop such rows with data.unusable=drop")


def _check_votes(values: dict[str, Any], where: str) -> None:
    votes, raters = _list(values, "votes", where), _list(values, "raters", where)
    if raters and len(raters) != len(votes):
        raise UnusableRow(f"{where}: 'raters' has {len(raters)} names for {len(votes)} 'votes': must be as many")
    if "votes" in values and all(vote is None for vote in votes):
        raise UnusableRow(f"{where}: 'votes' has none; drop such rows with data.unusable=drop")
    size = len(values.get("completions", []))
    for vote in votes:
        if size:
            good = isinstance(vote, list) and len(vote) == size and all(map(_is_number, vote))
            wanted = f"a list of {size} ranks, the lowest is best"
        elif "chosen" in values:
            good, wanted = _is_number(vote) and 0 <= vote <= 1, "1 for the chosen, 0 for the rejected, or 0.5 for a tie"
        else:
            good, wanted = _is_number(vote), "a number, true or false"
        if vote is not None and not good:
            raise UnusableRow(f"{where}: the vote {vote!r:.40} must be {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _check_text(text: Any, name: str, where: str) -> None:
    if isinstance(text, str):
        empty = not text.strip()
    else:
        _check_messages(text, name, where)
        empty = not any(message.get("content") or message.get("tool_calls") for message in text)
    if empty and name != "prompt":
        raise UnusableRow(f"{where}: an empty {name!r} teaches nothing; fill it in, or drop such rows with data.unusable=drop")


def _check_messages(messages: Any, name: str, where: str) -> None:
    listed = isinstance(messages, list) and all(isinstance(message, Mapping) and "role" in message for message in messages)
    if not listed:
        shown = repr(messages)[:40]
        raise UnusableRow(f"{where}: {name!r} is {shown}: must be a string, or a list of messages {{role, content}}")


def _list(values: dict[str, Any], name: str, where: str) -> list[Any]:
    value = values.get(name, [])
    if not isinstance(value, list):
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be a list")
    return value
