"""How the report's plots look and are kept: small, legible on a phone, one colour and marker an algorithm throughout."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.report.prose import TEMPLATES, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#000000", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 4.2  # inches: 400 pixels, about a phone's width
INK, GREY = "#1b2129", "#6b7280"
STYLE = TEMPLATES / "report.mplstyle"
ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "handlelength": 1.4, "columnspacing": 1.0}
Style = Mapping[str, tuple[str, str]]  # label: colour, marker


@dataclass(frozen=True)
class Plot:
    """`source`: the image itself, as an address that needs no file."""

    name: str
    caption: str
    source: str


def styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker each, by name, so that they don't change with the ranking."""
    ordered = sorted(labels)
    return {label: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(ordered)}


def draw(height: float, paint: Callable[[Axes], None]) -> Figure:
    """A figure with one pair of axes that `paint` has drawn on."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as New

    with rc_context(fname=STYLE):
        figure = New(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
    return figure


def save_plot(folder: Path, name: str, caption: str, figure: Figure | None, prefix: str = "") -> list[Plot]:
    """Writes `prefix` `name`.svg, the same for the same figure; nothing where there is no figure."""
    from matplotlib import rc_context

    if figure is None:
        return []
    path = folder / f"{prefix}{name}.svg"
    with rc_context({"svg.hashsalt": path.stem}, STYLE):  # ticks take the style when they are drawn
        figure.savefig(path, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return [Plot(path.stem, caption, "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode())]


def legend_above(axes: Axes, labels: Sequence[str]) -> None:
    axes.legend(**ABOVE, ncols=1 if any(len(label) > 22 for label in labels) else 2)


def count_ticks(axes: Axes) -> None:
    """0, 50k, 100k along x."""
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
