"""Reward against KL to the reference: what each algorithm reaches for what it moves, and what is known to be reachable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, isfinite, log10
from pathlib import Path
from typing import Any

from alignzoo.common import reference_samples
from alignzoo.common.folder import FRONTIER, read
from alignzoo.runs.results import Run
from alignzoo.statistics.frontier import Point, area, best_of_n_estimate, envelope, reward_at
from alignzoo.statistics.intervals import Summary, summarize


@dataclass(frozen=True)
class Known:
    """What needs no training: the reference's reward, best-of-n, and the optimum where it is computed. `exact` says whether
    the KL of best-of-n is its own, or an upper bound.
    """

    reference: float | None
    best_of_n: list[Point]
    optimum: list[Point]
    exact: bool


@dataclass(frozen=True)
class Line:
    """An algorithm's runs: where they end, and by seed all points of its frontier, the reward at the common KL and the area up
    to it.
    """

    label: str
    paths: list[list[Point]]
    ends: list[Point]
    points: dict[int, list[Point]]
    rewards: dict[int, float]
    areas: dict[int, float]

    @cached_property
    def hull(self) -> list[Point]:
        """The upper envelope over all seeds."""
        return envelope([point for points in self.points.values() for point in points])


@dataclass(frozen=True)
class Frontier:
    """The lines of all algorithms, measured at the KL `at`, which all of them reach; `names` are those of KL and reward."""

    names: tuple[str, str]
    lines: list[Line]
    known: Known
    at: float
    swept: bool


def measure(runs: Sequence[Run], swept: bool) -> Frontier | None:
    """A line a label, or with a sweep one an algorithm. The frontier is made of where runs end; without a sweep also of where
    they were on the way, since each evaluation is of a policy that could have been kept. None where no KL was measured.
    """
    names = _names(runs)
    what = known(runs, names[1])
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.algorithm if swept else run.label, []).append(run)
    paths = {label: [(run.seed, path) for run in group if (path := _path(run, names))] for label, group in groups.items()}
    if not paths or not all(paths.values()):
        return None
    at = _rounded_down(min(max(kl for _, path in own for kl, _ in path) for own in paths.values()))
    return Frontier(names, [_line(label, own, what, at, swept) for label, own in paths.items()], what, at, swept)


def _line(label: str, paths: Sequence[tuple[int, list[Point]]], what: Known, at: float, swept: bool) -> Line:
    start = [] if what.reference is None else [(0.0, what.reference)]
    points: dict[int, list[Point]] = {}
    for seed, path in paths:
        points.setdefault(seed, [*start]).extend(path[-1:] if swept else path)
    rewards = {seed: reward_at(own, at) for seed, own in points.items()}
    areas = {seed: area(own, at) for seed, own in points.items()} if start else {}
    return Line(
        label,
        [path for _, path in paths],
        [path[-1] for _, path in paths],
        points,
        {seed: value for seed, value in rewards.items() if value is not None},
        {seed: value for seed, value in areas.items() if value is not None},
    )


def summary(values: dict[int, float]) -> Summary | None:
    return summarize(list(values.values())) if values else None


def _names(runs: Sequence[Run]) -> tuple[str, str]:
    """The names of KL and reward: the exact ones where every run has them, else the gold reward where every run has it."""
    for names in (("exact_kl", "expected_reward"), ("kl", "gold")):
        if all(name in run.summary["metrics"] for run in runs for name in names):
            return names
    return "kl", "reward"


def _path(run: Run, names: tuple[str, str]) -> list[Point]:
    """The evaluations on the way, and the last."""
    found = [(e[names[0]], e[names[1]]) for e in run.evaluations if names[0] in e and names[1] in e]
    kl, reward = run.score(names[0]), run.score(names[1])
    if kl is not None and reward is not None and (kl, reward) not in found[-1:]:
        found.append((kl, reward))
    # sampled KL of a policy that has hardly moved may fall below 0
    return [(max(x, 0.0), y) for x, y in found if isfinite(x) and isfinite(y)]


def _rounded_down(kl: float) -> float:
    """To two digits, so that the number can be read and is still reached."""
    if kl <= 0:
        return 0.0
    unit = 10.0 ** (floor(log10(kl)) - 1)
    return round(floor(kl / unit + 1e-9) * unit, 12)


def known(runs: Sequence[Run], reward: str = "reward") -> Known:
    """From what runs leave in their folders: computed where the task can be (frontier.json), else from what the reference's
    samples score by that `reward`.
    """
    computed = next((read for run in runs if (read := _read(run.folder / FRONTIER))), None)
    if computed:
        return Known(
            computed.get("reference"),
            [(p["kl"], p["reward"]) for p in computed.get("best_of_n", [])],
            sorted((p["kl"], p["reward"]) for p in computed.get("optimum", [])),
            bool(computed.get("exact", True)),
        )
    # runs of one seed have sampled the same
    one_a_seed = list({run.seed: run for run in runs}.values())
    table = reference_samples.read([run.folder for run in one_a_seed], "gold" if reward == "gold" else "reward")
    curve = [] if table is None else [(p["kl"], p["reward"]) for p in best_of_n_estimate(table)]
    return Known(_start(runs, one_a_seed, curve, reward), curve, [], False)


def _start(runs: Sequence[Run], one_a_seed: Sequence[Run], curve: Sequence[Point], reward: str) -> float | None:
    """The reference's reward: computed, else of the samples, else of the evaluations before training."""
    for run in runs:
        if "J_reference" in run.summary["metrics"]:
            return float(run.summary["metrics"]["J_reference"])
    if curve:
        return curve[0][1]
    before = [e[reward] for run in one_a_seed for e in run.evaluations[:1] if reward in e and e.get("cost/steps") == 0]
    return sum(before) / len(before) if before else None


def _read(path: Path) -> dict[str, Any]:
    return dict(read(path)) if path.is_file() else {}
