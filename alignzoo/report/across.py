"""A study with several conditions, seen as one: who is ahead where, and what changes from the first condition to the last."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.report.analysis import Analysis
from alignzoo.report.prose import TextTable, bare, bare_difference, difference, paragraphs, with_interval
from alignzoo.statistics.intervals import Summary, summarize


def sentences(analyses: Sequence[Analysis]) -> list[str]:
    """Who is ahead where; who loses least from the first condition to the last."""
    shown: dict[str, list[str]] = {}
    for a in analyses:
        for verdict in _verdicts(a):
            shown.setdefault(verdict, []).append(a.condition_text)
    undecided = sum(not _verdicts(a) for a in analyses)
    changes = [(label, change) for label in _labels(analyses) if (change := score_change(analyses, label))]
    ordered = sorted(changes, key=lambda pair: -pair[1].mean) if len(analyses[0].settings) == 1 else []
    texts = [(label, _change_text(analyses[0].metric, change)) for label, change in ordered]
    return paragraphs("conditions", analyses, shown, undecided, texts)


def _verdicts(a: Analysis) -> list[str]:
    """That an algorithm is separated from all others, or the planned pairs that are."""
    if not a.can_claim:
        return []
    if a.selective:
        return [f"{c.first} is better than {c.second}" for c in a.verdicts if c.separated]
    return [f"{a.best.label} is the best"] if not a.sides[1] else []


def _change_text(metric: str, s: Summary) -> str:
    ends = f" ({bare_difference(metric, s.interval[0])} to {bare_difference(metric, s.interval[1])})" if s.interval else ""
    return f"{'+' if s.mean > 0 else ''}{difference(metric, s.mean)}{ends}"


def score_change(analyses: Sequence[Analysis], label: str) -> Summary | None:
    """Of a label's score from the first condition to the last, seed by seed; None where no seed is in both."""
    first, last = analyses[0].entry(label), analyses[-1].entry(label)
    if first is None or last is None:
        return None
    differences = [last.scores[seed] - first.scores[seed] for seed in sorted(first.scores.keys() & last.scores.keys())]
    return summarize(differences) if differences else None


def table(analyses: Sequence[Analysis], whole: Analysis | None) -> TextTable:
    """One row a condition, then the mean over them and the change from first to last; one column an algorithm."""
    labels = list(dict.fromkeys([*(e.label for e in (whole.entries if whole else [])), *_labels(analyses)]))
    rows = [[a.condition_text, *(_cell(a, label) for label in labels)] for a in analyses]
    if whole:
        rows.append(["mean over conditions", *(_cell(whole, label) for label in labels)])
    if len(analyses[0].settings) == 1:  # of several, the conditions have no order
        changes = [score_change(analyses, label) for label in labels]
        texts = ["" if s is None else _change_text(analyses[0].metric, s).replace(" points", "") for s in changes]
        rows.append(["first to last", *texts])
    return TextTable(["condition", *labels], rows)


def _cell(a: Analysis, label: str) -> str:
    if (entry := a.entry(label)) is None:
        return ""
    s = entry.summary
    return bare(a.metric, s.mean) if s.interval is None else with_interval(a.metric, s.mean, s.interval)


def _labels(analyses: Sequence[Analysis]) -> list[str]:
    return sorted({e.label for a in analyses for e in a.entries})
