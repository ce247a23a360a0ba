"""The answer in sentences: which algorithm, by how much, how sure, at what cost; or that no claim is possible."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from alignzoo.report.analysis import AREA, Analysis, Entry
from alignzoo.statistics.comparison import LEVEL, Comparison, Reached

TITLES = {"gap_closed": "gap closed", "gold": "gold reward", AREA: "area under the frontier"}
COST_TITLES = {"steps": "steps", "samples": "samples", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def title(metric: str) -> str:
    return TITLES.get(metric, metric.replace("_", " "))


def headline(a: Analysis) -> str:
    """The one sentence to take away."""
    best, where = a.best.label, f", on average over {a.over} {_values(a)}" if a.over > 1 else ""
    if len(a.entries) == 1:
        return f"{best}: {score(a, a.best)}{where}. There is nothing to compare it with."
    if not a.comparisons:
        return "No claim possible: no comparison was planned."
    if not a.can_claim:
        return f"No claim possible below {a.seeds_needed} seeds."
    if a.selective:
        return _planned(a) + where + "."
    beaten, level = _sides(a)
    if not beaten:
        return _undecided(a) + where + "."
    if not level:
        of = f"is the best of {len(a.entries)}" if len(a.entries) > 2 else f"is better than {beaten[0].second}"
        return f"{best} {of}{where}."
    worse, alike = ([c.second for c in found] for found in (beaten, level))
    return f"{best} is better than {listed(worse)}, and not told apart from {listed(alike)}{where}."


def _planned(a: Analysis) -> str:
    """What the planned comparisons say, of these pairs alone."""
    better = [f"{c.first} is better than {c.second}" for c in a.verdicts if c.separated]
    level = [f"{c.first} and {c.second}" for c in a.verdicts if not c.separated]
    return ", and ".join(
        [*([", ".join(better)] if better else []), *([f"{'; '.join(level)} are not told apart"] if level else [])]
    )


def _values(a: Analysis) -> str:
    """What the mean is over: its settings are those of the first condition."""
    return f"values of {setting_title(next(iter(a.settings)), a)}" if len(a.settings) == 1 else "conditions"


def setting_title(key: str, a: Analysis) -> str:
    """A varied setting, as it reads in a sentence."""
    if key != "budget.amount":
        return key
    unit = a.entries[0].runs[0].config["budget"]["unit"]
    return f"the budget ({COST_TITLES.get(unit, unit)})"


def value_text(value: object) -> str:
    """Of a setting."""
    return short(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def condition_text(a: Analysis) -> str:
    """The settings of a condition, as they read in a sentence."""
    return ", ".join(f"{setting_title(key, a)} {value_text(value)}" for key, value in a.settings.items())


def _undecided(a: Analysis) -> str:
    if any(c.separated for c in a.comparisons):
        return f"No algorithm is shown to be the best: {a.best.label} has the highest mean, which may be chance"
    names = listed([entry.label for entry in a.entries])
    same = all(c.difference == 0 and c.p == 1 for c in a.comparisons)
    return f"{names} are not told apart: " + (
        "their scores are the same, seed by seed" if same else "differences may be chance"
    )


def details(a: Analysis) -> list[str]:
    """By how much and how sure: a sentence or two each."""
    if len(a.entries) == 1:
        return [_left_out(a)]
    if not a.can_claim:
        return [_no_claim(a), _left_out(a)]
    if a.selective:
        return [
            *(_planned_detail(a, c) for c in a.verdicts),
            f"{_certainty(a)} No other pair was to be compared.",
            _left_out(a),
        ]
    beaten, level = _sides(a)
    said = [f"{a.best.label} {_verb(a)} {score(a, a.best)}."]
    if beaten:
        said.append(f"It is {listed([_ahead(a, c) for c in beaten])}.")
    if level:
        said.append(f"That it is {listed([_ahead(a, c) for c in level])} is not shown.")
    return [" ".join(said), _certainty(a), _left_out(a)]


def _planned_detail(a: Analysis, c: Comparison) -> str:
    ahead = next(e for e in a.entries if e.label == c.first)
    start = f"{c.first} {_verb(a)} {score(a, ahead)}."
    return f"{start} It is {_ahead(a, c)}." if c.separated else f"{start} That it is {_ahead(a, c)} is not shown."


def _left_out(a: Analysis) -> str:
    if not a.failed:
        return ""
    runs = "One run" if len(a.failed) == 1 else f"{len(a.failed)} runs"
    return f"{runs} ended without a finite {title(a.metric)}: no score here counts them. Reproduce, below, names them."


def _sides(a: Analysis) -> tuple[list[Comparison], list[Comparison]]:
    """The comparisons of the best with the others: those that separate it, and those that don't."""
    found = [c for e in a.entries if e is not a.best and (c := a.against(a.best.label, e.label))]
    return [c for c in found if c.separated and c.difference > 0], [c for c in found if not (c.separated and c.difference > 0)]


def _verb(a: Analysis) -> str:
    return (
        "closes"
        if a.metric == "gap_closed"
        else f"reaches {'an' if title(a.metric)[0] in 'aeiou' else 'a'} {title(a.metric)} of"
    )


def _ahead(a: Analysis, c: Comparison) -> str:
    between = f"{bare_difference(a, c.interval[0])} to {bare_difference(a, c.interval[1])}, " if c.interval else ""
    return f"{difference(a, c.difference)} ahead of {c.second} ({between}{p_text(c.corrected)})"


def _certainty(a: Analysis) -> str:
    corrected = f", corrected for {_comparisons(a)} (Holm)" if a.family > 1 else ""
    return f"In brackets 95 % intervals and p from {a.seeds} common seeds{corrected}."


def _no_claim(a: Analysis) -> str:
    if a.seeds < 2:
        what = (
            "No two algorithms have two seeds in common" if a.seeds == 0 else "With one common seed nothing says what is chance"
        )
    else:
        least = p_text(a.smallest_p)[4:]
        what = f"With {a.seeds} common seeds, the smallest p that {_comparisons(a)} can give is {least}, above {LEVEL}"
    return f"{what}. The algorithms are listed by name, not ranked."


def _comparisons(a: Analysis) -> str:
    return "one comparison" if a.family == 1 else f"{a.family} comparisons"


def short(value: float) -> str:
    """1234 as 1.23k."""
    size, prefix = next(((size, prefix) for size, prefix in UNITS if abs(value) >= 0.9995 * size), (1.0, ""))
    return f"{value / size:.3g}{prefix}"


def score(a: Analysis, entry: Entry) -> str:
    """Mean, interval, seeds."""
    s = entry.summary
    seeds = f"{s.count} seeds" if s.count > 1 else s.reason
    between = f"{bare(a.metric, s.interval[0])} to {bare(a.metric, s.interval[1])}, " if s.interval else ""
    share = " of the gap to the optimum" if a.metric == "gap_closed" else ""
    return f"{number(a.metric, s.mean)}{share} ({between}{seeds})"


def number(metric: str, value: float) -> str:
    return f"{bare(metric, value)} %" if metric == "gap_closed" else bare(metric, value)


def bare(metric: str, value: float) -> str:
    """A score without its unit."""
    return f"{100 * value:.1f}" if metric == "gap_closed" else f"{value:.3g}" if metric == AREA else f"{value:.4g}"


def difference(a: Analysis, value: float) -> str:
    return f"{bare_difference(a, value)} points" if a.metric == "gap_closed" else bare_difference(a, value)


def bare_difference(a: Analysis, value: float) -> str:
    """A difference of scores, without its unit."""
    text = f"{100 * value:.1f}" if a.metric == "gap_closed" else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}", 1)


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
