"""What the page says, as plain tables and paragraphs that both the HTML and the Markdown show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.evaluation.results import COSTS, Run, budget, budget_text, flat
from alignzoo.report.analysis import AREA, Analysis, Entry
from alignzoo.report.answer import COST_TITLES, amount, bare, bare_difference, difference, number, p_text, reached_text, title
from alignzoo.report.study import Study

PHASES = ("rollout_seconds", "training_seconds", "evaluation_seconds")
TOKENS = ("prompt_tokens", "completion_tokens", "trained_tokens")


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column says what a row is about."""

    columns: list[str]
    rows: list[list[str]]


def results(a: Analysis) -> Table:
    """One row an algorithm."""
    columns = ["algorithm", title(a.metric), "95 % interval", "interquartile mean", "seeds"]
    extra = [(name, text) for name, text in (("reward", "reward"), ("kl", "KL")) if a.metric != AREA and name != a.metric]
    shown = [(names, text) for name, text in extra if (names := _measured(a, name))]
    rows = []
    for entry in a.entries:
        s = entry.summary
        between = (
            f"{bare(a.metric, s.low)} to {bare(a.metric, s.high)}"
            if s.low is not None and s.high is not None
            else "none: one seed"
        )
        means = [f"{_mean(entry, name):.4g}" for name, _ in shown]
        reached = (
            [reached_text(a.reached[entry.label])]
            if a.reached and entry.label in a.reached
            else ["not known"]
            if a.reached
            else []
        )
        cost = [_amount(name, entry.cost(name)) for name in ("samples", "seconds")]
        rows.append(
            [
                entry.label,
                number(a.metric, s.mean),
                between,
                bare(a.metric, s.interquartile_mean),
                str(s.count),
                *means,
                *cost,
                *reached,
            ]
        )
    to_threshold = [f"samples to {100 * a.threshold:.0f} % (runs that got there)"] if a.reached else []
    return Table([*columns, *(text for _, text in shown), "samples", "seconds", *to_threshold], rows)


def _measured(a: Analysis, name: str) -> str | None:
    """The exact measure's name where all runs have it, else the sampled one's, else None."""
    metrics = [run.summary["metrics"] for entry in a.entries for run in entry.runs]
    exact = {"reward": "expected_reward", "kl": "exact_kl"}[name]
    return next((found for found in (exact, name) if all(found in m for m in metrics)), None)


def _mean(entry: Entry, name: str) -> float:
    found = [run.summary["metrics"][name] for run in entry.runs]
    return float(sum(found) / len(found))


def comparisons(a: Analysis) -> Table:
    """One row a pair."""
    rows = []
    for c in a.comparisons:
        between = f"{bare_difference(a, c.interval[0])} to {bare_difference(a, c.interval[1])}" if c.interval else "none"
        chance = f" ({c.improvement_interval[0]:.2f} to {c.improvement_interval[1]:.2f})" if c.improvement_interval else ""
        verdict = (c.first if c.difference > 0 else c.second) + " is better" if c.separated else "not told apart"
        pair = f"{c.first} \N{MINUS SIGN} {c.second}"
        test = [f"{c.improvement:.2f}{chance}", str(c.seeds), p_text(c.p)[4:], p_text(c.corrected)[4:]]
        rows.append([pair, difference(a, c.difference), between, *test, verdict])
    columns = ["pair", "difference", "95 % interval", "P(first better)", "common seeds", "p", "p after Holm", "verdict"]
    return Table(columns, rows)


def costs(a: Analysis) -> Table:
    """One row a kind of cost, one column an algorithm: means over runs."""
    names = [name for name in COSTS if any(entry.cost(name) is not None for entry in a.entries)]
    rows = [[_capital(COST_TITLES[name]), *(_amount(name, entry.cost(name)) for entry in a.entries)] for name in names]
    for name in (*TOKENS, *_extra_flops(a), *PHASES):
        values = [_mean_of(entry, name) for entry in a.entries]
        if any(values):
            kind = "seconds" if name.endswith("seconds") else "flops" if name.startswith("flops") else "tokens"
            rows.append([f"· {name.replace('_seconds', ', seconds').replace('_', ' ')}", *(_amount(kind, v) for v in values)])
    memory = [_mean_of(entry, "peak_memory") for entry in a.entries]
    rows.append(["Peak memory, MB", *("" if m is None else f"{m / 2**20:,.0f}" for m in memory)])
    return Table(["mean of a run", *(entry.label for entry in a.entries)], rows)


def _extra_flops(a: Analysis) -> list[str]:
    """FLOPs by role, where they are kept."""
    found = {name for entry in a.entries for run in entry.runs for name in run.summary if name.startswith("flops/")}
    return sorted(found)


