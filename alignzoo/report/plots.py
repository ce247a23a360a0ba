"""The report's plots, as matplotlib figures: small, legible on a phone, with one colour and marker an algorithm throughout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.evaluation.comparison import performance_profile
from alignzoo.evaluation.frontier import Point, envelope
from alignzoo.evaluation.intervals import mean_interval
from alignzoo.evaluation.results import Run
from alignzoo.report.analysis import Analysis, points, reference_reward
from alignzoo.report.answer import COST_TITLES, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 5.2  # inches: 374 points, about a phone's width
STYLE: Any = {
    "font.size": 10, "font.family": "sans-serif", "legend.fontsize": 9, "legend.frameon": False, "lines.linewidth": 1.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8a8f98", "axes.labelcolor": "#333a44",
    "xtick.color": "#555c66", "ytick.color": "#555c66", "axes.grid": True, "grid.color": "#e8eaee", "axes.axisbelow": True,
    "svg.fonttype": "none",
}  # fmt: skip
Style = Mapping[str, tuple[str, str]]  # label: colour, marker


def styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker each, by name, so that they don't change with the ranking."""
    ordered = sorted(labels)
    return {label: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(ordered)}


def draw(height: float, paint: Callable[[Axes], None]) -> Figure:
    """A figure with one pair of axes that `paint` has drawn on."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as New

    with rc_context(STYLE):
        figure = New(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
    return figure


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes `name`.svg and `name`.png, the same for the same figure. Returns the <svg> element, to stand in a page."""
    from matplotlib import rc_context

    with rc_context(STYLE | {"svg.hashsalt": name}):  # ticks take the style when they are drawn
        figure.savefig(folder / f"{name}.svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.set_layout_engine("none")  # laid out already
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    text = (folder / f"{name}.svg").read_text("utf-8")
    # plots share a page, so only ids that are referred to, which the salt makes unlike, may stay
    kept = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in kept else "", text[text.index("<svg") :])
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def scores(a: Analysis, style: Style) -> Figure:
    """Each seed a point, mean and interval beside; the first on top."""

    def paint(axes: Axes) -> None:
        scale = _scale(a.metric)
        for row, entry in enumerate(reversed(a.entries)):
            colour, _ = style[entry.label]
            values = [scale * value for value in entry.scores.values()]
            axes.plot(values, [row - 0.18] * len(values), "o", color=colour, alpha=0.35, markersize=5, markeredgewidth=0)
            if entry.summary.low is not None and entry.summary.high is not None:
                axes.plot([scale * entry.summary.low, scale * entry.summary.high], [row + 0.12] * 2, color=colour, linewidth=3)
            axes.plot([scale * entry.summary.mean], [row + 0.12], "D", color=colour, markersize=7)
        axes.set_yticks(range(len(a.entries)), [entry.label for entry in reversed(a.entries)])
        axes.set_ylim(-0.6, len(a.entries) - 0.4)
        axes.set_xlabel(_axis_title(a.metric))
        axes.grid(visible=False, axis="y")

    return draw(0.8 + 0.42 * len(a.entries), paint)


def profile(a: Analysis, style: Style) -> Figure:
    def paint(axes: Axes) -> None:
        values = [score for entry in a.entries for score in entry.scores.values()]
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or 0.05
        thresholds = np.linspace(low - margin, high + margin, 200)
        for entry in a.entries:
            share = performance_profile(list(entry.scores.values()), thresholds.tolist())
            axes.step(_scale(a.metric) * thresholds, share, where="post", color=style[entry.label][0], label=entry.label)
        axes.set_xlabel(f"{_axis_title(a.metric)}: at least")
        axes.set_ylabel("share of runs")
        axes.set_ylim(-0.02, 1.05)
        _legend(axes)

    return draw(2.9, paint)


