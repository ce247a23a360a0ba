"""From runs to what can be said of them: scores, intervals, comparisons, cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from alignzoo.common.metric_table import AREA, COST_TITLES, ShownIn, bounds, shown
from alignzoo.errors import UserError
from alignzoo.report import over_prompts, proxy
from alignzoo.report.kl_frontier import Frontier, measure
from alignzoo.report.prose import paragraphs, value_text
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

PREFERRED = shown(ShownIn.COMPARED)
Scores = dict[int, float]  # by seed


@dataclass(frozen=True)
class Entry:
    """One algorithm, as compared."""

    label: str
    runs: list[Run]
    scores: Scores
    summary: Summary

    def cost(self, name: str) -> float | None:
        """The mean over runs, None where it was not counted."""
        costs = [run.cost[name] for run in self.runs if name in run.cost]
        return sum(costs) / len(costs) if costs else None


@dataclass(frozen=True)
class Analysis:
    """The runs under one condition, whose `settings` are the values of what is varied; or the means over conditions, `over` of
    them. `entries` are in order of their mean, or of their name where no claim is possible. p is corrected for the comparisons
    of the whole `family`. `of_runs` are comparisons over prompts, where each algorithm has one run.
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
    of_runs: list[Comparison] = field(default_factory=list)

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
        """Whether some pairs were never compared, so that nothing can be called the best, or each is asked about by itself."""
        every = len(self.entries) * (len(self.entries) - 1) // 2
        return len(self.comparisons) < every or any(c.margin for c in self.comparisons)

    @property
    def verdicts(self) -> list[Comparison]:
        """The comparisons, each with the one ahead first."""
        return [c if c.difference >= 0 else c.turned() for c in self.comparisons]

    @property
    def best(self) -> Entry:
        return max(self.entries, key=lambda entry: entry.summary.mean)

    @property
    def sides(self) -> tuple[list[Comparison], list[Comparison]]:
        """The comparisons of the best with each of the rest: those that separate it, and those that don't."""
        comparisons = [c for e in self.entries if e is not self.best and (c := self.against(self.best.label, e.label))]
        beaten = [c for c in comparisons if c.separated and c.difference > 0]
        return beaten, [c for c in comparisons if c not in beaten]

    @property
    def verdicts_of_runs(self) -> list[Comparison]:
        """Of the run that is ahead of all others over prompts with each of them; none where no run is."""
        ahead = [c if c.difference > 0 else c.turned() for c in self.of_runs]
        first = next((e.label for e in self.entries if sum(c.first == e.label for c in ahead) == len(self.entries) - 1), "")
        return [c for c in ahead if c.first == first]

    @property
    def all_equal(self) -> bool:
        """Whether the scores of all are the same, seed by seed."""
        return all(c.difference == 0 and c.p == 1 for c in self.comparisons)

    @property
    def headline(self) -> str:
        """The one sentence to take away."""
        return paragraphs("headline", self)[0]

    @property
    def details(self) -> list[str]:
        """By how much and how sure: a sentence or two each."""
        return paragraphs("details", self)

    @property
    def condition_text(self) -> str:
        """The settings of a condition, as they read in a sentence."""
        return ", ".join(f"{self.setting_title(key)} {value_text(value)}" for key, value in self.settings.items())

    def setting_title(self, key: str) -> str:
        """A varied setting, as it reads in a sentence."""
        if key != "budget.amount":
            return key
        unit = self.entries[0].runs[0].config["budget"]["unit"]
        return f"the budget ({COST_TITLES.get(unit, unit)})"

    def entry(self, label: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.label == label), None)

    def against(self, first: str, second: str) -> Comparison | None:
        """The comparison of these two, in this order, where it was made."""
        both = [*self.comparisons, *(c.turned() for c in self.comparisons)]
        return next((c for c in both if (c.first, c.second) == (first, second)), None)


def analyse(runs: Sequence[Run], study: Study, metric: str | None = None) -> list[Analysis]:
    """One analysis a condition, in the order of the conditions' values; the tests of all are one family, behind that of their
    means. Raises UserError where no metric is common to all.
    """
    metric = metric or preferred_metric(runs)
    if metric is None:
        raise UserError(
            f"no metric of {', '.join(PREFERRED)} is in every run's summary: choose one by --metric{_common_metrics(runs)}"
        )
    analyses = [
        _analysed([run for run in runs if run.condition == condition], condition, study, metric)
        for condition in sorted({run.condition for run in runs}, key=natural_order)
    ]
    corrected = corrected_together([a.comparisons for a in analyses])
    family = sum(len(a.comparisons) for a in analyses)
    whole = averaged(analyses, study) if len(analyses) > 1 else None
    gate = whole.comparisons if whole else []
    return [
        _ordered(replace(a, comparisons=behind(gate, comparisons), family=family))
        for a, comparisons in zip(analyses, corrected, strict=True)
    ]


