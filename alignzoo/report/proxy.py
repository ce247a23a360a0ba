"""Runs that climbed a proxy of the gold reward: how both went with the distance from the reference, and the law they follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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

    @property
    def points(self) -> list[tuple[float, float]]:
        """(d, gold above the reference's)."""
        return list(zip(self.d.tolist(), (self.gold - self.start).tolist(), strict=True))


@dataclass(frozen=True)
class Climb:
    """The ways of one label's runs, by seed."""

    label: str
    law: Law
    ascents: dict[int, Ascent]

    @cached_property
    def fits(self) -> dict[int, Fit]:
        fits = {seed: fit(self.law, ascent.points) for seed, ascent in self.ascents.items()}
        return {seed: fitted for seed, fitted in fits.items() if fitted is not None}

    @cached_property
    def pooled(self) -> Fit | None:
        """One fit to all seeds' points."""
        return fit(self.law, [point for ascent in self.ascents.values() for point in ascent.points])

    @property
    def start(self) -> float:
        return float(np.mean([ascent.start for ascent in self.ascents.values()]))

    @property
    def fallen(self) -> int:
        """Seeds whose end is below the maximum, while the proxy is above what it was there."""
        return sum(ascent.fall is not None and ascent.fall.shown for ascent in self.ascents.values())

    @property
    def loss(self) -> Summary:
        """Of how far gold ends below its highest."""
        return self.over_seeds(lambda ascent: ascent.gold.max() - ascent.gold[-1])

    def over_seeds(self, measure: Callable[[Ascent], float]) -> Summary:
        return summarize([float(measure(ascent)) for ascent in self.ascents.values()])


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
    trained: dict[str, dict[int, Ascent]] = {}
    best_of_n: dict[str, dict[int, Ascent]] = {}
    proxies: dict[str, dict[int, object]] = {}
    for run in runs:
        ascent = _ascent(run)
        if ascent is None:
            return None
        trained.setdefault(run.label, {})[run.seed] = ascent
        proxies.setdefault(run.label, {})[run.seed] = run.config.get("reward")
        if chosen := _best_of_n(run):
            best_of_n.setdefault(run.label, {})[run.seed] = chosen
    if all(e["gold"] == e["reward"] for run in runs for e in run.evaluations if "gold" in e and "reward" in e):
        return None  # what is climbed is the gold reward itself
    labels = list(best_of_n)
    # labels whose runs have the same proxies count once
    first = [label for i, label in enumerate(labels) if proxies[label] not in [proxies[earlier] for earlier in labels[:i]]]
    return Climbs(
        [Climb(label, Law.rl, ascents) for label, ascents in trained.items()],
        [Climb(f"best of n by {label}'s", Law.best_of_n, best_of_n[label]) for label in first],
    )


def _ascent(run: Run) -> Ascent | None:
    evaluations = [e for e in run.evaluations if all(name in e for name in ("kl", "gold", "reward"))]
    by_step = _completions(run)
    if len(evaluations) < LEAST or not by_step:
        return None
    # what the run left are not the last evaluation's weights where it stopped early
    left = [i for i, e in enumerate(evaluations) if all(e[name] == run.score(name) for name in ("kl", "gold", "reward"))]
    evaluations = evaluations[: left[-1] + 1] if left else evaluations
    steps = by_step[: len(evaluations)]
    gold, proxy = (np.array([[row[name] for row in step] for step in steps]) for name in ("gold", "reward"))
    samples = [reference_samples.read([run.folder], judge) for judge in ("gold", "reward")]
    of_reference = [first if drawn is None else drawn for first, drawn in zip((gold[0], proxy[0]), samples, strict=True)]
    # sampled KL of a policy that has hardly moved may fall below 0
    d = np.sqrt([max(e["kl"], 0.0) for e in evaluations])
    golds, proxies = (np.array([e[name] for e in evaluations]) for name in ("gold", "reward"))
    start, fallen = float(of_reference[0].mean()), fall(gold, _scaled(proxy, of_reference[1]))
    return Ascent(d, golds, _scaled(proxies, of_reference[1]), start, fallen)


def _scaled(proxy: np.ndarray, of_reference: np.ndarray) -> np.ndarray:
    """In deviations of what the reference's completions score, above their mean."""
    scaled: np.ndarray = (proxy - float(of_reference.mean())) / (deviation(of_reference).item() or 1.0)
    return scaled


def _completions(run: Run) -> list[list[Mapping[str, float]]]:
    """By evaluation, the completions of the prompts that both judges scored at every one."""
    steps: dict[int, dict[int, Mapping[str, float]]] = {}
    for row in rows(run.folder / COMPLETIONS):
        if row.get("gold") is not None and row.get("reward") is not None:
            steps.setdefault(row["step"], {})[row["row"]] = row
    common = sorted(set.intersection(*map(set, steps.values()))) if steps else []
    return [[by_row[number] for number in common] for by_row in steps.values()] if common else []


def _best_of_n(run: Run) -> Ascent | None:
    """Of the reference's samples, those that the proxy chooses."""
    gold, proxy = (reference_samples.read([run.folder], judge) for judge in ("gold", "reward"))
    if gold is None or proxy is None or gold.shape != proxy.shape:
        return None
    curves = [best_of_n_estimate(scores, BEST_OF, chosen_by=proxy) for scores in (gold, proxy)]
    if len(curves[0]) < LEAST:
        return None
    golds, proxies = (np.array([point["reward"] for point in curve]) for curve in curves)
    d = np.sqrt([point["kl"] for point in curves[0]])
    return Ascent(d, golds, _scaled(proxies, proxy), float(gold.mean()))
