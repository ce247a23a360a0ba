"""Gold and proxy over sqrt(KL) in numbers and plots."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.report.figures import GREY, INK, Style, draw, legend_above
from alignzoo.report.prose import TextTable, with_interval
from alignzoo.report.proxy import Climb, Climbs
from alignzoo.statistics.intervals import Summary, summarize
from alignzoo.statistics.overoptimisation import Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOLD = "Gold: every evaluation a point; lines: the law fitted."
PROXY = "The proxy on the same way: a line a seed."
ALPHA, BETA = "\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER BETA}"
LAWS = {
    Law.rl: f"d ({ALPHA} \N{MINUS SIGN} {BETA} log d)",
    Law.best_of_n: f"d ({ALPHA} \N{MINUS SIGN} {BETA} d)",
}
POINTS = 200  # of a line


def tables(climbs: Climbs) -> list[TextTable]:
    """Where each way leads, and the law it follows."""
    ways = ["climbed", "KL at the end", "proxy at the end", "gold: highest", "at KL", "gold: end", "loss", "seeds that lose"]
    laws = ["gold fitted", "law", ALPHA, BETA, "most gold at KL", "which is"]
    return [
        TextTable(ways, [_way(climb) for climb in climbs.all], "numbers"),
        TextTable(laws, [_law(climb) for climb in climbs.all if climb.fits], "numbers"),
    ]


def _text(s: Summary) -> str:
    return with_interval("reward", s.mean, s.interval) if s.interval else f"{s.mean:.4g}"


def _way(climb: Climb) -> list[str]:
    return [
        climb.label,
        f"{climb.over_seeds(lambda a: a.d[-1] ** 2).mean:.3g}",
        _text(climb.over_seeds(lambda a: a.proxy[-1])),
        f"{climb.over_seeds(lambda a: a.gold.max()).mean:.4g}",
        f"{climb.over_seeds(lambda a: a.d[a.gold.argmax()] ** 2).mean:.3g}",
        _text(climb.over_seeds(lambda a: a.gold[-1])),
        _text(climb.loss),
        f"{climb.fallen} of {len(climb.ascents)}" if climb.law is Law.rl else "",
    ]


def _law(climb: Climb) -> list[str]:
    """Means over seeds, each with its own fit; the maximum is that of all points' fit."""
    alpha, beta = (summarize([getattr(fit, name) for fit in climb.fits.values()]) for name in ("alpha", "beta"))
    furthest = max(float(ascent.d.max()) for ascent in climb.ascents.values())
    peak = climb.pooled.peak if climb.pooled else inf
    most, gold = f"beyond {furthest**2:.3g}", ""
    if climb.pooled and peak <= furthest:
        most, gold = f"{peak**2:.3g}", f"{climb.start + float(climb.pooled(np.array([peak]))[0]):.4g}"
    return [climb.label, LAWS[climb.law], _text(alpha), _text(beta), most, gold]


def gold(climbs: Climbs, style: Style) -> Figure:
    """Every evaluation of every seed, and the law fitted to them."""

    def paint(axes: Axes) -> None:
        for climb in climbs.all:
            colour, marker, line = _look(climb, style)
            d, values = (np.concatenate([getattr(a, name) for a in climb.ascents.values()]) for name in ("d", "gold"))
            axes.plot(d, values, marker, color=colour, markersize=3.5, alpha=0.5, markeredgewidth=0)
            if climb.pooled:
                shown = np.linspace(0, d.max(), POINTS)
                axes.plot(shown, climb.start + climb.pooled(shown), line, color=colour, linewidth=1.6, label=climb.label)
        axes.axhline(climbs.trained[0].start, color=INK, linewidth=0.8, linestyle=":")
        _finish(axes, "gold reward", climbs.all)

    return draw(3.4, paint)


def proxy(climbs: Climbs, style: Style) -> Figure:
    """Every seed's way."""

    def paint(axes: Axes) -> None:
        for climb in climbs.all:
            colour, marker, line = _look(climb, style)
            for i, ascent in enumerate(climb.ascents.values()):
                name = None if i else climb.label
                axes.plot(ascent.d, ascent.proxy, line, color=colour, marker=marker, markersize=3, linewidth=1, label=name)
        _finish(axes, "proxy, standard deviations", climbs.all)

    return draw(3.4, paint)


def _look(climb: Climb, style: Style) -> tuple[str, str, str]:
    """Colour, marker, line."""
    return (*style[climb.label], "-") if climb.law is Law.rl else (GREY, ".", "--")


def _finish(axes: Axes, title: str, climbs: Sequence[Climb]) -> None:
    axes.set_xlabel("d, the square root of the KL to the reference")
    axes.set_ylabel(title)
    axes.set_xlim(left=0)
    axes.margins(y=0.08)
    legend_above(axes, [climb.label for climb in climbs])
