"""Rows that say the same again, or the contrary of what another says."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import Enum
from typing import Any

from alignzoo.data.rows import Row, whole


class Repeated(Enum):
    """What becomes of them."""

    keep = "keep"
    drop = "drop"


def cleaned(rows: Sequence[Row], duplicates: Repeated, contradictions: Repeated, counts: Counter[str]) -> list[Row]:
    """The rows without those that are to be dropped: of duplicates all but the first, of contradictions all of both sides.

    Counted are the rows of each, as `duplicate_pairs`, `contradictory_ratings`, ..., and those dropped.
    """
    said = [_said(row) for row in rows]
    verdicts: dict[str, set[str]] = defaultdict(set)
    for one in said:
        if one:
            verdicts[one[1]].add(one[2])
    seen, kept = set[tuple[str, str]](), []
    for row, one in zip(rows, said, strict=True):
        twice, contrary = one is not None and one[1:] in seen, one is not None and len(verdicts[one[1]]) > 1
        if one:
            seen.add(one[1:])
            counts[f"duplicate_{one[0]}"] += twice
            counts[f"contradictory_{one[0]}"] += contrary
        dropped = (twice and duplicates is Repeated.drop) or (contrary and contradictions is Repeated.drop)
        counts["repeated_rows_dropped"] += dropped
        if not dropped:
            kept.append(row)
    return kept


def _said(row: Row) -> tuple[str, str, str] | None:
    """(of which kind, about what, what a row says); None where it compares and rates nothing."""
    values = row.values
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


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
