"""What the page says, as plain tables and paragraphs that both the HTML and the Markdown show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.report.analysis import AREA, Analysis, Entry
from alignzoo.report.answer import COST_TITLES, bare, bare_difference, difference, p_text, reached_text, short, title
from alignzoo.report.study import Study
from alignzoo.runs.results import Run, budget, budget_text, flat

FAMILIES = (
    "The means over conditions are tested first, and single conditions behind them: p under a condition is no smaller than the "
    "largest p of the means. So this page makes a false claim in at most 5 of 100 studies."
)


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column says what a row is about."""

    columns: list[str]
    rows: list[list[str]]


def with_interval(metric: str, mean: float, interval: tuple[float, float] | None) -> str:
    """98.4 (97.0 to 99.1)"""
    between = f"{bare(metric, interval[0])} to {bare(metric, interval[1])}" if interval else "no interval: one seed"
    return f"{bare(metric, mean)} ({between})"


def results(a: Analysis) -> Table:
    """One row an algorithm."""
    unit = ", %" if a.metric == "gap_closed" else ""
    columns = ["algorithm", f"{title(a.metric)}{unit}: mean (95 % interval)", "interquartile mean (95 % interval)", "seeds"]
    extra = [(name, text) for name, text in (("reward", "reward"), ("kl", "KL")) if a.metric != AREA and name != a.metric]
    shown = [(names, text) for name, text in extra if (names := _measured(a, name))]
    rows = []
    for entry in a.entries:
        s = entry.summary
        means = [
            with_interval(a.metric, s.mean, s.interval),
            with_interval(a.metric, s.interquartile_mean, s.interquartile_interval),
        ]
        also = [f"{_mean(entry, name):.4g}" for name, _ in shown]
        found = a.reached.get(entry.label)
        reached = [reached_text(found) if found else "not known"] if a.reached else []
        rows.append([entry.label, *means, str(s.count), *also, *reached])
    to_threshold = [f"samples to {100 * a.threshold:.0f} %: median"] if a.reached else []
    return Table([*columns, *(text for _, text in shown), *to_threshold], rows)


def on_defaults(a: Analysis, about: Study) -> str:
    """Which algorithms nothing sets values for in this experiment, while it does for others; not known of older runs."""
    choices = {e.label: e.runs[0].config.get("choices", {}) for e in a.entries}
    without = [label for label, chosen in choices.items() if chosen.get("experiment") and chosen.get("settings", "") is None]
    if about.tuning or not without or len(without) == len(choices):
        return ""
    whose, them = ("its", "it") if len(without) == 1 else ("their", "them")
    name = choices[without[0]]["experiment"]
    return f"On {whose} defaults: {', '.join(without)}. Experiment {name} has settings for the others, and none for {them}."


def bill(a: Analysis) -> Table:
    """What a run of each took, in short: the mean over runs."""
    names = [name for name in ("samples", "tokens", "flops", "seconds") if any(e.cost(name) is not None for e in a.entries)]
    rows = [[e.label, *("" if (v := e.cost(name)) is None else short(v) for name in names)] for e in a.entries]
    return Table(["a run costs", *(COST_TITLES[name] for name in names)], rows)


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


def counts(runs: Sequence[Run]) -> str:
    """How much there is."""
    found = ((len({run.algorithm for run in runs}), "algorithm"), (len({run.seed for run in runs}), "seed"), (len(runs), "run"))
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in found)


def method(runs: Sequence[Run], analyses: Sequence[Analysis], about: Study) -> list[str]:
    """How the numbers came about."""
    run, a = runs[0], analyses[0]
    names = {key: run.summary.get(key) for key in ("data", "reward", "reference", "model")}
    if a.climbs:  # each its own proxy
        names["gold reward"] = names.pop("reward") and run.config["choices"]["gold"]
    seeds = sorted({r.seed for r in runs})
    said = [
        f"Every algorithm starts from the same model and works on the same task: {_pairs(names)}. "
        f"{len(runs)} runs, seeds {_ranges(seeds)}.",
        _budget(runs),
        _metric(a.metric),
    ]
    idle: dict[str, set[str]] = {}
    for r in runs:
        for key in r.summary.get("unused", []):
            idle.setdefault(key, set()).add(r.label or r.algorithm)
    if idle:
        said.append(
            "No effect: " + "; ".join(f"{key} with {', '.join(sorted(with_))}" for key, with_ in sorted(idle.items())) + "."
        )
    if about.vary:
        said.append(f"Settings that differ on purpose, each value compared by itself: {', '.join(about.vary)}.")
    if about.sweep:
        said.append(f"Swept to make one frontier an algorithm: {', '.join(about.sweep)}.")
    if about.planned:
        said.append("Comparisons planned beforehand: " + ", ".join(" and ".join(pair) for pair in about.planned) + ".")
    return said


