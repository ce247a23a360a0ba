"""What was cut and dropped of a data set, in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def losses(report: Mapping[str, Any], prompt_limit: int, completion_limit: int) -> str:
    """Of the counts of a data report, and of those of each of its sources; "" where nothing was lost."""
    texts = {
        "prompts_truncated": f"prompts cut to data.max_prompt_tokens={prompt_limit}",
        "completions_truncated": f"completions cut to data.max_completion_tokens={completion_limit}",
        "heldout_prompts_cut_to_sample": "heldout prompts cut to sample",
    }
    told = [(texts.get(name, name.replace("_", " ")), n) for name, n in _lost(report).items() if n]
    return ", ".join(f"{n} {text if n > 1 else text.replace('s ', ' ', 1)}" for text, n in told)


def _lost(report: Mapping[str, Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, value in report.items():
        if isinstance(value, Mapping):
            counts += _lost(value)
        elif name.endswith(("_dropped", "_truncated", "_cut_to_sample")):
            counts[name] += value
    return counts
