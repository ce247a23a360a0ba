"""What a word is, wherever words are counted."""

from __future__ import annotations

import re
from collections import Counter

WORD = re.compile(r"\w+")


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n lower-cased words occurs."""
    words = WORD.findall(text.lower())
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))
