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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from alignzoo.data.formats import BESIDE, EQUAL, SIDES, Values, answers_in, as_trl, with_answers
from alignzoo.data.messages import DROP, Columns, Json, Messages, Text, UnusableRow, rebuilt, turns_of, whole
from alignzoo.errors import UserError, nearest

__all__ = ["CANONICAL", "COLUMNS", "Messages", "Row", "Text", "UnusableRow", "canonical", "rebuilt", "split", "whole"]

CANONICAL = ("prompt", *SIDES, "label", "margin", "completions", "ranks", "text", "messages", "rater", "raters", "votes")
COLUMNS = (*CANONICAL, *BESIDE)  # what data.columns may name
_json = json.JSONEncoder(sort_keys=True, default=str).encode
LARGEST = 3.4e38  # what float32, which labels and margins become, can hold


@dataclass(frozen=True)
class Row:
    """`where` names it in errors; `values` are its canonical columns; `columns` all columns, the data's own names included;
    `remaining` those that no text is made of, such as a reference answer for a reward, or tools."""

    where: str
    values: Values
    columns: Values
    remaining: Values

    def __getitem__(self, name: str) -> Json:
        if self.values.get(name) is None:
            raise UserError(f"{self.where}: no {name!r}, which other rows have\nfill it in, or drop the row")
        return self.values[name]

    def answers(self) -> list[tuple[str, Text]]:
        """(column, text) of each of its completions."""
        return answers_in(self.values)

    def rewritten(self, prompt: Text, answers: Sequence[Text] = ()) -> Row:
        """The row with another prompt, and with others in place of its `answers`, where there are some."""
        return replace(self, values=with_answers(self.values, answers) | {"prompt": prompt})

    def texts(self) -> list[str]:
        """Every text of the row, those of messages included."""
        prompt = [self.values["prompt"]] if "prompt" in self.values else []
        listed = [*prompt, *(text for _, text in self.answers())]
        return [str(message.get("content") or "") for text in listed for message in turns_of(text)]

    @cached_property
    def key(self) -> str:
        """A hash of the prompt, or of the whole row where there is none: rows of one key are never parted."""
        return key_of(self.values, self.columns).hex()


def key_of(values: Columns, columns: Columns) -> bytes:
    """`Row.key` of a row with these, as bytes."""
    prompt = values.get("prompt")
    content = whole(prompt) if prompt else {name: whole(value) for name, value in values.items()} or columns
    return hashlib.sha256(_json(content).encode()).digest()


def canonical(raw: Columns, where: str, mapping: Mapping[str, str]) -> Row:
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
    """Training and held-out rows: see `heldout_mask`."""
    rows = list(rows)
    held = heldout_mask(short_keys(rows), share).tolist()
    sides = ([row for row, kept in zip(rows, held, strict=True) if kept is side] for side in (False, True))
    return next(sides), next(sides)


def short_keys(rows: Iterable[Row]) -> np.ndarray:
    """(N,) the first 64 bits of their keys."""
    return np.array([int(row.key[:16], 16) for row in rows], dtype=np.uint64)


def heldout_mask(keys: np.ndarray, share: float) -> np.ndarray:
    """(N,) bool: a row is held out if its key, the hash of its prompt, falls below `share`, so that all rows of a prompt,
    duplicates among them, fall on the same side, whatever other rows there are. At least one prompt is held out if `share` > 0.
    """
    held = keys < np.uint64(ceil(share * 2**64))
    if share > 0 and not held.any() and len(np.unique(keys)) > 1:
        held = keys == keys.min()
    return held


def _pick(raw: Columns, name: str, column: str, where: str) -> Json:
    """The value of `column`, which is a name, or a template over columns such as '{question}\\nAnswer:'."""
    try:
        return raw[column] if column in raw or "{" not in column else column.format_map(raw)
    except (KeyError, ValueError, IndexError):
        fits = f"fits none of the columns {', '.join(raw)}"
        raise UserError(f"{where}: data.columns.{name}={column!r} {fits}.{nearest(column, raw)}") from None


def _check(values: Values, where: str) -> None:
    listed = {name: _list(values, name, where) for name in ("completions", "votes", "raters", "ranks")}
    for name, text in answers_in(values):
        if _is_empty(text):
            raise UnusableRow(
                f"{where}: an empty {name!r} teaches nothing; fill it in, or drop such rows with {DROP}", "empty_text"
            )
    if "chosen" in values and values["chosen"] == values.get("rejected"):
        raise UnusableRow(f"{where}: {EQUAL}", "equal_pair")
    for name in ("label", "margin"):
        if name in values and not _is_number(values[name]):
            wanted = f"true, false or a number up to {LARGEST}"
            raise UnusableRow(f"{where}: {name!r} is {values[name]!r:.40}: must be {wanted}", "label")
    _check_votes(values, listed["votes"], listed["raters"], where)
    ranks, count = listed["ranks"], len(listed["completions"])
    if "ranks" not in values:
        return
    if len(ranks) != count or not all(map(_is_number, ranks)):
        wanted = f"one number for each of the {count} 'completions' (the lowest is best)"
        raise UnusableRow(f"{where}: 'ranks' must hold {wanted}", "ranking")
    if len(set(ranks)) < 2 and not {"rater", "votes"} & set(values):  # one rater's tie is a vote like another
        what = "of one completion" if count == 1 else f"of {count} completions that are all equal"
        raise UnusableRow(f"{where}: a ranking {what} prefers nothing", "ranking")


def _check_votes(values: Values, votes: list[Json], raters: list[Json], where: str) -> None:
    if raters and len(raters) != len(votes):
        raise UnusableRow(f"{where}: 'raters' has {len(raters)} names for {len(votes)} 'votes': must be as many", "votes")
    if "votes" in values and all(vote is None for vote in votes):
        raise UnusableRow(f"{where}: 'votes' has none", "votes")
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


def _is_number(value: Json) -> bool:
    return isinstance(value, bool | int | float) and -LARGEST <= value <= LARGEST


def _is_empty(text: Text) -> bool:
    """Whether there is nothing in it to learn: no word, no tool call of an assistant whose `weight` isn't 0."""
    turns = [turn for turn in turns_of(text, "assistant") if turn["role"] == "assistant" and turn.get("weight", 1)]
    return not any(turn["content"].strip() or turn.get("tool_calls") for turn in turns)


def _list(values: Values, name: str, where: str) -> list[Json]:
    value = values.get(name, [])
    if not isinstance(value, list):
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be a list", name)
    return value