def _mean_of(entry: Entry, name: str) -> float | None:
    found = [run.summary[name] for run in entry.runs if isinstance(run.summary.get(name), int | float)]
    return sum(found) / len(found) if found else None


def _amount(cost: str, value: float | None) -> str:
    return "" if value is None else amount(cost, value).split(" ")[0]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def method(runs: Sequence[Run], analyses: Sequence[Analysis], about: Study) -> list[str]:
    """How the numbers came about."""
    run, a = runs[0], analyses[0]
    names = {key: run.summary.get(key) for key in ("data", "reward", "reference", "model")}
    seeds = sorted({r.seed for r in runs})
    said = [
        f"Every algorithm starts from the same model and works on the same task: {_pairs(names)}. "
        f"{len(runs)} runs, seeds {_ranges(seeds)}.",
        _budget(runs),
        _metric(a.metric),
    ]
    if about.vary:
        said.append(f"Settings that differ on purpose, each value compared by itself: {', '.join(about.vary)}.")
    if about.sweep:
        said.append(f"Swept to make one frontier an algorithm: {', '.join(about.sweep)}.")
    if about.planned:
        said.append("Comparisons planned beforehand: " + ", ".join(" and ".join(pair) for pair in about.planned) + ".")
    return said


def statistics(a: Analysis) -> list[str]:
    """How intervals and tests work, and what they could find at most."""
    said = [
        "Intervals are 95 % intervals of the mean over seeds, by Student's t corrected for skewness (Hall, 1992): simulated, "
        "they hold 93 to 95 times of 100 with 5, 10 and 20 seeds."
    ]
    if a.comparisons:
        said += [
            "Pairs are tested by flipping the signs of their differences on common seeds, every way there is (exact, "
            "two-sided), and p is corrected for the number of comparisons (Holm), under each condition by "
            f"itself where there are several. The smallest p that {a.seeds} common seeds and {len(a.comparisons)} comparisons "
            f"can give is {p_text(a.smallest_p)[4:]}.",
            "P(first better) is how often a run of the first beats one of the second, any seed against any (its interval: "
            "Newcombe, 2006).",
        ]
    return said


def _pairs(names: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in names.items())


def _budget(runs: Sequence[Run]) -> str:
    if text := budget_text(budget(runs[0])):
        return f"Budget of every run: {text}."
    return "No common budget was set: each algorithm ran as long as its own settings say. Read the scores beside the cost."


def _metric(metric: str) -> str:
    if metric == "gap_closed":
        return (
            "Gap closed is the share of the way from the reference to the best policy there is, "
            "(J(π) \N{MINUS SIGN} J(reference)) / (J* \N{MINUS SIGN} J(reference)) with J = E[reward] \N{MINUS SIGN} β KL, "
            "computed exactly by enumeration: 100 % is the limit."
        )
    if metric == AREA:
        return (
            "Area under the frontier is the mean, over KL from 0 to what every algorithm reaches, of the best reward at that "
            "KL above the reference's."
        )
    return f"{_capital(title(metric))} is that of the final evaluation, on held-out prompts; more is better."


def settings(runs: Sequence[Run]) -> Table:
    """What each label was trained with."""
    rows = []
    for label in dict.fromkeys(run.label for run in runs):
        run = next(r for r in runs if r.label == label)
        own = {key: value for key, value in flat(run.config.get("algorithm")).items() if key}
        trainer = {
            k: run.config.get("trainer", {}).get(k) for k in ("learning_rate", "batch", "max_steps", "epochs", "schedule")
        }
        text = ", ".join(
            f"{k}={json.dumps(v) if isinstance(v, list | dict) else v}" for k, v in (own | trainer).items() if v is not None
        )
        rows.append([label, text])
    return Table(["algorithm", "settings"], rows)


def tuning(about: Study) -> Table:
    """What bench tried beforehand, one row a trial."""
    columns = list(dict.fromkeys(key for trial in about.tuning for key in trial))
    return Table(columns, [[_cell(trial.get(key, "")) for key in columns] for trial in about.tuning])


def machine(runs: Sequence[Run]) -> Table:
    """Versions and hardware; several values where runs differ."""
    rows = []
    for key in ("platform", "python", "cpus", "threads", "processes", "devices", "commit"):
        rows.append([key, _distinct([run.environment.get(key) for run in runs])])
    for name in dict.fromkeys(name for run in runs for name in run.environment.get("versions", {})):
        rows.append([name, _distinct([run.environment.get("versions", {}).get(name) for run in runs])])
    return Table(["what", "value"], [row for row in rows if row[1]])


def _distinct(values: Sequence[Any]) -> str:
    shown = [", ".join(map(str, v)) or "no accelerator" if isinstance(v, list) else str(v) for v in values if v is not None]
    return "; ".join(dict.fromkeys(shown))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ranges(numbers: Sequence[int]) -> str:
    """0-9, 12."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
