"""What the runs took: in total, by the role of a network, by phase; evaluation apart."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.report.analysis import Analysis, Entry
from alignzoo.report.answer import COST_TITLES, short
from alignzoo.report.sections import Table
from alignzoo.runs.results import COSTS

TOKENS = {"prompt_tokens": "prompt tokens", "completion_tokens": "completion tokens", "trained_tokens": "tokens trained on"}
EVALUATION = {"evaluation_seconds": "evaluation, seconds", "evaluation_flops": "evaluation, FLOPs"}
ROLES = ("policy", "reference", "value", "reward", "teacher")


def tables(a: Analysis) -> list[Table]:
    """Means over an algorithm's runs, one column an algorithm: totals, then roles, then phases."""
    names = [entry.label for entry in a.entries]
    found = [("in total", _totals(a)), ("by role", _by_role(a)), ("by phase", _phases(a))]
    return [Table([title, *names], rows) for title, rows in found if rows]


def _totals(a: Analysis) -> list[list[str]]:
    costs = [_row(COST_TITLES[name], [entry.cost(name) for entry in a.entries]) for name in COSTS]
    tokens = [_row(f"· {text}", _means(a.entries, name)) for name, text in TOKENS.items()]
    memory = [None if m is None else m / 2**20 for m in _means(a.entries, "peak_memory")]
    return _filled([*costs[:3], *tokens, *costs[3:], _row("peak memory, MB", memory, "{:,.0f}")])


def _by_role(a: Analysis) -> list[list[str]]:
    roles = sorted({name.split("/")[1] for name in _names(a) if name.startswith(("flops/", "passes/"))}, key=_place)
    rows = []
    for role in roles:
        rows.append(_row(f"{role}, FLOPs", _means(a.entries, f"flops/{role}")))
        rows.append(_row(f"{role}, forward passes", _means(a.entries, f"passes/{role}/forward")))
        rows.append(_row(f"{role}, backward passes", _means(a.entries, f"passes/{role}/backward")))
    return _filled(rows)


def _phases(a: Analysis) -> list[list[str]]:
    apart = ("total_seconds", *EVALUATION)
    phases = [name for name in _names(a) if name.endswith("_seconds") and name not in apart]
    rows = [_row(f"{name.removesuffix('_seconds').replace('_', ' ')}, seconds", _means(a.entries, name)) for name in phases]
    return _filled([*rows, *(_row(text, _means(a.entries, name)) for name, text in EVALUATION.items())])


def _place(role: str) -> tuple[int, str]:
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)


def _names(a: Analysis) -> list[str]:
    """The keys of all summaries, each once, in order."""
    return list(dict.fromkeys(name for entry in a.entries for run in entry.runs for name in run.summary))


def _means(entries: Sequence[Entry], name: str) -> list[float | None]:
    found = [[run.summary[name] for run in e.runs if isinstance(run.summary.get(name), int | float)] for e in entries]
    return [sum(values) / len(values) if values else None for values in found]


def _row(title: str, values: Sequence[float | None], form: str = "") -> list[str]:
    return [title, *("" if not v else form.format(v) if form else short(v) for v in values)]


def _filled(rows: Sequence[list[str]]) -> list[list[str]]:
    return [row for row in rows if any(row[1:])]
