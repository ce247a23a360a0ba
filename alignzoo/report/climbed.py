"""Gold and proxy over sqrt(KL) in numbers, words and plots."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.report.answer import listed
from alignzoo.report.figures import GREY, INK, Style, draw
from alignzoo.report.proxy import Climb, Climbs
from alignzoo.report.sections import Table, with_interval
from alignzoo.statistics.comparison import Comparison
from alignzoo.statistics.intervals import Summary, summarize
from alignzoo.statistics.overoptimisation import Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAWS = {
    Law.rl: "d (\N{GREEK SMALL LETTER ALPHA} \N{MINUS SIGN} \N{GREEK SMALL LETTER BETA} log d)",
    Law.best_of_n: "d (\N{GREEK SMALL LETTER ALPHA} \N{MINUS SIGN} \N{GREEK SMALL LETTER BETA} d)",
}
POINTS = 200  # of a line


def tables(found: Climbs) -> list[Table]:
    """Where each way leads, and the law it follows."""
    return [
        Table(
            ["climbed", "KL at the end", "proxy at the end", "gold: highest", "at KL", "gold: end", "loss", "seeds that lose"],
            [_way(climb) for climb in found.all],
        ),
        Table(
            [
                "gold fitted",
                "law",
                "\N{GREEK SMALL LETTER ALPHA}",
                "\N{GREEK SMALL LETTER BETA}",
                "most gold at KL",
                "which is",
            ],
            [_law(climb) for climb in found.all if climb.fits],
        ),
    ]


def _way(climb: Climb) -> list[str]:
    def text(s: Summary) -> str:
        return with_interval("reward", s.mean, s.interval) if s.interval else f"{s.mean:.4g}"

    best = climb.over_seeds(lambda a: a.gold.max())
    trained = climb.law is Law.rl
    return [
        climb.label,
        f"{climb.over_seeds(lambda a: a.d[-1] ** 2).mean:.3g}",
        text(climb.over_seeds(lambda a: a.proxy[-1])),
        f"{best.mean:.4g}",
        f"{climb.over_seeds(lambda a: a.d[a.gold.argmax()] ** 2).mean:.3g}",
        text(climb.over_seeds(lambda a: a.gold[-1])),
        text(climb.over_seeds(lambda a: a.gold.max() - a.gold[-1])),
        f"{climb.fallen} of {len(climb.ascents)}" if trained else "",
    ]


def _law(climb: Climb) -> list[str]:
    """Means over seeds, each with its own fit; the maximum is that of all points' fit."""

    def text(values: Sequence[float]) -> str:
        s = summarize(values)
        return with_interval("reward", s.mean, s.interval) if s.interval else f"{s.mean:.4g}"

    one, d = climb.pooled, climb.pooled.peak if climb.pooled else inf
    furthest = max(float(ascent.d.max()) for ascent in climb.ascents.values())
    seen = one is not None and d <= furthest
    return [
        climb.label,
        LAWS[climb.law],
        text([fit.alpha for fit in climb.fits.values()]),
        text([fit.beta for fit in climb.fits.values()]),
        f"{d**2:.3g}" if seen else f"beyond {furthest**2:.3g}",
        f"{climb.start + float(one(np.array([d]))[0]):.4g}" if one is not None and seen else "",
    ]


def paragraphs(found: Climbs, comparisons: Sequence[Comparison] = ()) -> list[str]:
    """What came of climbing, what of the `comparisons` of gold, and what table and plots mean."""
    lost = [_lost(climb) for climb in found.trained if climb.fallen]
    whole = [climb.label for climb in found.trained if not climb.fallen]
    if whole:
        lost.append(f"That gold ends below its highest is shown in no seed of {listed(whole)}.")
    return [
        " ".join(lost),
        *(
            [f"Gold at the end, seed by seed, with 95 % intervals: {'; '.join(map(_paired, comparisons))}."]
            if comparisons
            else []
        ),
        "A seed loses where gold at its end is below its highest evaluation by more than the 95 % interval of the difference "
        "on the same prompts, corrected for the highest being chosen among all evaluations, and the proxy above what it was "
        "there, by more than its interval. The proxy is in deviations of the reference's completions.",
        "d is the square root of the KL to the reference. The laws are those of Gao et al. (2023) for the gold reward above "
        "the reference's, fitted by least squares seed by seed; a line in the plot, and the KL of most gold, are of one fit "
        "to the points of all seeds. The KL of best-of-n is its bound log n \N{MINUS SIGN} (n \N{MINUS SIGN} 1) / n.",
    ]


def _lost(climb: Climb) -> str:
    loss = climb.over_seeds(lambda a: a.gold.max() - a.gold[-1])
    between = f" ({loss.interval[0]:.3g} to {loss.interval[1]:.3g})" if loss.interval else ""
    return (
        f"{climb.label}: gold ends {loss.mean:.3g}{between} below its highest, shown in {climb.fallen} of {len(climb.ascents)} "
        "seeds, while the proxy rises."
    )


def _paired(c: Comparison) -> str:
    between = f" ({c.interval[0]:.3g} to {c.interval[1]:.3g})" if c.interval else ""
    return f"{c.first} \N{MINUS SIGN} {c.second} is {c.difference:.3g}{between}"


def gold(found: Climbs, style: Style) -> Figure:
    """Every evaluation of every seed, and the law fitted to them."""

    def paint(axes: Axes) -> None:
        for climb in found.all:
            colour, marker, line = _look(climb, style)
            d, values = (np.concatenate([getattr(a, name) for a in climb.ascents.values()]) for name in ("d", "gold"))
            axes.plot(d, values, marker, color=colour, markersize=3.5, alpha=0.5, markeredgewidth=0)
            if climb.pooled:
                shown = np.linspace(0, d.max(), POINTS)
                axes.plot(shown, climb.start + climb.pooled(shown), line, color=colour, linewidth=1.6, label=climb.label)
        axes.axhline(found.trained[0].start, color=INK, linewidth=0.8, linestyle=":")
        _finish(axes, "gold reward")

    return draw(3.4, paint)


def proxy(found: Climbs, style: Style) -> Figure:
    """Every seed's way."""

    def paint(axes: Axes) -> None:
        for climb in found.all:
            colour, marker, line = _look(climb, style)
            for i, ascent in enumerate(climb.ascents.values()):
                name = None if i else climb.label
                axes.plot(ascent.d, ascent.proxy, line, color=colour, marker=marker, markersize=3, linewidth=1, label=name)
        _finish(axes, "proxy, standard deviations")

    return draw(3.4, paint)


def _look(climb: Climb, style: Style) -> tuple[str, str, str]:
    """Colour, marker, line."""
    return (*style[climb.label], "-") if climb.law is Law.rl else (GREY, ".", "--")


def _finish(axes: Axes, title: str) -> None:
    axes.set_xlabel("d, the square root of the KL to the reference")
    axes.set_ylabel(title)
    axes.set_xlim(left=0)
    axes.margins(y=0.08)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.4, columnspacing=1.0)
