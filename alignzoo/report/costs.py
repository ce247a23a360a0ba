"""What the runs took: in total, by the role of a network, by phase; evaluation apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alignzoo.common.metric_table import COST_TITLES
from alignzoo.report.analysis import Analysis
from alignzoo.report.prose import TextTable, short
from alignzoo.runs.results import COSTS

if TYPE_CHECKING:
    from pandas import DataFrame

TOKENS = {"prompt_tokens": "prompt tokens", "completion_tokens": "completion tokens", "trained_tokens": "tokens trained on"}
EVALUATION = {"evaluation_seconds": "evaluation, seconds", "evaluation_flops": "evaluation, FLOPs"}
ROLES = ("policy", "reference", "value", "reward", "teacher")
MEMORY = "peak memory, MB"


def tables(a: Analysis) -> list[TextTable]:
    """Means over an algorithm's runs, one column an algorithm: totals, then roles, then phases. A cost of 0 is not shown."""
    from pandas import DataFrame

    rows = []
    for entry in a.entries:
        for run in entry.runs:
            counted = {name: float(value) for name, value in run.summary.items() if isinstance(value, int | float)}
            memory = {MEMORY: counted["peak_memory"] / 2**20} if "peak_memory" in counted else {}
            rows.append({"label": entry.label, **{f"cost/{k}": v for k, v in run.cost.items()}, **counted, **memory})
    means = DataFrame(rows).groupby("label", sort=False).mean().T
    costs = [(f"cost/{name}", COST_TITLES[name]) for name in COSTS]
    tokens = [(name, f"· {text}") for name, text in TOKENS.items()]
    sections = {
        "in total": dict([*costs[:3], *tokens, *costs[3:], (MEMORY, MEMORY)]),
        "by role": _roles(list(means.index)),
        "by phase": _phases(list(means.index)),
    }
    return [table for title, names in sections.items() if (table := _table(title, means, names)).rows]


def _roles(names: Sequence[str]) -> dict[str, str]:
    roles = {name.split("/")[1] for name in names if name.startswith(("flops/", "passes/"))}
    units = {"flops/{}": "FLOPs", "passes/{}/forward": "forward passes", "passes/{}/backward": "backward passes"}
    ordered = sorted(roles, key=lambda role: (ROLES.index(role) if role in ROLES else len(ROLES), role))
    return {name.format(role): f"{role}, {unit}" for role in ordered for name, unit in units.items()}


def _phases(names: Sequence[str]) -> dict[str, str]:
    phases = [name for name in names if name.endswith("_seconds") and name not in ("total_seconds", *EVALUATION)]
    return {name: f"{name.removesuffix('_seconds').replace('_', ' ')}, seconds" for name in phases} | EVALUATION


def _table(title: str, means: DataFrame, names: Mapping[str, str]) -> TextTable:
    """Those of the `names` {row: what it is called} that were counted."""
    counted = means.reindex(list(names)).where(lambda mean: mean != 0).dropna(how="all")
    rows = [
        [names[name], *("" if v != v else f"{v:,.0f}" if name == MEMORY else short(v) for v in values)]
        for name, values in zip(counted.index, counted.to_numpy().tolist(), strict=True)
    ]
    return TextTable([title, *means.columns], rows, "numbers")
