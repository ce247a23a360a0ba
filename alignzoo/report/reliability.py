"""How sure reward models are, how often they are right then, and what length has to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo.common.folder import RELIABILITY, read
from alignzoo.report.analysis import Analysis
from alignzoo.report.figures import GREY, Style, draw
from alignzoo.report.prose import TextTable
from alignzoo.runs.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

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


def reliability(runs: Sequence[Run]) -> DataFrame:
    """The diagram's bins, of several runs together: count, confidence and accuracy by the lower end; none where no run has
    any."""
    from pandas import DataFrame

    files = [path for run in runs if (path := run.folder / RELIABILITY).is_file()]
    bins = DataFrame([row for path in files for row in read(path).get("bins", [])])
    if bins.empty:
        return bins
    weighted = bins.assign(confidence=bins["confidence"] * bins["count"], accuracy=bins["accuracy"] * bins["count"])
    sums = weighted.groupby("low")[["count", "confidence", "accuracy"]].sum()
    return sums.assign(confidence=sums["confidence"] / sums["count"], accuracy=sums["accuracy"] / sums["count"])


def plot(a: Analysis, style: Style) -> Figure:
    def paint(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1)
        for entry in a.entries:
            bins = reliability(entry.runs)
            if not bins.empty:
                colour, marker = style[entry.label]
                axes.plot(bins["confidence"], bins["accuracy"], color=colour, label=entry.label)
                sizes = 12 + 160 * bins["count"] / bins["count"].sum()
                axes.scatter(bins["confidence"], bins["accuracy"], s=sizes, color=colour, marker=marker)
        axes.set_xlabel("how sure: probability of the side it prefers")
        axes.set_ylabel("share it has right")
        axes.set_xlim(0.49, 1.01)
        axes.legend(loc="best")

    return draw(3.0, paint)


def table(a: Analysis) -> TextTable | None:
    """A row a measure, a column an algorithm: means over its runs. None where no run trained a reward model."""
    entries = [entry for entry in a.entries if not reliability(entry.runs).empty]
    rows = []
    for name, words in MEASURES.items():
        scores = [[score for run in entry.runs if (score := run.score(name)) is not None] for entry in entries]
        if any(scores):
            rows.append([words, *(f"{sum(of_one) / len(of_one):.3f}" if of_one else "" for of_one in scores)])
    return TextTable(["held-out comparisons", *(entry.label for entry in entries)], rows) if entries else None
