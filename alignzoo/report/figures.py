"""How the report's plots look and are kept: small, legible on a phone, one colour and marker an algorithm throughout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.report.answer import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#000000", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 4.2  # inches: 400 pixels, about a phone's width
LINE = 17  # of text, in pixels of matplotlib's
INK, GREY = "#1b2129", "#6b7280"
STYLE: Any = {
    "font.size": 9.5, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "legend.fontsize": 9, "legend.frameon": False, "lines.linewidth": 1.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#b4b9c2", "axes.labelcolor": "#333a44",
    "xtick.color": "#555c66", "ytick.color": "#555c66", "axes.grid": True, "grid.color": "#eceef1", "axes.axisbelow": True,
    "xtick.major.size": 3, "ytick.major.size": 0, "svg.fonttype": "none",
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
        figure.savefig(folder / f"{name}.png", dpi=180, metadata={"Software": None})
    text = (folder / f"{name}.svg").read_text("utf-8")
    # plots share a page, so only ids that are referred to, which the salt makes unlike, may stay
    kept = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in kept else "", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # a tenth of a pixel is enough
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def name_lines(axes: Axes, ends: Mapping[str, tuple[float, float]], style: Style) -> None:
    """Writes each label at the right end (x, y) of its line, pushed apart where they would overlap; long labels, or many, in
    a legend above. Call it last, when the limits are what they will be.
    """
    if len(ends) > 6 or any(len(label) > 14 for label in ends):
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=1 if any(len(x) > 22 for x in ends) else 2, borderaxespad=0.2
        )
        return
    to_share = axes.transData + axes.transAxes.inverted()
    distance = LINE / axes.get_window_extent().height
    heights: list[float] = []
    ordered = sorted(ends, key=lambda label: (ends[label][1], label))
    for label in ordered:
        share = float(to_share.transform((axes.get_xlim()[0], ends[label][1]))[1])
        heights.append(max(share, heights[-1] + distance) if heights else share)
    for i in reversed(range(len(heights))):  # and down again, where they went beyond the top
        limit = 1.0 if i == len(heights) - 1 else heights[i + 1] - distance
        heights[i] = min(heights[i], limit)
    for label, height in zip(ordered, heights, strict=True):
        words = axes.text(1.02, height, label, transform=axes.transAxes, va="center", fontsize=9, fontweight="bold")
        words.set_color(style[label][0])


def count_ticks(axes: Axes) -> None:
    """0, 50k, 100k along x."""
    axes.xaxis.set_major_locator(_locator(5))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))


def _locator(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most)
