"""Overrides as text: lists of them, which Hydra's grammar has no room for, and values."""

from __future__ import annotations

import re
from pathlib import Path

OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""
STAGES = re.compile(r"\+?stage\.[^.=]+=(.*)", re.DOTALL)


def readable(text: str) -> str:
    """An override as Hydra's grammar reads it: a list of overrides, and a value that speaks of a stage, in quotes."""
    match = STAGES.fullmatch(text)
    value = match[1] if match else text.partition("=")[2]
    quoted = value[:1] in QUOTES and value[-1:] == value[:1]
    if quoted or not value or not (match or "{stage:" in value):
        return text
    return text[: len(text) - len(value)] + _quoted(value)


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


def written(value: object) -> str:
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
    if re.fullmatch(r"[A-Za-z_/.-][\w/.-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf", "-inf"):
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text) + "'"
