"""One table of metrics: what each is called, which way is better, within which bounds, and where it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from math import inf

UNBOUNDED, AT_LEAST_0, SHARE = (-inf, inf), (0.0, inf), (0.0, 1.0)
AREA = "frontier_area"
COST_TITLES = {"steps": "steps", "samples": "samples", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}


class ShownIn(Flag):
    """Where a metric is among the few that are shown."""

    NOWHERE = 0
    TRAINING = auto()  # of the lines and the bar of a run, while it learns
    EVALUATION = auto()  # there too, from an evaluation
    RUNS = auto()  # a column of a table of runs
    STAGES = auto()  # in a table of the stages of a pipeline
    COMPARED = auto()  # what algorithms are compared by, unless something else is asked for: the first that all runs have


@dataclass(frozen=True)
class MetricRow:
    name: str
    shown: ShownIn = ShownIn.NOWHERE
    lower_is_better: bool = False
    bounds: tuple[float, float] = UNBOUNDED
    title: str = ""  # none: the name, with spaces


_EVALUATED = ShownIn.EVALUATION | ShownIn.RUNS
TABLE = (  # in the order of every place
    MetricRow("gap_closed", _EVALUATED | ShownIn.COMPARED, bounds=(-inf, 1.0)),
    MetricRow("gold", _EVALUATED | ShownIn.STAGES | ShownIn.COMPARED, title="gold reward"),
    MetricRow("reward", ShownIn.TRAINING | _EVALUATED | ShownIn.STAGES | ShownIn.COMPARED),
    MetricRow("win_rate", _EVALUATED, bounds=SHARE),
    MetricRow("accuracy", ShownIn.TRAINING | _EVALUATED | ShownIn.STAGES | ShownIn.COMPARED, bounds=SHARE),
    MetricRow("preference_accuracy", ShownIn.STAGES | ShownIn.COMPARED, bounds=SHARE),
    MetricRow("loss", ShownIn.TRAINING | ShownIn.RUNS | ShownIn.STAGES, lower_is_better=True),
    MetricRow("rewards/accuracy", ShownIn.TRAINING),
    MetricRow("rewards/margin", ShownIn.TRAINING),
    MetricRow("kl", ShownIn.TRAINING | _EVALUATED | ShownIn.STAGES, lower_is_better=True),
    MetricRow("exact_kl", bounds=AT_LEAST_0),
    MetricRow("perplexity", _EVALUATED | ShownIn.STAGES, lower_is_better=True, bounds=(1.0, inf)),
    MetricRow("equal_groups", ShownIn.TRAINING),
    MetricRow("entropy", ShownIn.TRAINING | ShownIn.RUNS),
    MetricRow("length", ShownIn.TRAINING | ShownIn.RUNS | ShownIn.STAGES, bounds=AT_LEAST_0),
    MetricRow("truncated", bounds=SHARE),
    MetricRow("distinct_", bounds=SHARE),
    MetricRow("repetition", lower_is_better=True, bounds=SHARE),
    MetricRow("log_loss", lower_is_better=True),
    MetricRow("calibration_error", lower_is_better=True, bounds=SHARE),
    MetricRow("grad_norm", ShownIn.TRAINING),
    MetricRow("tokens_per_second", ShownIn.TRAINING),
    MetricRow(AREA, title="area under the frontier"),
)
_BY_NAME = {row.name: row for row in TABLE}


def shown(place: ShownIn) -> tuple[str, ...]:
    """The names of the metrics that this place shows, in the table's order."""
    return tuple(row.name for row in TABLE if place in row.shown)


def title(name: str) -> str:
    """A metric, as it reads in a sentence."""
    return (name in _BY_NAME and _BY_NAME[name].title) or name.replace("_", " ")


def lower_is_better(name: str) -> bool:
    """Of a metric, and of its parts (NAME/PART)."""
    row = _BY_NAME.get(name.split("/")[0])
    return row is not None and row.lower_is_better


def bounds(name: str) -> tuple[float, float]:
    """The values that a metric can take. Of shares, every name that begins alike is one: accuracy_by_margin/1, distinct_2."""
    if any(row.bounds == SHARE and name.startswith(row.name) for row in TABLE):
        return SHARE
    return _BY_NAME[name].bounds if name in _BY_NAME else UNBOUNDED
