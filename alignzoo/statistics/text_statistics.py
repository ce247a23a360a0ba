"""What completions are like as text: how varied, how repetitive, and how often a judge prefers them to another policy's.

Words are those of `alignzoo.common.words`, in lower case, so that nothing depends on a tokenizer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.common.words import ngrams
from alignzoo.statistics.intervals import Ends, ratio_interval, share_interval

Floats = NDArray[np.float64]
REPEATED = 3  # words of the n-grams that `repetition` counts


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct n-grams of all texts together, divided by how many n-grams there are (Li et al. 2016, A diversity-promoting
    objective function for neural conversation models). None where there are none.

    It falls with the number and length of the texts: compare only as many texts, of the same prompts, with each other.
    """
    counts: Counter[tuple[str, ...]] = sum((ngrams(text, n) for text in texts), Counter())
    return len(counts) / counts.total() if counts else None


def repetition(texts: Sequence[str], n: int = REPEATED) -> float | None:
    """The share of a text's n-grams that repeat an earlier one of the same text, 1 - distinct / all, as the mean over the texts
    that have any (seq-rep-n of Welleck et al. 2020, Neural text generation with unlikelihood training). None where none has."""
    counts = [grams for text in texts if (grams := ngrams(text, n))]
    return float(np.mean([1 - len(grams) / grams.total() for grams in counts])) if counts else None


def win_rate(ours: Sequence[float], baseline: Sequence[float]) -> tuple[float, Ends]:
    """How often ours has the higher score, equal scores by half, over pairs of scores of the same prompts; and Wilson's 95 %
    interval, which is a little too wide where there are ties."""
    share = float((np.sign(np.subtract(ours, baseline)) / 2 + 0.5).mean())
    return share, share_interval(share, len(ours))


def distinct_ratio(ours: Sequence[str], baseline: Sequence[str], n: int) -> tuple[float, Ends] | None:
    """`distinct` of ours, divided by the baseline's for the same prompts; and its 95 % interval over prompts. None where a
    side has no n-gram, or would have none without one of its texts."""
    counted = _counted(ours, n), _counted(baseline, n)
    first, second = (np.array([_less(side, i) for i in range(len(ours))]) for side in counted)
    top, bottom = distinct(ours, n), distinct(baseline, n)
    if top is None or bottom is None or len(ours) < 2 or not (first.all() and second.all()):
        return None
    return top / bottom, ratio_interval(top / bottom, first / second)


def perplexity_ratio(ours: Floats, baseline: Floats, tokens: Floats) -> tuple[float, Ends]:
    """The perplexity under one policy divided by that under another, of the same demonstrations; and its 95 % interval over
    them. ours, baseline, tokens (N,): the nll of each demonstration, summed over its tokens, and how many those are."""
    extra = ours - baseline
    ratio = float(np.exp(extra.sum() / tokens.sum()))
    return ratio, ratio_interval(ratio, np.exp((extra.sum() - extra) / (tokens.sum() - tokens)))


def _counted(texts: Sequence[str], n: int) -> tuple[list[Counter[tuple[str, ...]]], Counter[tuple[str, ...]]]:
    """The n-grams of each text, and of all."""
    counts = [ngrams(text, n) for text in texts]
    return counts, sum(counts, Counter())


def _less(counted: tuple[list[Counter[tuple[str, ...]]], Counter[tuple[str, ...]]], left_out: int) -> float:
    """`distinct` without one text; 0 where nothing is left."""
    counts, whole = counted
    removed = counts[left_out]
    gone = sum(whole[gram] == times for gram, times in removed.items())
    total = whole.total() - removed.total()
    return (len(whole) - gone) / total if total else 0.0


def measured(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of an evaluation's rows, as completions.jsonl has them. What can't be had is absent."""
    texts = [str(row["completion"]) for row in rows]
    metrics = {"distinct_1": distinct(texts, 1), "distinct_2": distinct(texts, 2), "repetition": repetition(texts)}
    judge = next((name for name in ("gold", "reward") if any(f"reference_{name}" in row for row in rows)), "")
    scores = [(row[judge], row[f"reference_{judge}"]) for row in rows if judge and f"reference_{judge}" in row]
    both = [pair for pair in scores if None not in pair]
    if both:
        share, (low, high) = win_rate(*zip(*both, strict=True))
        metrics |= {"win_rate": share, "win_rate/low": low, "win_rate/high": high}
    return {name: value for name, value in metrics.items() if value is not None}
