"""bench.override.LABEL=[key=value,...], which Hydra's grammar has no room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from alignzoo.bench.suite import Options
from alignzoo.config import grammar, messages
from alignzoo.config.overrides import split_list
from alignzoo.errors import UserError

PREFIX = "bench.override."


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
        grammar.parse(given)
        found.setdefault(label, []).extend(given)
    return found, rest


def _check_key(text: str) -> None:
    """A misspelt bench.override is told as such: Hydra can't read what follows it."""
    node, _, key = text.partition("=")[0].partition(".")
    if node == "bench" and key and key.split(".")[0] not in {f.name for f in fields(Options)}:
        raise UserError(messages.unknown_key(f"bench.{key.split('.')[0]}", Options))
