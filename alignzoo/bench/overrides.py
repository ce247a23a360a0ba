"""Overrides as text: lists of them, bench.override.LABEL=[key=value,...], which Hydra's grammar has no room for; and values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from alignzoo import config, config_errors
from alignzoo.bench.suite import Options
from alignzoo.settings import UserError

PREFIX = "bench.override."
OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""


def take_overrides(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """{label: overrides} of every bench.override.LABEL=..., and the rest of `argv`. Raises UserError for an unreadable one."""
    found: dict[str, list[str]] = {}
    rest = []
    for text in argv:
        if not text.lstrip("+").startswith(PREFIX):
            _check_key(text.lstrip("+"))
            rest.append(text)
            continue
        label, _, value = text.lstrip("+").removeprefix(PREFIX).partition("=")
        given = split_list(value)
        if not label or not given or any(key.split(".")[0] in ("", "[") for key in given):
            raise UserError(f"can't read {text!r}: write bench.override.LABEL='[key=value,key=value]'")
        config.parse(given)
        found.setdefault(label, []).extend(given)
    return found, rest


def _check_key(text: str) -> None:
    """A misspelt bench.override is told as such: Hydra can't read what follows it."""
    node, _, key = text.partition("=")[0].partition(".")
    if node == "bench" and key and key.split(".")[0] not in {f.name for f in fields(Options)}:
        raise UserError(config_errors.unknown_key(f"bench.{key.split('.')[0]}", Options))


def split_list(text: str) -> list[str]:
    """The elements of [a=1,b=[1,2],"c=x,y"], each without its own quotes; a text without brackets is one element."""
    text = text.strip()
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    parts, depth, quote = [""], 0, ""
    for letter in inner:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        depth += (letter in OPENING) - (letter in CLOSING) if not quote else 0
        if letter == "," and not depth and not quote and inner is not text:
            parts.append("")
        else:
            parts[-1] += letter
    return [_unquoted(part.strip()) for part in parts if part.strip()]


def _unquoted(part: str) -> str:
    whole = len(part) > 1 and part[0] in QUOTES and part[-1] == part[0] and part[0] not in part[1:-1]
    return part[1:-1] if whole else part


def written(value: Any) -> str:
    """A value as Hydra's grammar reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _quoted(str(value)) if isinstance(value, str | Path) else str(value)


def _quoted(text: str) -> str:
    """In quotes a backslash stands for itself, but before a quote."""
    plain = re.fullmatch(r"[A-Za-z_/.-][\w/.-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf", "-inf")
    return text if plain else "'" + re.sub(r"(\\*)('|$)", _escaped, text) + "'"


def _escaped(found: re.Match[str]) -> str:
    return found[1] * 2 + ("\\'" if found[2] else "")
