"""What a word is, wherever words are counted, compared or looked for.

A word is a run of letters, digits and underscores, with the marks on them. In scripts that put no spaces between words, and in
Hangul, it is one character with its marks: Chinese characters, Japanese kana, Hangul syllables, Thai, Lao, Khmer, Burmese and
Tibetan letters. That is finer than a dictionary's words, needs no segmenter, and is what BLEU of Chinese is counted in.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# Thai, Lao, Tibetan, Burmese, Khmer; Hangul; kana, bopomofo and Chinese, with their compatibility and half-width forms
ALONE = (
    r"\u0e00-\u0e4f\u0e80-\u0ecf\u0edc-\u0eff\u0f00-\u0f1f\u0f34-\u0fff\u1000-\u103f\u104a-\u108f\u109a-\u109f\u1780-\u17df"
    r"\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff\u3130-\u318f"
    r"\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uffdc\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
MARKS = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.category(c)[0] == "M")
JOINED = rf"(?:[^\W{ALONE}]|[{MARKS}])"  # a character that belongs to one word with its neighbours of the same kind
EDGE = rf"(?:(?<!{JOINED})|(?!{JOINED}))(?![{MARKS}])"  # no word is on both sides
_SENTENCE_END = re.compile(r"""(?:[.!?\u2026]+["'\u2019\u201d)\]]*(?:\s+|$))|(?:[\u3002\uff01\uff1f]+[\u201d\u300d]?\s*)""")
_WORD = re.compile(rf"[^\W{ALONE}]+(?:[{MARKS}]+[^\W{ALONE}]*)*|(?=\w)[{ALONE}][{MARKS}]*")


def words(text: str) -> list[str]:
    """The words, as they are written."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """What ends with . ! ? (or their Chinese forms) before a blank or the end, and what is left after the last of them; those
    without a word are none. An abbreviation's full stop ends one too."""
    return [part for part in _SENTENCE_END.split(text) if words(part)]


def whole(*phrases: str) -> re.Pattern[str]:
    """Any of the phrases as whole words, in any case, the longest first: "cat" is not in "category"."""
    by_length = sorted(phrases, key=len, reverse=True)
    return re.compile(f"{EDGE}(?:{'|'.join(map(re.escape, by_length))}){EDGE}", re.IGNORECASE)


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n lower-cased words occurs."""
    lower = words(text.lower())
    return Counter(zip(*(lower[start:] for start in range(n)), strict=False))
