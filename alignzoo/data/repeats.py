"""Rows that say the same again, or the contrary of what another says."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b

import numpy as np

from alignzoo.data.messages import Columns
from alignzoo.data.rows import Row, whole

_text = json.JSONEncoder(sort_keys=True, default=str).encode
PAIRS, RANKINGS, RATINGS = "pairs", "rankings", "ratings"
KINDS = ("", PAIRS, RANKINGS, RATINGS)


class Repeated(Enum):
    """What becomes of them."""

    keep = "keep"
    drop = "drop"


@dataclass
class Claims:
    """What rows say, as hashes of 64 bits: few enough to hold for every row, and too many to meet by chance."""

    kinds: array[int] = field(default_factory=lambda: array("b"))
    about: array[int] = field(default_factory=lambda: array("Q"))
    whole: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, values: Columns) -> None:
        """The next row's."""
        kind, about, verdict = claim(values)
        self.kinds.append(KINDS.index(kind))
        self.about.append(_short_hash(about))
        self.whole.append(_short_hash(about + verdict))

    def kept(self, duplicates: Repeated, contradictions: Repeated, counts: Counter[str]) -> np.ndarray:
        """(N,) bool: which rows `cleaned` keeps."""
        kinds, about, whole = (np.array(column) for column in (self.kinds, self.about, self.whole))
        _, first = np.unique(whole, return_index=True)
        subjects, verdicts = np.unique(about[first], return_counts=True)
        twice = (kinds > 0) & ~np.isin(np.arange(len(whole)), first)
        contrary = (kinds > 0) & np.isin(about, subjects[verdicts > 1], kind="sort")
        for number, kind in enumerate(KINDS[1:], start=1):
            counts[f"duplicate_{kind}"] += int((twice & (kinds == number)).sum())
            counts[f"contradictory_{kind}"] += int((contrary & (kinds == number)).sum())
        dropped = (twice & (duplicates is Repeated.drop)) | (contrary & (contradictions is Repeated.drop))
        counts["repeated_rows_dropped"] += int(dropped.sum())
        return ~dropped


def cleaned(rows: Sequence[Row], duplicates: Repeated, contradictions: Repeated, counts: Counter[str]) -> list[Row]:
    """The rows without those that are to be dropped: of duplicates all but the first, of contradictions all of both sides.

    Counted are the rows of each, as `duplicate_pairs`, `contradictory_ratings`, ..., and those dropped.
    """
    claims = Claims()
    for row in rows:
        claims.add(row.values)
    return [row for row, keep in zip(rows, claims.kept(duplicates, contradictions, counts), strict=True) if keep]


def _short_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def subject(values: Columns) -> tuple[str, str]:
    """(of which kind, what is compared or rated, whichever side is first); "" where nothing is."""
    if "chosen" in values and "rejected" in values:
        kind, texts = PAIRS, sorted((_text(values["chosen"]), _text(values["rejected"])))
    elif "completions" in values:
        kind, texts = RANKINGS, sorted(map(_text, values["completions"]))
    elif "completion" in values:
        kind, texts = RATINGS, [_text(values["completion"])]
    else:
        return "", ""
    return kind, _text([kind, whole(values.get("prompt", "")), texts])


def claim(values: Columns) -> tuple[str, str, str]:
    """`subject`, and what the row says of it; "" where it compares and rates nothing."""
    kind, about = subject(values)
    if kind == PAIRS:
        return kind, about, _text(values["chosen"])
    if kind == RANKINGS and "ranks" in values:
        levels = sorted(set(values["ranks"]))
        ranks = [levels.index(rank) for rank in values["ranks"]]
        ranked = sorted(zip(map(_text, values["completions"]), ranks, strict=True))
        return kind, about, _text([rank for _, rank in ranked])
    if kind == RATINGS and "label" in values:
        return kind, about, _text(float(values["label"]))
    return "", "", ""
