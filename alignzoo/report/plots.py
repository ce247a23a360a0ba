"""The report's plots, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.common.metric_table import COST_TITLES, bounds, title
from alignzoo.report.analysis import Analysis
from alignzoo.report.figures import GREY, INK, Style, count_ticks, draw, legend_above
from alignzoo.report.kl_frontier import Frontier
from alignzoo.report.prose import bare, short
from alignzoo.statistics.frontier import Point
from alignzoo.statistics.intervals import Ends, mean_interval, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scores(a: Analysis, style: Style) -> Figure:
    """Each seed a point, mean and interval beside it and in words; the first on top."""
    from matplotlib.transforms import blended_transform_factory

    def paint(axes: Axes) -> None:
        scale = _scale(a.metric)
        beside = blended_transform_factory(axes.transAxes, axes.transData)
        for row, entry in enumerate(reversed(a.entries)):
            colour, s = style[entry.label][0], entry.summary
            values = [scale * value for value in entry.scores.values()]
            axes.plot(values, [row - 0.2] * len(values), "o", color=colour, alpha=0.35, markersize=5.5, markeredgewidth=0)
            words = bare(a.metric, s.mean)
            if s.interval is not None:
                axes.plot([scale * end for end in s.interval], [row + 0.04] * 2, color=colour, linewidth=3)
                words += f"  ({bare(a.metric, s.interval[0])} to {bare(a.metric, s.interval[1])})"
            axes.plot([scale * s.mean], [row + 0.04], "D", color=colour, markersize=6.5)
            axes.text(0, row + 0.3, entry.label, transform=beside, color=colour, fontweight="bold", va="center")
            axes.text(1, row + 0.3, words, transform=beside, color=INK, ha="right", va="center")
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(a.entries) - 0.42)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(_axis_title(a.metric))
        axes.locator_params(axis="x", nbins=6)

    return draw(0.55 + 0.52 * len(a.entries), paint)


def curves(a: Analysis, cost: str, metric: str, style: Style) -> Figure | None:
    """The mean over seeds and its interval against what was spent; None where no algorithm has two evaluations."""
    by_label = {entry.label: _band([run.curve(cost, metric) for run in entry.runs], bounds(metric)) for entry in a.entries}
    bands = {label: band for label, band in by_label.items() if len(band[0])}
    if not any(len(x) > 1 for x, *_ in bands.values()):
        return None

    def paint(axes: Axes) -> None:
        scale = _scale(metric)
        for label, (x, mean, low, high) in bands.items():
            colour, marker = style[label]
            axes.plot(x, scale * mean, color=colour, label=label, marker=marker, markersize=3.5)
            axes.fill_between(x, scale * low, scale * high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlim(left=0)
        means, low, high = (scale * np.concatenate([band[i] for band in bands.values()]) for i in (1, 2, 3))
        _stretch(axes, means) if metric == "gap_closed" else _focus(axes, means, float(low.min()), float(high.max()))
        axes.set_xlabel(COST_TITLES[cost])
        axes.set_ylabel(_axis_title(metric))
        count_ticks(axes)
        legend_above(axes, list(bands))

    return draw(2.8, paint)


def _focus(axes: Axes, means: np.ndarray, lowest: float, highest: float) -> None:
    """Bands at few seeds may be as wide as the world: the means decide what is shown."""
    low, high = float(means.min()), float(means.max())
    room = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(max(low - room, lowest - 0.1 * room), min(high + room, highest + 0.1 * room))


def _stretch(axes: Axes, means: np.ndarray) -> None:
    """Percent of the gap, by the logarithm of what is left of it: 90 to 99 is as long as 0 to 90."""
    left = 0.3  # beyond 100 - this, the axis ends
    low, high = max(float(means.min()), -50.0), min(float(means.max()), 99.5)

    def place(y: Any) -> Any:
        return -np.log10(np.maximum(100.0 - np.asarray(y, dtype=np.float64), left))

    axes.set_yscale("function", functions=(place, lambda x: 100.0 - 10.0 ** (-np.asarray(x))))
    room = 0.08 * (place(high) - place(low)) or 0.05
    bottom, top = 100 - 10 ** -(place(low) - room), min(100 - 10 ** -(place(high) + room), 100 - left)
    axes.set_ylim(float(bottom), float(top))
    ticks = [t for t in (-50, 0, 20, 40, 60, 70, 80, 90, 95, 98, 99, 99.5) if bottom <= t <= top]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()


def _band(
    paths: Sequence[tuple[Sequence[float], Sequence[float]]], limits: Ends
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, mean, low, high at the evaluations that all runs have, in order; x is the mean of theirs."""
    count = min((len(x) for x, _ in paths), default=0)
    x, y = (np.array([path[i][:count] for path in paths], dtype=np.float64).reshape(len(paths), count) for i in (0, 1))
    ends = [within(mean_interval(column), limits) if len(column) > 1 else (column[0], column[0]) for column in y.T]
    return x.mean(0), y.mean(0), np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def frontier(f: Frontier, style: Style) -> Figure:
    """Trajectories, end points and envelopes of algorithms, with best-of-n and the optimum where they are known."""
    most = 1.15 * max(kl for line in f.lines for path in line.paths for kl, _ in path) or 1.0
    start = f.bounds.reference
    upper = "" if f.bounds.exact else " (KL: upper bound)"
    beside = ((f.bounds.optimum, "optimum", "-"), (f.bounds.best_of_n, f"best of n{upper}", "--"))

    def paint(axes: Axes) -> None:
        if f.at:
            axes.axvline(f.at, color="#c5c9d0", linewidth=1, linestyle=":")
        for points, text, dashes in beside:
            shown = [point for point in points if point[0] <= 1.3 * most]
            if shown:
                axes.plot(*_xy(sorted({*f.bounds.start, *shown})), dashes, color=GREY, linewidth=1.3, label=text)
        for line in f.lines:
            colour, marker = style[line.label]
            broken = [point for path in line.paths for point in [*path, (np.nan, np.nan)]]
            axes.plot(*_xy(broken), color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(*_xy(line.hull), color=colour, linewidth=1.4)
            axes.plot(*_xy(line.ends), marker, color=colour, markersize=4.5, alpha=0.85, label=line.label, markeredgewidth=0)
        if start is not None:
            axes.plot([0], [start], "o", color=INK, markersize=5)
            axes.annotate("reference", (0, start), (6, -2), textcoords="offset points", color=INK, fontsize=9, va="top")
        axes.set_xlabel("KL to the reference" if f.names[0] == "exact_kl" else "KL to the reference (sampled)")
        axes.set_ylabel("gold reward" if f.names[1] == "gold" else "reward")
        axes.set_xlim(-0.02 * most, most)
        axes.margins(y=0.08)
        axes.legend(loc="lower right")

    return draw(3.4, paint)


def conditions_by_setting(analyses: Sequence[Analysis], style: Style) -> list[tuple[str, Figure]]:
    """For each setting that is varied: the scores over its values, all other settings at those of the first condition."""
    figures = []
    for key in analyses[0].settings:
        base = {k: v for k, v in analyses[0].settings.items() if k != key}
        shown = [a for a in analyses if all(a.settings.get(k) == v for k, v in base.items()) and key in a.settings]
        if len(shown) > 1:
            figures.append((key, _conditions(key, shown, style)))
    return figures


def _conditions(key: str, analyses: Sequence[Analysis], style: Style) -> Figure:
    """Each algorithm's score and its interval over the values of one setting. A logarithmic axis for what grows hundredfold."""
    values = [a.settings[key] for a in analyses]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = [float(value) for value in values] if numbers else [float(i) for i in range(len(values))]
    metric = analyses[0].metric
    labels = sorted({entry.label for a in analyses for entry in a.entries})

    def paint(axes: Axes) -> None:
        for label in labels:
            summaries = [(x, entry.summary) for x, a in zip(places, analyses, strict=True) if (entry := a.entry(label))]
            colour, marker = style[label]
            means = [_scale(metric) * s.mean for _, s in summaries]
            axes.plot([x for x, _ in summaries], means, marker=marker, markersize=4.5, color=colour, label=label)
            banded = [(x, s.interval) for x, s in summaries if s.interval is not None]
            low, high = ([_scale(metric) * interval[i] for _, interval in banded] for i in (0, 1))
            axes.fill_between([x for x, _ in banded], low, high, color=colour, alpha=0.18, linewidth=0)
        if numbers and min(places) > 0 and max(places) >= 100 * min(places):
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(places, [short(float(value)) if numbers else str(value) for value in values])
        axes.set_xlabel(analyses[0].setting_title(key).removeprefix("the "))
        axes.set_ylabel(_axis_title(metric))
        legend_above(axes, labels)

    return draw(3.2, paint)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _scale(metric: str) -> float:
    return 100.0 if metric == "gap_closed" else 1.0


def _axis_title(metric: str) -> str:
    return f"{title(metric)}, %" if metric == "gap_closed" else title(metric)