def curves(a: Analysis, cost: str, metric: str, style: Style) -> Figure | None:
    """The mean over seeds and its interval against what was spent; None where no algorithm has two evaluations."""
    bands = {entry.label: _band([run.curve(cost, metric) for run in entry.runs]) for entry in a.entries}
    if not any(len(x) > 1 for x, *_ in bands.values()):
        return None

    def paint(axes: Axes) -> None:
        for label, (x, mean, low, high) in bands.items():
            if len(x):
                colour, marker = style[label]
                axes.plot(x, _scale(metric) * mean, color=colour, label=label, marker=marker, markersize=3.5)
                axes.fill_between(x, _scale(metric) * low, _scale(metric) * high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(COST_TITLES[cost])
        axes.set_ylabel(_axis_title(metric))
        _legend(axes)

    return draw(2.9, paint)


def _band(found: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, mean, low, high at the evaluations that all runs have, in order; x is the mean of theirs."""
    count = min((len(x) for x, _ in found), default=0)
    x = np.array([cost[:count] for cost, _ in found], dtype=np.float64).reshape(len(found), count)
    y = np.array([scores[:count] for _, scores in found], dtype=np.float64).reshape(len(found), count)
    mean = y.mean(0)
    ends = [mean_interval(column) if len(column) > 1 else (column[0], column[0]) for column in y.T]
    return x.mean(0), mean, np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def frontier(runs: Sequence[Run], names: tuple[str, str], known: Mapping[str, Any], style: Style) -> Figure | None:
    """Trajectories, end points and envelopes of algorithms, with best-of-n and the optimum where they are known."""
    families = {name: [run for run in runs if run.algorithm == name] for name in dict.fromkeys(run.algorithm for run in runs)}
    ends = {name: points(family) for name, family in families.items()}
    if not any(ends.values()):
        return None
    start = known.get("reference", reference_reward(runs))
    most = 1.25 * max(kl for found in ends.values() for kl, _ in found)

    def paint(axes: Axes) -> None:
        _known_lines(axes, known, most)
        for name, family in families.items():
            colour, marker = style[name]
            for run in family:
                axes.plot(*_trajectory(run, names), color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(*_xy(ends[name]), marker, color=colour, markersize=5, alpha=0.8, label=name)
            hull = envelope([*([(0.0, start)] if start is not None else []), *ends[name]])
            axes.plot(*_xy(hull), color=colour, linewidth=1.4)
        if start is not None:
            axes.plot([0], [start], "o", color="#333a44", markersize=5)
        axes.set_xlabel("KL to the reference" if names[0] == "exact_kl" else "KL to the reference (sampled)")
        axes.set_ylabel("reward")
        axes.set_xlim(min(0.0, *(kl for found in ends.values() for kl, _ in found)) - 0.02 * most, most)
        axes.legend(loc="lower right")

    return draw(3.6, paint)


def _known_lines(axes: Axes, known: Mapping[str, Any], most: float) -> None:
    for key, text, line in (("optimum", "optimum", "-"), ("best_of_n", "best of n", "--")):
        found = [(p["kl"], p["reward"]) for p in known.get(key, []) if p["kl"] <= 1.5 * most]
        if found:
            bound = "" if key == "optimum" or known.get("exact") else " (bound on KL)"
            axes.plot(*_xy(sorted(found)), line, color="#6b7280", linewidth=1.3, label=text + bound)


def _trajectory(run: Run, names: tuple[str, str]) -> tuple[list[float], list[float]]:
    return _xy([(e[names[0]], e[names[1]]) for e in run.evaluations if names[0] in e and names[1] in e])


def conditions(analyses: Sequence[Analysis], style: Style) -> Figure | None:
    """Each algorithm's score over the conditions of a study; None for a single one."""
    if len(analyses) < 2:
        return None

    def paint(axes: Axes) -> None:
        for label, (colour, marker) in style.items():
            found = [(i, e.summary) for i, a in enumerate(analyses) for e in a.entries if e.label == label]
            if not found:
                continue
            scale = _scale(analyses[0].metric)
            axes.plot([i for i, _ in found], [scale * s.mean for _, s in found], marker=marker, color=colour, label=label)
            for i, s in found:
                if s.low is not None and s.high is not None:
                    axes.plot([i, i], [scale * s.low, scale * s.high], color=colour, linewidth=1)
        shown = [a.condition.rsplit("=", 1)[-1] for a in analyses]
        axes.set_xticks(range(len(analyses)), shown)
        axes.set_xlabel(analyses[0].condition.rsplit("=", 1)[0])
        axes.set_ylabel(_axis_title(analyses[0].metric))
        _legend(axes)

    return draw(2.9, paint)


def _xy(found: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in found], [y for _, y in found]


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handlelength=1.4, columnspacing=1.2)


def _scale(metric: str) -> float:
    return 100.0 if metric == "gap_closed" else 1.0


def _axis_title(metric: str) -> str:
    return f"{title(metric)}, %" if metric == "gap_closed" else title(metric)
