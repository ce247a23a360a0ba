"""From runs to what can be said of them: scores, intervals, comparisons, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from alignzoo.evaluation.comparison import LEVEL, Comparison, Reached, compare, seeds_needed, smallest_p, to_threshold
from alignzoo.evaluation.frontier import Point, area
from alignzoo.evaluation.intervals import Summary, summarize
from alignzoo.evaluation.results import Run
from alignzoo.report.study import Study
from alignzoo.settings import UserError

PREFERRED = ("gap_closed", "reward")
AREA = "frontier_area"


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
    """The runs under one condition. `entries` are in order of their mean, or of their name where no claim is possible."""

    condition: str
    metric: str
    entries: list[Entry]
    comparisons: list[Comparison]
    reached: dict[str, Reached]
    failed: dict[str, str]
    threshold: float

    @property
    def seeds(self) -> int:
        """The most common seeds that a comparison has."""
        return max((c.seeds for c in self.comparisons), default=0)

    @property
    def smallest_p(self) -> float:
        return smallest_p(self.seeds, len(self.comparisons))

    @property
    def seeds_needed(self) -> int:
        return seeds_needed(len(self.comparisons))

    @property
    def can_claim(self) -> bool:
        return bool(self.comparisons) and self.smallest_p <= LEVEL

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
    """One analysis a condition, in the order of the conditions' values. Raises UserError where no metric is common to all."""
    metric = metric or _common_metric(runs)
    conditions = sorted({run.condition for run in runs}, key=natural)
    return [_one([run for run in runs if run.condition == condition], condition, study, metric) for condition in conditions]


def natural(text: str) -> tuple[tuple[float, str], ...]:
    """Sorts 'noise=0.5' before 'noise=10'."""
    return tuple((float(part), "") if _is_number(part) else (inf, part) for part in text.replace("=", " ").split())


def points(runs: Sequence[Run]) -> list[Point]:
    """(KL, reward) where each run ended; exact ones where they are known."""
    kl, reward = axes(runs)
    ends = [(run.score(kl), run.score(reward)) for run in runs]
    return [(x, y) for x, y in ends if x is not None and y is not None]


def axes(runs: Sequence[Run]) -> tuple[str, str]:
    """The names of KL and reward: the exact ones where every run has them."""
    exact = all("exact_kl" in run.summary["metrics"] and "expected_reward" in run.summary["metrics"] for run in runs)
    return ("exact_kl", "expected_reward") if exact else ("kl", "reward")


def _common_metric(runs: Sequence[Run]) -> str:
    for name in PREFERRED:
        if all(name in run.summary["metrics"] for run in runs):
            return name
    raise UserError(f"no metric of {', '.join(PREFERRED)} is in every run's summary: choose one by --metric")


def _one(runs: list[Run], condition: str, study: Study, metric: str) -> Analysis:
    failed = {str(run.folder): f"no finite {metric}" for run in runs if run.score(metric) is None}
    scored = [run for run in runs if str(run.folder) not in failed]
    scores = _areas(scored) if study.sweep else _scores(scored, metric)
    if not scores:
        raise UserError(f"no run has a finite {metric}: choose another metric by --metric")
    entries = [
        Entry(label, _of(scored, label), by_seed, summarize(list(by_seed.values()))) for label, by_seed in scores.items()
    ]
    entries.sort(key=lambda entry: (-entry.summary.mean, entry.label))
    order = {entry.label: entry.scores for entry in entries}
    planned = [(a, b) for a, b in study.planned if a in order and b in order]
    reached = _reached(entries, study.threshold)
    compared = compare(order, planned or None)
    analysis = Analysis(condition, AREA if study.sweep else metric, entries, compared, reached, failed, study.threshold)
    if len(entries) > 1 and not analysis.can_claim:
        entries.sort(key=lambda entry: entry.label)
    return analysis


def _scores(runs: Sequence[Run], metric: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        value = run.score(metric)
        if value is not None:
            found.setdefault(run.label, {})[run.seed] = value
    return found


def _areas(runs: Sequence[Run]) -> dict[str, dict[int, float]]:
    """By algorithm and seed: the area under the frontier of its runs, up to the KL that every algorithm reaches."""
    families = {run.algorithm: [other for other in runs if other.algorithm == run.algorithm] for run in runs}
    start = reference_reward(runs)
    if start is None:
        raise UserError(
            "a frontier's area needs the reward of the reference: an evaluation that has J_reference, or frontier.json"
        )
    most = min(max(kl for kl, _ in points(family)) for family in families.values())
    found: dict[str, dict[int, float]] = {}
    for name, family in families.items():
        for seed in sorted({run.seed for run in family}):
            value = area([(0.0, start), *points([run for run in family if run.seed == seed])], most)
            if value is not None:
                found.setdefault(name, {})[seed] = value
    return found


def reference_reward(runs: Sequence[Run]) -> float | None:
    """At KL 0 the objective is the reward."""
    return next((float(run.summary["metrics"]["J_reference"]) for run in runs if "J_reference" in run.summary["metrics"]), None)


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
