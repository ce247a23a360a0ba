"""Rows that say the same again, or the contrary of what another says."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Any

import numpy as np

from alignzoo.data.rows import Row, whole

_text = json.JSONEncoder(sort_keys=True, default=str).encode
KINDS = (None, "pairs", "rankings", "ratings")


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

    def add(self, values: Mapping[str, Any]) -> None:
        """The next row's."""
        kind, about, verdict = claim(values) or (None, "", "")
        self.kinds.append(KINDS.index(kind))
        self.about.append(short_hash(about))
        self.whole.append(short_hash(about + verdict))

    def kept(self, duplicates: Repeated, contradictions: Repeated, counts: Counter[str]) -> np.ndarray:
        """(N,) bool: which rows `cleaned` keeps."""
        kinds, about, whole = (np.array(column) for column in (self.kinds, self.about, self.whole))
        _, first = np.unique(whole, return_index=True)
        subjects, verdicts = np.unique(about[first], return_counts=True)
        twice, contrary = np.ones(len(whole), dtype=bool), np.isin(about, subjects[verdicts > 1], kind="sort")
        twice[first] = False
        twice, contrary = twice & (kinds > 0), contrary & (kinds > 0)
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


def short_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def claim(values: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(of which kind, about what, what a row says); None where it compares and rates nothing."""
    prompt = _text(whole(values.get("prompt", "")))
    if "chosen" in values and "rejected" in values:
        chosen, rejected = _text(values["chosen"]), _text(values["rejected"])
        return "pairs", _text([prompt, *sorted((chosen, rejected))]), chosen
    if "completions" in values and "ranks" in values:
        levels = sorted(set(values["ranks"]))
        ranked = sorted(
            (_text(text), levels.index(rank)) for text, rank in zip(values["completions"], values["ranks"], strict=True)
        )
        return "rankings", _text([prompt, [text for text, _ in ranked]]), _text([rank for _, rank in ranked])
    if "completion" in values and "label" in values:
        return "ratings", _text([prompt, _text(values["completion"])]), _text(float(values["label"]))
    return None
