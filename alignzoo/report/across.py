"""A study with several conditions, seen as one: who is ahead where, and what changes from the first condition to the last."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.report.analysis import Analysis
from alignzoo.report.answer import (
    bare,
    bare_difference,
    condition_text,
    difference,
    listed,
    number,
    setting_title,
    title,
    value_text,
)
from alignzoo.report.sections import Table, with_interval
from alignzoo.statistics.intervals import Summary, summarize


def headline(analyses: Sequence[Analysis]) -> str:
    """Where no algorithm has a mean over conditions: what each condition says by itself."""
    if all(len(a.entries) == 1 for a in analyses):
        ends = " to ".join(
            f"{number(a.metric, a.best.summary.mean)} under {condition_text(a)}" for a in (analyses[0], analyses[-1])
        )
        return f"{analyses[0].best.label}: from {ends}. There is nothing to compare it with."
    return f"{len(analyses)} conditions, and no algorithm has runs under all of them: each is compared by itself."


def sentences(analyses: Sequence[Analysis]) -> list[str]:
    """Who is ahead where; who loses least from the first condition to the last."""
    return [text for text in (_ahead(analyses), _changed(analyses)) if text]


def _ahead(analyses: Sequence[Analysis]) -> str:
    if max(len(a.entries) for a in analyses) < 2:
        return ""
    shown: dict[str, list[str]] = {}
    for a in analyses:
        for verdict in _shown(a):
            shown.setdefault(verdict, []).append(condition_text(a))
    if not shown:
        able = any(a.can_claim for a in analyses)
        what = "a planned difference" if analyses[0].selective else "a best algorithm"
        return (
            f"Taken by itself, no condition shows {what}"
            + ("." if able else f": that needs {max(a.seeds_needed for a in analyses)} seeds.")
        )  # fmt: skip
    said = [
        f"{verdict} under {listed(at) if len(at) < len(analyses) else f'all {len(at)} conditions'}"
        for verdict, at in shown.items()
    ]
    left = sum(not _shown(a) for a in analyses)
    return f"Taken by themselves: {'; '.join(said)}{f'; none is shown to be under the other {left}' if left else ''}."


def _shown(a: Analysis) -> list[str]:
    """That an algorithm is separated from all others, or the planned pairs that are."""
    if not a.can_claim:
        return []
    if a.selective:
        return [f"{c.first} is better than {c.second}" for c in a.verdicts if c.separated]
    pairs = [a.against(a.best.label, e.label) for e in a.entries if e is not a.best]
    return [f"{a.best.label} is the best"] if all(c is not None and c.separated and c.difference > 0 for c in pairs) else []


def _changed(analyses: Sequence[Analysis]) -> str:
    if len(analyses[0].settings) != 1:
        return ""
    found = {label: s for label in _labels(analyses) if (s := change(analyses, label))}
    if len(found) < 2:
        return ""
    ordered = sorted(found, key=lambda label: -found[label].mean)
    ((key, first),), last = analyses[0].settings.items(), next(iter(analyses[-1].settings.values()))
    ends = [f"by {_change_text(analyses[0], found[label])} for {label}" for label in (ordered[0], ordered[-1])]
    over, what = setting_title(key, analyses[0]), title(analyses[0].metric)
    return f"From {value_text(first)} to {value_text(last)} of {over}, the {what} changes {ends[0]}, and {ends[1]}."


def _change_text(a: Analysis, s: Summary) -> str:
    between = f" ({bare_difference(a, s.interval[0])} to {bare_difference(a, s.interval[1])})" if s.interval else ""
    sign = "+" if s.mean > 0 else ""
    return f"{sign}{difference(a, s.mean)}{between}"


def change(analyses: Sequence[Analysis], label: str) -> Summary | None:
    """Of a label's score from the first condition to the last, seed by seed; None where no seed is in both."""
    ends = [next((e for e in a.entries if e.label == label), None) for a in (analyses[0], analyses[-1])]
    if not all(ends):
        return None
    first, last = (e.scores for e in ends if e is not None)
    differences = [last[seed] - first[seed] for seed in sorted(first.keys() & last.keys())]
    return summarize(differences) if differences else None


def table(analyses: Sequence[Analysis], whole: Analysis | None) -> Table:
    """One row a condition, then the mean over them and the change from first to last; one column an algorithm."""
    order = [e.label for e in whole.entries] if whole else []
    labels = [*order, *(x for x in _labels(analyses) if x not in order)]
    rows = [[condition_text(a), *(_cell(a, label) for label in labels)] for a in analyses]
    if whole:
        rows.append(["mean over conditions", *(_cell(whole, label) for label in labels)])
    if len(analyses[0].settings) == 1:  # of several, the conditions have no order
        changes = [change(analyses, label) for label in labels]
        moved = ["" if s is None else _change_text(analyses[0], s).replace(" points", "") for s in changes]
        rows.append(["first to last", *moved])
    return Table(["condition", *labels], rows)


def _cell(a: Analysis, label: str) -> str:
    entry = next((e for e in a.entries if e.label == label), None)
    if entry is None:
        return ""
    s = entry.summary
    return bare(a.metric, s.mean) if s.interval is None else with_interval(a.metric, s.mean, s.interval)


def _labels(analyses: Sequence[Analysis]) -> list[str]:
    return sorted({e.label for a in analyses for e in a.entries})
