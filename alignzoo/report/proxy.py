"""Runs that climbed a proxy of the gold reward: how both went with the distance from the reference, and the law they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np

from alignzoo.common import reference_samples
from alignzoo.common.folder import COMPLETIONS, rows
from alignzoo.runs.results import Run
from alignzoo.statistics.frontier import best_of_n_estimate
from alignzoo.statistics.intervals import Summary, deviation, summarize
from alignzoo.statistics.overoptimisation import Fall, Fit, Law, fall, fit

LEAST = 3  # evaluations, or counts n, that a way up has
BEST_OF = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)


@dataclass(frozen=True)
class Ascent:
    """A run's way, by evaluation: d = sqrt(KL), gold, and the proxy in standard deviations of the reference's completions above
    their mean. `start` is the reference's gold. Of best-of-n: by n, where d is that of the bound on its KL.
    """

    d: np.ndarray
    gold: np.ndarray
    proxy: np.ndarray
    start: float
    fall: Fall | None = None

    def fitted(self, law: Law) -> Fit | None:
        return fit(law, list(zip(self.d.tolist(), (self.gold - self.start).tolist(), strict=True)))


@dataclass(frozen=True)
class Climb:
    """The ways of one label's runs, by seed."""

    label: str
    law: Law
    ascents: dict[int, Ascent]

    @cached_property
    def fits(self) -> dict[int, Fit]:
        found = {seed: ascent.fitted(self.law) for seed, ascent in self.ascents.items()}
        return {seed: one for seed, one in found.items() if one is not None}

    @cached_property
    def pooled(self) -> Fit | None:
        """One fit to all seeds' points."""
        points = [(d, g - a.start) for a in self.ascents.values() for d, g in zip(a.d.tolist(), a.gold.tolist(), strict=True)]
        return fit(self.law, points)

    @property
    def start(self) -> float:
        return float(np.mean([ascent.start for ascent in self.ascents.values()]))

    @property
    def fallen(self) -> int:
        """Seeds whose end is below the maximum, while the proxy is above what it was there."""
        return sum(ascent.fall is not None and ascent.fall.shown for ascent in self.ascents.values())

    def over_seeds(self, what: Any) -> Summary:
        """Of a number of each ascent."""
        return summarize([float(what(ascent)) for ascent in self.ascents.values()])


@dataclass(frozen=True)
class Climbs:
    """Of every algorithm, and of best-of-n by every proxy."""

    trained: list[Climb]
    best_of_n: list[Climb]

    @property
    def all(self) -> list[Climb]:
        return [*self.trained, *self.best_of_n]


def measure(runs: Sequence[Run]) -> Climbs | None:
    """None where not every run has a gold reward that is another than its reward, and evaluations on the way."""
    found = {run.folder: _ascent(run) for run in runs}
    if not found or None in found.values() or all(_same(run) for run in runs):
        return None
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    trained = [
        Climb(label, Law.rl, {run.seed: way for run in own if (way := found[run.folder])}) for label, own in groups.items()
    ]
    return Climbs(trained, _best_of_n(groups))


def _ascent(run: Run) -> Ascent | None:
    rows = [e for e in run.evaluations if all(name in e for name in ("kl", "gold", "reward"))]
    by_step = _completions(run)
    if len(rows) < LEAST or not by_step:
        return None
    rows = rows[: _kept(run, rows) + 1]
    by_step = by_step[: len(rows)]
    gold, proxy = (np.array([[row[name] for row in step] for step in by_step]) for name in ("gold", "reward"))
    scale = _Scale.of(run, gold[0], proxy[0])
    # sampled KL of a policy that has hardly moved may fall below 0
    d = np.sqrt([max(e["kl"], 0.0) for e in rows])
    means = [np.array([e[name] for e in rows]) for name in ("gold", "reward")]
    return Ascent(d, means[0], scale.of_proxy(means[1]), scale.start, fall(gold, scale.of_proxy(proxy)))


def _kept(run: Run, rows: Sequence[dict[str, float]]) -> int:
    """The evaluation of the weights that the run left: not the last one where it stopped early."""
    same = [i for i, e in enumerate(rows) if all(e[name] == run.score(name) for name in ("kl", "gold", "reward"))]
    return same[-1] if same else len(rows) - 1


@dataclass(frozen=True)
class _Scale:
    """What the reference's completions score."""

    start: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, run: Run, gold: np.ndarray, proxy: np.ndarray) -> _Scale:
        """Of its samples, where the run kept them, else of the first evaluation."""
        tables = [reference_samples.read([run.folder], judge) for judge in ("gold", "reward")]
        gold, proxy = (own if table is None else table for table, own in zip(tables, (gold, proxy), strict=True))
        return cls(float(gold.mean()), float(proxy.mean()), deviation(proxy).item() or 1.0)

    def of_proxy(self, values: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (values - self.mean) / self.deviation
        return scaled


def _completions(run: Run) -> list[list[dict[str, Any]]]:
    """By evaluation, the completions of the prompts that both judges scored at every one."""
    steps: dict[int, dict[Any, dict[str, Any]]] = {}
    for row in rows(run.folder / COMPLETIONS):
        if row.get("gold") is not None and row.get("reward") is not None:
            steps.setdefault(row["step"], {})[row["row"]] = row
    common = set.intersection(*(set(own) for own in steps.values())) if steps else set()
    return [[own[number] for number in sorted(common)] for own in steps.values()] if common else []


def _same(run: Run) -> bool:
    """Whether what is climbed is the gold reward itself."""
    return all(e["gold"] == e["reward"] for e in run.evaluations if "gold" in e and "reward" in e)


def _best_of_n(groups: dict[str, list[Run]]) -> list[Climb]:
    """By every proxy that a label's runs kept samples of; labels whose runs have the same proxies count once."""
    found: list[Climb] = []
    seen: list[dict[int, Any]] = []
    for label, runs in groups.items():
        proxies = {run.seed: run.config.get("reward") for run in runs}
        ways = {run.seed: way for run in runs if (way := _chosen(run))}
        if ways and proxies not in seen:
            seen.append(proxies)
            found.append(Climb(f"best of n by {label}'s", Law.best_of_n, ways))
    return found


def _chosen(run: Run) -> Ascent | None:
    """Of the reference's samples, those that the proxy chooses."""
    gold, proxy = (reference_samples.read([run.folder], judge) for judge in ("gold", "reward"))
    if gold is None or proxy is None or gold.shape != proxy.shape:
        return None
    scale = _Scale(float(gold.mean()), float(proxy.mean()), deviation(proxy).item() or 1.0)
    curves = [best_of_n_estimate(values, BEST_OF, chosen_by=proxy) for values in (gold, proxy)]
    if len(curves[0]) < LEAST:
        return None
    d = np.array([sqrt(point["kl"]) for point in curves[0]])
    rewards = [np.array([point["reward"] for point in curve]) for curve in curves]
    return Ascent(d, rewards[0], scale.of_proxy(rewards[1]), scale.start)