def preferred_metric(runs: Sequence[Run]) -> str | None:
    """The first of those that algorithms are compared by that all runs have."""
    return next((name for name in PREFERRED if all(name in run.summary["metrics"] for run in runs)), None)


def averaged(analyses: Sequence[Analysis], study: Study) -> Analysis | None:
    """What holds over all conditions: each algorithm's score is its mean over them, seed by seed, and its tests are a family
    of their own, decided on before any condition is looked at. None where no algorithm has a seed under every condition.
    """
    first = analyses[0]
    averages = []
    for label in (entry.label for entry in first.entries):
        entries = [entry for a in analyses if (entry := a.entry(label))]
        if len(entries) < len(analyses):
            continue
        seeds = sorted(set.intersection(*(set(e.scores) for e in entries)))
        scores = {seed: sum(e.scores[seed] for e in entries) / len(entries) for seed in seeds}
        if scores:
            averages.append(_entry(label, [run for e in entries for run in e.runs], scores, bounds(first.metric)))
    if not averages:
        return None
    compared = _compared(averages, study, bounds(first.metric))
    return _ordered(
        Analysis(
            "", first.metric, averages, compared, {}, {}, study.threshold, len(compared), first.settings, len(analyses),
        )
    )  # fmt: skip


def _ordered(a: Analysis) -> Analysis:
    """With its entries in the order that the claims allow."""
    ranked = len(a.entries) == 1 or a.can_claim
    return replace(a, entries=sorted(a.entries, key=lambda e: (-e.summary.mean, e.label) if ranked else (0.0, e.label)))


def natural_order(text: str) -> tuple[tuple[float, str], ...]:
    """Sorts 'noise=0.5' before 'noise=10'."""
    number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
    return tuple((float(part), "") if number.fullmatch(part) else (inf, part) for part in text.replace("=", " ").split())


def _common_metrics(runs: Sequence[Run]) -> str:
    """Those that all runs have, for a message."""
    common = set.intersection(*(set(run.summary["metrics"]) for run in runs))
    return f", of {', '.join(sorted(common))}" if common else ""


def _analysed(runs: list[Run], condition: str, study: Study, metric: str) -> Analysis:
    """Of one condition. Under a sweep the score is an area, which has no bounds and no curve to a threshold."""
    failed = {str(run.folder): f"no finite {metric}" for run in runs if run.score(metric) is None}
    scored = [run for run in runs if str(run.folder) not in failed]
    frontier = measure(scored, bool(study.sweep))
    scores = _areas(frontier) if study.sweep else _scores(scored, metric)
    if not scores:
        raise UserError(f"no run has a finite {metric}: choose another metric by --metric{_common_metrics(runs)}")
    limits = ANY if study.sweep else bounds(metric)
    entries = []
    for label, by_seed in scores.items():
        of_label = [run for run in scored if label in (run.label, run.algorithm)]
        entries.append(_entry(label, sorted(of_label, key=lambda run: (run.label, run.seed)), by_seed, limits))
    reached = {} if study.sweep else _reached(entries, study.threshold)
    compared = _compared(entries, study, limits)
    return Analysis(
        condition, AREA if study.sweep else metric, entries, compared, reached, failed, study.threshold, len(compared),
        picked(runs[0], study.vary), frontier=frontier, climbs=proxy.measure(scored),
        of_runs=[] if study.sweep else over_prompts.compared(scored, metric),
    )  # fmt: skip


def _entry(label: str, runs: list[Run], scores: Scores, limits: Ends) -> Entry:
    return Entry(label, runs, scores, summarize(list(scores.values()), bounds=limits))


def _compared(entries: Sequence[Entry], study: Study, limits: Ends) -> list[Comparison]:
    """The planned comparisons, else all."""
    order = {entry.label: entry.scores for entry in sorted(entries, key=lambda entry: (-entry.summary.mean, entry.label))}
    planned = [(a, b) for a, b in study.planned if a in order and b in order]
    return compare(order, planned or None, limits[1] - limits[0], study.margin)


def _scores(runs: Sequence[Run], metric: str) -> dict[str, Scores]:
    scores: dict[str, Scores] = {}
    for run in runs:
        scores.setdefault(run.label, {})[run.seed] = float(run.summary["metrics"][metric])
    return scores


def _areas(frontier: Frontier | None) -> Mapping[str, Scores]:
    """The area under the frontier of an algorithm's runs, up to the KL that every algorithm reaches."""
    areas = {} if frontier is None else {line.label: line.areas for line in frontier.lines if line.areas}
    if not areas:
        raise UserError(
            "a frontier's area needs KL to the reference in every evaluation, and the reward of the reference: of J_reference, "
            "frontier.json or reference.json"
        )
    return areas


def _reached(entries: Sequence[Entry], threshold: float) -> dict[str, Reached]:
    curves = {entry.label: [run.curve("samples", "gap_closed") for run in entry.runs] for entry in entries}
    return {label: to_threshold(paths, threshold) for label, paths in curves.items() if paths and all(x for x, _ in paths)}
