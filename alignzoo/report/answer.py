"""The answer in sentences: which algorithm, by how much, how sure, at what cost; or that no claim is possible."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from alignzoo.evaluation.comparison import LEVEL, Comparison, Reached
from alignzoo.report.analysis import AREA, Analysis, Entry

TITLES = {"gap_closed": "gap closed", AREA: "area under the frontier"}
COST_TITLES = {"steps": "steps", "samples": "samples", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}


def title(metric: str) -> str:
    return TITLES.get(metric, metric.replace("_", " "))


def headline(a: Analysis) -> str:
    """The one sentence to take away."""
    best = a.best.label
    if len(a.entries) == 1:
        return f"{best}: {score(a, a.best)}. There is nothing to compare it with."
    if not a.comparisons:
        return "No claim possible: no comparison was planned."
    if not a.can_claim:
        return f"No claim possible below {a.seeds_needed} seeds."
    beaten, level = _sides(a)
    if not beaten:
        return f"No algorithm is shown to be the best: {best} has the highest mean, which may be chance."
    if not level:
        return (
            f"{best} is the best of {len(a.entries)}." if len(a.entries) > 2 else f"{best} is better than {beaten[0].second}."
        )
    worse, alike = ([c.second for c in found] for found in (beaten, level))
    return f"{best} is better than {_listed(worse)}, and not told apart from {_listed(alike)}."


def overall(analyses: Sequence[Analysis]) -> str:
    """The one sentence over several conditions, each of which was tested by itself."""
    if all(len(a.entries) == 1 for a in analyses):
        ends = " to ".join(f"{number(a.metric, a.best.summary.mean)} under {a.condition}" for a in (analyses[0], analyses[-1]))
        return f"{analyses[0].best.label}: from {ends}. There is nothing to compare it with."
    able = [a for a in analyses if a.can_claim]
    if not able:
        needed = max(a.seeds_needed for a in analyses if a.comparisons)
        return f"No claim possible below {needed} seeds, under any of {len(analyses)} conditions."
    winners = list(dict.fromkeys(a.best.label for a in able))
    if len(winners) > 1:
        return "Which is ahead depends on the condition: " + "; ".join(
            f"{label} under {_listed([a.condition for a in able if a.best.label == label])}" for label in winners
        )
    shown = [a for a in able if not _sides(a)[1]]
    where = f"all {len(able)}" if len(shown) == len(able) else str(len(shown)) if shown else "none"
    judged = "" if len(able) == len(analyses) else f" that have seeds enough, of {len(analyses)}"
    under = f"all {len(able)} conditions{judged}"
    return f"{winners[0]} has the highest mean under {under}, and is shown to be the best under {where}."


def details(a: Analysis) -> list[str]:
    """By how much, how sure, at what cost: a sentence or two each."""
    if len(a.entries) == 1:
        return [_cost(a)]
    if not a.can_claim:
        return [_no_claim(a), _cost(a)]
    beaten, level = _sides(a)
    said = [f"{a.best.label} {_verb(a)} {score(a, a.best)}."]
    if beaten:
        said.append(f"It is {_listed([_ahead(a, c) for c in beaten])}.")
    if level:
        said.append(f"That it is {_listed([_ahead(a, c) for c in level])} is not shown.")
    return [" ".join(said), _certainty(a), _cost(a)]


def _sides(a: Analysis) -> tuple[list[Comparison], list[Comparison]]:
    """The comparisons of the best with the others: those that separate it, and those that don't."""
    found = [c for e in a.entries if e is not a.best and (c := a.against(a.best.label, e.label))]
    return [c for c in found if c.separated and c.difference > 0], [c for c in found if not (c.separated and c.difference > 0)]


def _verb(a: Analysis) -> str:
    return "closes" if a.metric == "gap_closed" else f"reaches a {title(a.metric)} of"


def _ahead(a: Analysis, c: Comparison) -> str:
    between = f"{bare_difference(a, c.interval[0])} to {bare_difference(a, c.interval[1])}, " if c.interval else ""
    return f"{difference(a, c.difference)} ahead of {c.second} ({between}{p_text(c.corrected)})"


def _certainty(a: Analysis) -> str:
    corrected = f", corrected for {_comparisons(a)}" if len(a.comparisons) > 1 else ""
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
    return "one comparison" if len(a.comparisons) == 1 else f"{len(a.comparisons)} comparisons"


def _cost(a: Analysis) -> str:
    """What a run takes, of the best where there is one, else of all."""
    said = []
    for entry in a.entries[:4]:
        parts = [amount(name, value) for name in ("samples", "flops", "seconds") if (value := entry.cost(name))]
        if parts:
            said.append(f"{entry.label} {', '.join(parts)}")
    return f"A run costs, evaluation apart: {'; '.join(said)}." if said else ""


def amount(cost: str, value: float) -> str:
    if cost == "seconds":
        return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"
    if cost == "flops":
        return f"{value:.2e} FLOPs"
    return f"{value:,.0f} {COST_TITLES[cost]}"


def score(a: Analysis, entry: Entry) -> str:
    """Mean, interval, seeds."""
    s = entry.summary
    seeds = f"{s.count} seeds" if s.count > 1 else s.reason
    between = f"{bare(a.metric, s.low)} to {bare(a.metric, s.high)}, " if s.low is not None and s.high is not None else ""
    share = " of the gap to the optimum" if a.metric == "gap_closed" else ""
    return f"{number(a.metric, s.mean)}{share} ({between}{seeds})"


def number(metric: str, value: float) -> str:
    return f"{bare(metric, value)} %" if metric == "gap_closed" else bare(metric, value)


def bare(metric: str, value: float) -> str:
    """A score without its unit."""
    return f"{100 * value:.1f}" if metric == "gap_closed" else f"{value:.4g}"


def difference(a: Analysis, value: float) -> str:
    return f"{bare_difference(a, value)} points" if a.metric == "gap_closed" else bare_difference(a, value)


def bare_difference(a: Analysis, value: float) -> str:
    """A difference of scores, without its unit."""
    text = f"{100 * value:.1f}" if a.metric == "gap_closed" else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}", 1)


def p_text(p: float) -> str:
    return "p = 1" if p >= 0.995 else "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def reached_text(r: Reached) -> str:
    """The median of what it took, and how many runs got there."""
    median = f"{r.median:,.0f}" if r.median < inf else f"> {r.beyond:,.0f}"
    return f"{median} ({r.runs - r.censored} of {r.runs})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
