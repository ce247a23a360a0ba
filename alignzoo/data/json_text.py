"""JSON as strangers write it: whatever can't be read or used is one exception with a name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Json = Any  # a value as JSON has it
Report = dict[str, Json]  # counts, notes and settings, as a run's summary has them

DEEPEST = 100  # some hundreds of levels more, and Python can't copy, compare or write what it has read
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class BrokenJson(ValueError):
    """What is wrong; `kind` is what such texts are counted as, `end` where the value ends, None if that can't be said."""

    def __init__(self, message: str, kind: str, end: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.end = kind, end


def parsed(text: str) -> Json:
    """The one value that the text is. Raises BrokenJson."""
    value, end = _value(text, _past_space(text, 0))
    if (place := _past_space(text, end)) < len(text):
        raise BrokenJson(f"not JSON (it ends, and more follows at {_at(text, place)})", "not_json")
    return value


def elements(text: str) -> Iterator[Json]:
    """The elements of the array that the text is, and a BrokenJson in place of one that can't be used; raised where nothing can
    be read beyond."""
    place = _past_space(text, _past_space(text, 0) + 1)
    mark = text[place : place + 1]
    while mark != "]":
        try:
            value, end = _value(text, place)
        except BrokenJson as error:
            if error.end is None:
                raise
            value, end = error, error.end
        yield value
        place = _past_space(text, end)
        mark = text[place : place + 1]
        if mark == ",":
            place = _past_space(text, place + 1)
        elif mark != "]":
            raise BrokenJson(f"not JSON (',' or ']' is missing at {_at(text, place)})", "not_json")
    if (place := _past_space(text, place + 1)) < len(text):
        raise BrokenJson(f"not JSON (the array ends, and more follows at {_at(text, place)})", "not_json")


def _value(text: str, start: int) -> tuple[Json, int]:
    """The value at `start` and its end. Raises BrokenJson."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise BrokenJson(f"not JSON ({error.msg} at {_at(text, error.pos)})", "not_json") from None
    except RecursionError:
        raise _too_deep(_extent(text, start)[0]) from None
    except ValueError as error:  # Python reads no more than some thousand digits
        raise BrokenJson(
            f"a number is too long: {str(error).split(';')[0]}", "number_too_long", _extent(text, start)[0]
        ) from None
    if text.count("[", start, end) + text.count("{", start, end) > DEEPEST < _extent(text, start)[1]:
        raise _too_deep(end)
    if _ESCAPED_HALF.search(text, start, end):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise BrokenJson(
                f"half a character ({half!r}, a surrogate without its other half)", "lone_surrogate", end
            ) from None
    return value, end


def _too_deep(end: int | None) -> BrokenJson:
    return BrokenJson(f"nested deeper than {DEEPEST} levels", "nested_too_deep", end)


def _extent(text: str, start: int) -> tuple[int | None, int]:
    """Where the array or object at `start` ends, None if it doesn't, and how deep it is nested."""
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        deepest = max(deepest, depth)
        if depth <= 0:
            return match.end(), deepest
    return None, deepest


def _at(text: str, place: int) -> str:
    line = text.count("\n", 0, place)
    return f"line {line + 1}, " * (line > 0) + f"character {place - text.rfind(chr(10), 0, place)}"


def _past_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
