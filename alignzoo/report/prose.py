"""Numbers and sentences of the report as they read; the sentences are the macros of templates/prose.j2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from alignzoo.common import metric_table
from alignzoo.statistics.comparison import LEVEL, Comparison, Reached
from alignzoo.statistics.intervals import Ends, Summary

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class TextTable:
    """Cells of text; the first column says what a row is about. `style` are classes of the page's CSS."""

    columns: list[str]
    rows: list[list[str]]
    style: str = "cards"


def paragraphs(macro: str, *facts: object) -> list[str]:
    """What a macro of prose.j2 says of these facts: its paragraphs, which end with ¶, but for empty ones."""
    text: str = getattr(_environment().get_template("prose.j2").module, macro)(*facts)
    return [" ".join(part.split()) for part in text.split("¶") if part.strip()]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined)
    environment.globals.update(
        title=metric_table.title, level=LEVEL, ahead=ahead, difference=difference, listed=listed, number=number, p=p_text,
        score=score, value=value_text,
    )  # fmt: skip
    return environment


def value_text(value: object) -> str:
    """Of a setting."""
    return short(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def short(value: float) -> str:
    """1234 as 1.23k."""
    size, prefix = next(((size, prefix) for size, prefix in UNITS if abs(value) >= 0.9995 * size), (1.0, ""))
    return f"{value / size:.3g}{prefix}"


def score(metric: str, s: Summary) -> str:
    """Mean, interval, seeds."""
    seeds = f"{s.count} seeds" if s.count > 1 else s.reason
    between = f"{bare(metric, s.interval[0])} to {bare(metric, s.interval[1])}, " if s.interval else ""
    share = " of the gap to the optimum" if metric == "gap_closed" else ""
    return f"{number(metric, s.mean)}{share} ({between}{seeds})"


def with_interval(metric: str, mean: float, interval: Ends | None) -> str:
    """98.4 (97.0 to 99.1)"""
    between = f"{bare(metric, interval[0])} to {bare(metric, interval[1])}" if interval else "no interval: one seed"
    return f"{bare(metric, mean)} ({between})"


def number(metric: str, value: float) -> str:
    return f"{bare(metric, value)} %" if metric == "gap_closed" else bare(metric, value)


def bare(metric: str, value: float) -> str:
    """A score without its unit."""
    return f"{100 * value:.1f}" if metric == "gap_closed" else f"{value:.3g}" if metric == metric_table.AREA else f"{value:.4g}"


def difference(metric: str, value: float) -> str:
    return f"{bare_difference(metric, value)} points" if metric == "gap_closed" else bare_difference(metric, value)


def bare_difference(metric: str, value: float) -> str:
    """A difference of scores, without its unit."""
    text = f"{100 * value:.1f}" if metric == "gap_closed" else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}", 1)


def ahead(metric: str, c: Comparison) -> str:
    """How far the first is ahead of the second, and how sure that is."""
    ends = f"{bare_difference(metric, c.interval[0])} to {bare_difference(metric, c.interval[1])}, " if c.interval else ""
    return f"{difference(metric, c.difference)} ahead of {c.second} ({ends}{p_text(c.corrected)})"


def p_text(p: float) -> str:
    return "p = 1" if p >= 0.995 else "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def reached_text(r: Reached) -> str:
    """The median of what it took, its interval, and how many runs got there."""
    median = f"{r.median:,.0f}" if r.median < inf else f"more than {r.at_least:,.0f}"
    between = ""
    if r.interval and r.median < inf:
        low, high = r.interval
        between = f"{low:,.0f} to {high:,.0f}, " if high < inf else f"{low:,.0f} or more, "
    return f"{median} ({between}{r.runs - r.censored} of {r.runs} runs)"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