def statistics(a: Analysis, whole: Analysis | None = None) -> list[str]:
    """How intervals and tests work, and what they could find at most."""
    said = [
        "Intervals are 95 % intervals over seeds: of the mean by Student's t corrected for skewness (Hall, 1992), of the "
        "interquartile mean, which is the mean of the middle half of the seeds, by the jackknife. Simulated, both hold 93 to "
        "96 times of 100 with 5, 10 and 20 seeds, for normal and for skewed scores. They end where no score can be. They "
        "see what the seeds show: where one seed in ten fails, ten seeds show no failure in 35 studies of 100, and then no "
        "interval holds the mean; over all it holds 41 times of 100 with 5 seeds, 65 with 10, 87 with 20."
    ]
    if a.reached:
        said.append(
            f"Samples to {100 * a.threshold:.0f} % are those at the first evaluation that reaches it, so an upper bound. A run "
            "that stopped short counts as one that needs more than it had. The interval of the median is between order "
            "statistics, and needs six runs."
        )
    if not a.comparisons:
        return said
    family = (
        f"all {a.family} comparisons of this report" if whole is None else f"all {a.family} comparisons under all conditions"
    )
    said += [
        "Pairs are tested by flipping the signs of their differences on common seeds, every way there is (exact, two-sided), "
        f"and p is corrected for {family} together (Holm). The smallest p that {a.seeds} common seeds and {a.family} "
        f"comparisons can give is {p_text(a.smallest_p)[4:]}.",
        "P(first better) is how often a run of the first beats one of the second, any seed against any (its interval: "
        "Newcombe, 2006).",
    ]
    if whole is not None and whole.comparisons:
        said.append(
            "The means over conditions are compared first, as a family of their own, and single conditions behind them (serial "
            "gatekeeping; Westfall and Krishen, 2001): each seed's score is its mean over the "
            f"{whole.over} conditions, and the smallest p that {whole.seeds} seeds and {whole.family} comparisons can give is "
            f"{p_text(whole.smallest_p)[4:]}."
        )
    return said


def _pairs(names: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in names.items())


def _budget(runs: Sequence[Run]) -> str:
    allowed = dict.fromkeys(budget_text(budget(run)) for run in runs)
    if all(allowed):
        return f"Budget of every run: {', '.join(allowed)}{', by condition' if len(allowed) > 1 else ''}."
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
    return f"{title(metric).capitalize()} is that of the final evaluation, on held-out prompts; more is better."


def settings(runs: Sequence[Run]) -> Table:
    """What each label was trained with."""
    rows = []
    for label in dict.fromkeys(run.label for run in runs):
        run = next(r for r in runs if r.label == label)
        own = {key: value for key, value in flat(run.config.get("algorithm")).items() if key}
        beside = flat({name: run.config.get(name) for name in ("trainer", "rollout")})
        text = ", ".join(
            f"{k}={json.dumps(v) if isinstance(v, list | dict) else v}"
            for k, v in (own | {k: beside.get(k) for k in _told(run)}).items()
            if v is not None
        )
        rows.append([label, text])
    return Table(["algorithm", "settings"], rows)


def _told(run: Run) -> list[str]:
    """The settings beside the algorithm's own that had a say: what ends a run unless a budget does, and the rollout of one
    that samples."""
    length = "trainer.max_steps" if run.config.get("trainer", {}).get("max_steps") else "trainer.epochs"
    sampled = ["rollout.prompts", "rollout.samples"] if run.summary.get("completion_tokens") else []
    return ["trainer.learning_rate", "trainer.schedule", "trainer.batch", *([] if budget(run) else [length]), *sampled]


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


def _ranges(numbers: Sequence[int]) -> str:
    """0-9, 12."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
