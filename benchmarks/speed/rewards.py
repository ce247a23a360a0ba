"""A reward that costs nothing, for both programs."""

from __future__ import annotations

from typing import Any


def vowels(completions: list[str], **_: Any) -> list[float]:
    """The share of vowels."""
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]
