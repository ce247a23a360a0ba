"""From runs to what can be said of them: scores, intervals, comparisons, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from alignzoo.errors import UserError
from alignzoo.report import proxy
from alignzoo.report.frontier import Frontier, measure
from alignzoo.report.proxy import Climbs
from alignzoo.report.study import Study
from alignzoo.runs.comparable import picked
from alignzoo.runs.results import Run
from alignzoo.statistics.comparison import (
    LEVEL,
    Comparison,
    Reached,
    behind,
    compare,
    corrected_together,
    seeds_needed,
    smallest_p,
    to_threshold,
)
from alignzoo.statistics.intervals import ANY, Ends, Summary, summarize

PREFERRED = ("gap_closed", "gold", "reward", "accuracy", "preference_accuracy")
AREA = "frontier_area"
SHARES = ("accuracy", "preference_accuracy", "win_rate", "distinct_", "repetition", "calibration_error", "truncated")
BOUNDS = {"gap_closed": (-inf, 1.0), "exact_kl": (0.0, inf), "perplexity": (1.0, inf), "length": (0.0, inf)}


@dataclass(frozen=True)
class Entry:
    """One algorithm, as compared."""

    label: str
    runs: list[Run]
    scores: dict[int, float]  # by seed
    summary: Summary

    def cost(self, name: str) -> float | None:
        """The mean over runs, None where it was not counted."""
        found = [run.cost[name] for run in self.runs if name in run.cost]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True)
class Analysis:
    """The runs under one condition, whose `settings` are the values of what is varied; or the means over conditions, `over` of
    them. `entries` are in order of their mean, or of their name where no claim is possible. p is corrected for the comparisons
    of the whole `family`.
    """

    condition: str
    metric: str
    entries: list[Entry]
    comparisons: list[Comparison]
    reached: dict[str, Reached]
    failed: dict[str, str]
    threshold: float
    family: int
    settings: dict[str, Any] = field(default_factory=dict)
    over: int = 1
    frontier: Frontier | None = None
    climbs: Climbs | None = None

    @property
    def seeds(self) -> int:
        """The most common seeds that a comparison has."""
        return max((c.seeds for c in self.comparisons), default=0)

    @property
    def smallest_p(self) -> float:
        return smallest_p(self.seeds, self.family)

    @property
    def seeds_needed(self) -> int:
        return seeds_needed(self.family)

    @property
    def can_claim(self) -> bool:
        return bool(self.comparisons) and self.smallest_p <= LEVEL

    @property
    def selective(self) -> bool:
        """Whether some pairs were never compared, so that nothing can be called the best."""
        return len(self.comparisons) < len(self.entries) * (len(self.entries) - 1) // 2

    @property
    def verdicts(self) -> list[Comparison]:
        """The comparisons, each with the one ahead first."""
        return [c if c.difference >= 0 else _turned(c) for c in self.comparisons]

    @property
    def best(self) -> Entry:
        return max(self.entries, key=lambda entry: entry.summary.mean)

    def against(self, first: str, second: str) -> Comparison | None:
        """The comparison of these two, in this order, where it was made."""
        for c in self.comparisons:
            if (c.first, c.second) == (first, second):
                return c
            if (c.second, c.first) == (first, second):
                return _turned(c)
        return None


def analyse(runs: Sequence[Run], study: Study, metric: str | None = None) -> list[Analysis]:
    """One analysis a condition, in the order of the conditions' values; the tests of all are one family, behind that of their
    means. Raises UserError where no metric is common to all.
    """
    metric = metric or _common_metric(runs)
    conditions = sorted({run.condition for run in runs}, key=natural)
    found = [_one([run for run in runs if run.condition == condition], condition, study, metric) for condition in conditions]
    corrected = corrected_together([a.comparisons for a in found])
    family = sum(len(a.comparisons) for a in found)
    whole = averaged(found, study) if len(found) > 1 else None
    gate = whole.comparisons if whole else []
    return [_ordered(replace(a, comparisons=behind(gate, own), family=family)) for a, own in zip(found, corrected, strict=True)]


def possible(metric: str) -> Ends:
    """Between which values a metric is, whatever is measured."""
    return (0.0, 1.0) if metric.startswith(SHARES) else BOUNDS.get(metric, ANY)


def averaged(analyses: Sequence[Analysis], study: Study) -> Analysis | None:
    """What holds over all conditions: each algorithm's score is its mean over them, seed by seed, and its tests are a family
    of their own, decided on before any condition is looked at. None where no algorithm has a seed under every condition.
    """
    labels = [e.label for e in analyses[0].entries if all(any(e.label == o.label for o in a.entries) for a in analyses)]
    scores, runs = {}, {}
    for label in labels:
        entries = [next(e for e in a.entries if e.label == label) for a in analyses]
        seeds = sorted(set.intersection(*(set(e.scores) for e in entries)))
        if seeds:
            scores[label] = {seed: sum(e.scores[seed] for e in entries) / len(entries) for seed in seeds}
            runs[label] = [run for e in entries for run in e.runs]
    if not scores:
        return None
    bounds = possible(analyses[0].metric)
    entries = [Entry(label, runs[label], own, summarize(list(own.values()), bounds=bounds)) for label, own in scores.items()]
    compared = _compared(entries, study, bounds)
    whole = Analysis(
        "", analyses[0].metric, entries, compared, {}, {}, study.threshold, len(compared), analyses[0].settings, len(analyses)
    )  # fmt: skip
    return _ordered(whole)


def _ordered(a: Analysis) -> Analysis:
    """With its entries in the order that the claims allow."""
    ranked = len(a.entries) == 1 or a.can_claim
    return replace(a, entries=sorted(a.entries, key=lambda e: (-e.summary.mean, e.label) if ranked else (0.0, e.label)))


def natural(text: str) -> tuple[tuple[float, str], ...]:
    """Sorts 'noise=0.5' before 'noise=10'."""
    return tuple((float(part), "") if _is_number(part) else (inf, part) for part in text.replace("=", " ").split())


def _common_metric(runs: Sequence[Run]) -> str:
    for name in PREFERRED:
        if all(name in run.summary["metrics"] for run in runs):
            return name
    raise UserError(f"no metric of {', '.join(PREFERRED)} is in every run's summary: choose one by --metric{_shared(runs)}")


def _shared(runs: Sequence[Run]) -> str:
    """Those that all runs have, for a message."""
    shared = set.intersection(*(set(run.summary["metrics"]) for run in runs))
    return f", of {', '.join(sorted(shared))}" if shared else ""


def _one(runs: list[Run], condition: str, study: Study, metric: str) -> Analysis:
    failed = {str(run.folder): f"no finite {metric}" for run in runs if run.score(metric) is None}
    scored = [run for run in runs if str(run.folder) not in failed]
    curve = measure(scored, bool(study.sweep))
    scores = _areas(curve) if study.sweep else _scores(scored, metric)
    if not scores:
        raise UserError(f"no run has a finite {metric}: choose another metric by --metric{_shared(runs)}")
    bounds = ANY if study.sweep else possible(metric)
    entries = [
        Entry(label, _of(scored, label), by_seed, summarize(list(by_seed.values()), bounds=bounds))
        for label, by_seed in scores.items()
    ]
    reached = {} if study.sweep else _reached(entries, study.threshold)
    compared = _compared(entries, study, bounds)
    return Analysis(
        condition, AREA if study.sweep else metric, entries, compared, reached, failed, study.threshold, len(compared),
        picked(runs[0], study.vary), frontier=curve, climbs=proxy.measure(scored),
    )  # fmt: skip


def _compared(entries: Sequence[Entry], study: Study, bounds: Ends) -> list[Comparison]:
    """The planned comparisons, else all."""
    order = {entry.label: entry.scores for entry in sorted(entries, key=lambda entry: (-entry.summary.mean, entry.label))}
    planned = [(a, b) for a, b in study.planned if a in order and b in order]
    return compare(order, planned or None, bounds[1] - bounds[0])


def _scores(runs: Sequence[Run], metric: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        value = run.score(metric)
        if value is not None:
            found.setdefault(run.label, {})[run.seed] = value
    return found


def _areas(found: Frontier | None) -> Mapping[str, dict[int, float]]:
    """By algorithm and seed: the area under the frontier of its runs, up to the KL that every algorithm reaches."""
    areas = {} if found is None else {line.label: line.areas for line in found.lines if line.areas}
    if not areas:
        raise UserError(
            "a frontier's area needs KL to the reference in every evaluation, and the reward of the reference: of J_reference, "
            "frontier.json or reference.json"
        )
    return areas


def _of(runs: Sequence[Run], label: str) -> list[Run]:
    return sorted((run for run in runs if label in (run.label, run.algorithm)), key=lambda run: (run.label, run.seed))


def _reached(entries: Sequence[Entry], threshold: float) -> dict[str, Reached]:
    curves = {entry.label: [run.curve("samples", "gap_closed") for run in entry.runs] for entry in entries}
    return {label: to_threshold(found, threshold) for label, found in curves.items() if found and all(x for x, _ in found)}


def _turned(c: Comparison) -> Comparison:
    def ends(interval: tuple[float, float] | None, about: float) -> tuple[float, float] | None:
        return None if interval is None else (about - interval[1], about - interval[0])

    return Comparison(
        c.second, c.first, c.seeds, -c.difference, ends(c.interval, 0.0), c.p, c.corrected,
        1 - c.improvement, ends(c.improvement_interval, 1.0),
    )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
