"""Reward against KL to the reference: what each algorithm reaches for what it moves, and what is known to be reachable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, isfinite, log10

from alignzoo.common import reference_samples
from alignzoo.common.folder import FRONTIER, read
from alignzoo.report.prose import TextTable, with_interval
from alignzoo.runs.results import Run
from alignzoo.statistics.frontier import Point, area, best_of_n_estimate, envelope, reward_at
from alignzoo.statistics.intervals import summarize


@dataclass(frozen=True)
class Bounds:
    """What needs no training: the reference's reward, best-of-n, and the optimum where it is computed. `exact` says whether
    the KL of best-of-n is its own, or an upper bound.
    """

    reference: float | None
    best_of_n: list[Point]
    optimum: list[Point]
    exact: bool

    @property
    def start(self) -> list[Point]:
        """The reference as a point; none where its reward isn't known."""
        return [] if self.reference is None else [(0.0, self.reference)]


@dataclass(frozen=True)
class Line:
    """An algorithm's runs: where they end, and by seed all points of its frontier, the reward at the common KL and the area up
    to it.
    """

    label: str
    paths: list[list[Point]]
    points: dict[int, list[Point]]
    rewards: dict[int, float]
    areas: dict[int, float]

    @property
    def ends(self) -> list[Point]:
        return [path[-1] for path in self.paths]

    @cached_property
    def hull(self) -> list[Point]:
        """The upper envelope over all seeds."""
        return envelope([point for points in self.points.values() for point in points])


@dataclass(frozen=True)
class Frontier:
    """The lines of all algorithms, measured at the KL `at`, which all of them reach; `names` are those of KL and reward."""

    names: tuple[str, str]
    lines: list[Line]
    bounds: Bounds
    at: float
    swept: bool


def measure(runs: Sequence[Run], swept: bool) -> Frontier | None:
    """A line a label, or with a sweep one an algorithm. The frontier is made of where runs end; without a sweep also of where
    they were on the way, since each evaluation is of a policy that could have been kept. None where no KL was measured.
    """
    names = _names(runs)
    reachable = bounds(runs, names[1])
    groups: dict[str, list[tuple[int, list[Point]]]] = {}
    for run in runs:
        path = _path(run, names)
        groups.setdefault(run.algorithm if swept else run.label, []).extend([(run.seed, path)] if path else [])
    if not groups or not all(groups.values()):
        return None
    at = _rounded_down(min(max(kl for _, path in paths for kl, _ in path) for paths in groups.values()))
    return Frontier(names, [_line(label, paths, reachable, at, swept) for label, paths in groups.items()], reachable, at, swept)


def _line(label: str, paths: Sequence[tuple[int, list[Point]]], reachable: Bounds, at: float, swept: bool) -> Line:
    points: dict[int, list[Point]] = {}
    for seed, path in paths:
        points.setdefault(seed, [*reachable.start]).extend(path[-1:] if swept else path)
    rewards = {seed: reward for seed, curve in points.items() if (reward := reward_at(curve, at)) is not None}
    areas = {seed: under for seed, curve in points.items() if reachable.start and (under := area(curve, at)) is not None}
    return Line(label, [path for _, path in paths], points, rewards, areas)


def _names(runs: Sequence[Run]) -> tuple[str, str]:
    """The names of KL and reward: the exact ones where every run has them, else the gold reward where every run has it."""
    for names in (("exact_kl", "expected_reward"), ("kl", "gold")):
        if all(name in run.summary["metrics"] for run in runs for name in names):
            return names
    return "kl", "reward"


def _path(run: Run, names: tuple[str, str]) -> list[Point]:
    """The evaluations on the way, and the last."""
    points = [(e[names[0]], e[names[1]]) for e in run.evaluations if names[0] in e and names[1] in e]
    kl, reward = run.score(names[0]), run.score(names[1])
    if kl is not None and reward is not None and (kl, reward) not in points[-1:]:
        points.append((kl, reward))
    # sampled KL of a policy that has hardly moved may fall below 0
    return [(max(x, 0.0), y) for x, y in points if isfinite(x) and isfinite(y)]


def _rounded_down(kl: float) -> float:
    """To two digits, so that the number can be read and is still reached."""
    if kl <= 0:
        return 0.0
    unit = 10.0 ** (floor(log10(kl)) - 1)
    return round(floor(kl / unit + 1e-9) * unit, 12)


def bounds(runs: Sequence[Run], reward: str = "reward") -> Bounds:
    """From what runs leave in their folders: computed where the task can be (frontier.json), else from what the reference's
    samples score by that `reward`.
    """
    files = [path for run in runs if (path := run.folder / FRONTIER).is_file()]
    if computed := next((content for path in files if (content := read(path))), None):
        best_of_n, optimum = (
            [(point["kl"], point["reward"]) for point in computed.get(name, [])] for name in ("best_of_n", "optimum")
        )
        return Bounds(computed.get("reference"), best_of_n, sorted(optimum), bool(computed.get("exact", True)))
    # runs of one seed have sampled the same
    one_a_seed = list({run.seed: run for run in runs}.values())
    table = reference_samples.read([run.folder for run in one_a_seed], "gold" if reward == "gold" else "reward")
    curve = [] if table is None else [(p["kl"], p["reward"]) for p in best_of_n_estimate(table)]
    return Bounds(_reference(runs, one_a_seed, curve, reward), curve, [], False)


def _reference(runs: Sequence[Run], one_a_seed: Sequence[Run], curve: Sequence[Point], reward: str) -> float | None:
    """The reference's reward: computed, else of the samples, else of the evaluations before training."""
    for run in runs:
        if "J_reference" in run.summary["metrics"]:
            return float(run.summary["metrics"]["J_reference"])
    if curve:
        return curve[0][1]
    before = [e[reward] for run in one_a_seed for e in run.evaluations[:1] if reward in e and e.get("cost/steps") == 0]
    return sum(before) / len(before) if before else None


def caption(f: Frontier) -> str:
    lines = [text for text, points in (("the optimum", f.bounds.optimum), ("best of n", f.bounds.best_of_n)) if points]
    grey = f" Grey: {' and '.join(lines)}." if lines else ""
    return f"Points: where runs end. Thin: how they got there. Lines: the upper envelope.{grey} Dotted: the KL of the table."


def table(f: Frontier) -> TextTable:
    """The frontier in numbers: one row an algorithm, then best-of-n and the optimum, where something is known up to that KL."""
    kl, rows = f"{f.at:g}", []
    for line in f.lines:
        ends = [f"{sum(values) / len(values):.4g}" for values in zip(*line.ends, strict=True)]
        measures = [summarize(list(by_seed.values())) if by_seed else None for by_seed in (line.rewards, line.areas)]
        rows.append([line.label, *ends, *("" if s is None else with_interval("reward", s.mean, s.interval) for s in measures)])
    upper = "" if f.bounds.exact else " (its KL: an upper bound)"
    for name, points in ((f"best of n{upper}", f.bounds.best_of_n), ("optimum", f.bounds.optimum)):
        if points:
            curve = [*f.bounds.start, *points]
            values = ["" if value is None else f"{value:.4g}" for value in (reward_at(curve, f.at), area(curve, f.at))]
            rows.append([name, "", "", *values])
    columns = ["algorithm", "ends at KL", "ends at reward", f"reward at KL {kl} (95 % interval)", f"area up to KL {kl}"]
    return TextTable(columns, rows)
