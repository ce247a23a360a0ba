"""How sure reward models are, how often they are right then, and what length has to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.common.folder import RELIABILITY, read
from alignzoo.report.analysis import Analysis
from alignzoo.report.figures import GREY, Style, draw
from alignzoo.report.sections import Table
from alignzoo.runs.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Accuracy by confidence on held-out comparisons, of all seeds together; the larger the point, the more comparisons. "
    "Grey: as often right as it is sure."
)
MEASURES = {
    "accuracy": "accuracy", "log_loss": "log loss", "calibration_error": "calibration error",
    "accuracy_by_margin/1": "accuracy, least sure quarter", "accuracy_by_margin/2": "second", "accuracy_by_margin/3": "third",
    "accuracy_by_margin/4": "surest", "accuracy_by_given_margin/1": "accuracy, smallest given margins",
    "accuracy_by_given_margin/4": "largest", "length_correlation": "correlation of score and length",
    "accuracy_when_better_is_shorter": "accuracy, shorter is better",
    "accuracy_when_better_is_longer": "longer is better",
}  # fmt: skip


@dataclass(frozen=True)
class Bin:
    """The comparisons of one confidence: how many, how sure, how often right."""

    count: int
    confidence: float
    accuracy: float


def reliability(runs: Sequence[Run]) -> list[Bin]:
    """The diagram's bins, of several runs together; none where no run has any."""
    found: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        path = run.folder / RELIABILITY
        for one in read(path).get("bins", []) if path.is_file() else []:
            found.setdefault(one["low"], []).append(one)
    return [_pooled(found[low]) for low in sorted(found)]


def _pooled(bins: list[dict[str, Any]]) -> Bin:
    counts = np.array([one["count"] for one in bins])
    sure, right = (float(np.average([one[name] for one in bins], weights=counts)) for name in ("confidence", "accuracy"))
    return Bin(int(counts.sum()), sure, right)


def plot(a: Analysis, style: Style) -> Figure | None:
    """None where no run trained a reward model."""
    found = {entry.label: bins for entry in a.entries if (bins := reliability(entry.runs))}
    if not found:
        return None

    def paint(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1)
        for label, bins in found.items():
            colour, marker = style[label]
            share = np.array([one.count for one in bins]) / sum(one.count for one in bins)
            sure, right = [one.confidence for one in bins], [one.accuracy for one in bins]
            axes.plot(sure, right, color=colour, label=label)
            axes.scatter(sure, right, s=12 + 160 * share, color=colour, marker=marker)
        axes.set_xlabel("how sure: probability of the side it prefers")
        axes.set_ylabel("share it has right")
        axes.set_xlim(0.49, 1.01)
        axes.legend(loc="best")

    return draw(3.0, paint)


def table(a: Analysis) -> Table | None:
    """A row a measure, a column an algorithm: means over its runs. None where no run trained a reward model."""
    entries = [entry for entry in a.entries if reliability(entry.runs)]
    if not entries:
        return None
    rows = []
    for name, words in MEASURES.items():
        values = [[s for run in entry.runs if (s := run.score(name)) is not None] for entry in entries]
        if any(values):
            rows.append([words, *(f"{np.mean(own):.3f}" if own else "" for own in values)])
    return Table(["held-out comparisons", *(entry.label for entry in entries)], rows)
