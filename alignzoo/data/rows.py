"""Raw rows of any data set become rows with canonical columns, those of TRL's dataset types.

prompt | prompt, completion | prompt, completion, label | prompt, chosen, rejected (margin) | prompt, completions, ranks |
text | messages

Labels of several people are a row for each `rater`, or the `votes` of `raters`: see `alignzoo.data.raters`.

Each text is a string, or a list of messages {role, content}. `messages` become a prompt (all before the first answer) and a
completion (the rest); `text` has an empty prompt; a pair without a prompt has the beginning that its two sides share. Other
formats come to the same: see `alignzoo.data.formats`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignzoo.data.formats import BESIDE, EQUAL, as_trl
from alignzoo.data.messages import Messages, Text, UnusableRow, rebuilt, whole
from alignzoo.errors import UserError, nearest

__all__ = ["CANONICAL", "COLUMNS", "Messages", "Row", "Text", "UnusableRow", "canonical", "rebuilt", "split", "whole"]

TEXTS = ("prompt", "completion", "chosen", "rejected")
CANONICAL = (*TEXTS, "label", "margin", "completions", "ranks", "text", "messages", "rater", "raters", "votes")
COLUMNS = (*CANONICAL, *BESIDE)  # what data.columns may name
_json = json.JSONEncoder(sort_keys=True, default=str).encode
LARGEST = 3.4e38  # what float32, which labels and margins become, can hold


@dataclass(frozen=True)
class Row:
    """`where` names it in errors; `values` are its canonical columns; `columns` all columns, the data's own names included;
    `remaining` those that no text is made of, such as a reference answer for a reward, or tools."""

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
        return key_of(self.values, self.columns).hex()


def key_of(values: Mapping[str, Any], columns: Mapping[str, Any]) -> bytes:
    """`Row.key` of a row with these, as bytes."""
    prompt = values.get("prompt")
    content = whole(prompt) if prompt else {name: whole(value) for name, value in values.items()} or columns
    return hashlib.sha256(_json(content).encode()).digest()


def canonical(raw: Mapping[str, Any], where: str, mapping: Mapping[str, str]) -> Row:
    """One raw row, its columns renamed by `mapping`. Raises UserError where a value is unusable."""
    picked = {name: _pick(raw, name, mapping.get(name, name), where) for name in COLUMNS if name in mapping or name in raw}
    filled = {name: value for name, value in picked.items() if value is not None}
    values, taken = as_trl(filled, raw, mapping.values(), where)
    _check(values, where)
    consumed = {*CANONICAL, *mapping.values(), *taken}
    remaining = {name: value for name, value in raw.items() if name not in consumed}
    if isinstance(prompt := values.get("prompt"), Messages):
        beside = zip(BESIDE, (prompt.tools, prompt.options), strict=True)
        remaining |= {name: value for name, value in beside if value}
    return Row(where=where, values=values, columns={**raw, **picked}, remaining=remaining)


def split(rows: Iterable[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows: a row is held out if the hash of its prompt falls below `share`, so that all rows of a
    prompt, duplicates among them, fall on the same side, whatever other rows there are. At least one prompt is held out if
    `share` > 0."""
    rows = list(rows)
    keys = {row.key for row in rows}
    heldout = {key for key in keys if is_heldout(bytes.fromhex(key), share)}
    if share > 0 and not heldout and len(keys) > 1:
        heldout = {min(keys)}
    return [row for row in rows if row.key not in heldout], [row for row in rows if row.key in heldout]


def is_heldout(key: bytes, share: float) -> bool:
    return int.from_bytes(key) < share * 16**64


def _pick(raw: Mapping[str, Any], name: str, column: str, where: str) -> Any:
    """The value of `column`, which is a name, or a template over columns such as '{question}\\nAnswer:'."""
    try:
        return raw[column] if column in raw or "{" not in column else column.format_map(raw)
    except (KeyError, ValueError, IndexError):
        known = ", ".join(raw)
        raise UserError(
            f"{where}: data.columns.{name}={column!r} fits none of the columns {known}.{nearest(column, raw)}"
        ) from None


def _check(values: dict[str, Any], where: str) -> None:
    texts = [(name, values[name]) for name in TEXTS if name in values]
    texts += [("completions", text) for text in _list(values, "completions", where)]
    for name, text in texts:
        if name != "prompt" and _is_empty(text):
            raise UnusableRow(
                f"{where}: an empty {name!r} teaches nothing; fill it in, or drop such rows with data.unusable=drop",
                "empty_text",
            )
    if "chosen" in values and values["chosen"] == values.get("rejected"):
        raise UnusableRow(f"{where}: {EQUAL}", "equal_pair")
    for name in ("label", "margin"):
        if name in values and not _is_number(values[name]):
            raise UnusableRow(
                f"{where}: {name!r} is {values[name]!r:.40}: must be true, false or a number up to {LARGEST}", "label"
            )
    _check_votes(values, where)
    ranks, completions = _list(values, "ranks", where), values.get("completions", [])
    if "ranks" not in values:
        return
    if len(ranks) != len(completions) or not all(map(_is_number, ranks)):
        raise UnusableRow(
            f"{where}: 'ranks' must hold one number for each of the {len(completions)} 'completions' (the lowest is best)",
            "ranking",
        )
    if len(set(ranks)) < 2 and not {"rater", "votes"} & set(values):  # one rater's tie is a vote like another
        what = "of one completion" if len(ranks) == 1 else f"of {len(ranks)} completions that are all equal"
        raise UnusableRow(f"{where}: a ranking {what} prefers nothing; drop such rows with data.unusable=drop", "ranking")


def _check_votes(values: dict[str, Any], where: str) -> None:
    votes, raters = _list(values, "votes", where), _list(values, "raters", where)
    if raters and len(raters) != len(votes):
        raise UnusableRow(f"{where}: 'raters' has {len(raters)} names for {len(votes)} 'votes': must be as many", "votes")
    if "votes" in values and all(vote is None for vote in votes):
        raise UnusableRow(f"{where}: 'votes' has none; drop such rows with data.unusable=drop", "votes")
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
            raise UnusableRow(f"{where}: the vote {vote!r:.40} must be {wanted}", "votes")


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and -LARGEST <= value <= LARGEST


def _is_empty(text: Text) -> bool:
    """Whether there is nothing in it to learn: no word, no tool call of an assistant whose `weight` isn't 0."""
    if isinstance(text, str):
        return not text.strip()
    answers = [message for message in text if message["role"] == "assistant" and message.get("weight", 1)]
    return not any(message["content"].strip() or message.get("tool_calls") for message in answers)


def _list(values: dict[str, Any], name: str, where: str) -> list[Any]:
    value = values.get(name, [])
    if not isinstance(value, list):
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be a list", name)
    return value
