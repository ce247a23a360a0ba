"""What the page says, as plain tables and paragraphs that both the HTML and the Markdown show."""

from __future__ import annotations

import json
from collections.abc import Sequence

from alignzoo.common.metric_table import AREA, COST_TITLES, title
from alignzoo.report.analysis import Analysis
from alignzoo.report.prose import TextTable, bare_difference, difference, p_text, paragraphs, reached_text, short, with_interval
from alignzoo.report.study import Study
from alignzoo.runs.results import Run, budget, budget_text, flat
from alignzoo.statistics.comparison import Comparison

EXACT = {"reward": "expected_reward", "kl": "exact_kl"}  # computed, where the task allows it


def results(a: Analysis) -> TextTable:
    """One row an algorithm."""
    unit = ", %" if a.metric == "gap_closed" else ""
    columns = ["algorithm", f"{title(a.metric)}{unit}: mean (95 % interval)", "interquartile mean (95 % interval)", "seeds"]
    beside = {} if a.metric == AREA else {text: _measured(a, name) for name, text in (("reward", "reward"), ("kl", "KL"))}
    beside = {text: name for text, name in beside.items() if name and text != a.metric}
    to_threshold = [f"samples to {100 * a.threshold:.0f} %: median"] if a.reached else []
    rows = []
    for entry in a.entries:
        s = entry.summary
        row = [
            entry.label,
            with_interval(a.metric, s.mean, s.interval),
            with_interval(a.metric, s.interquartile_mean, s.interquartile_interval),
            str(s.count),
        ]
        row += [f"{sum(run.summary['metrics'][name] for run in entry.runs) / len(entry.runs):.4g}" for name in beside.values()]
        if a.reached:
            row.append(reached_text(a.reached[entry.label]) if entry.label in a.reached else "not known")
        rows.append(row)
    return TextTable([*columns, *beside, *to_threshold], rows)


def _measured(a: Analysis, name: str) -> str | None:
    """The exact measure's name where all runs have it, else the sampled one's, else None."""
    metrics = [run.summary["metrics"] for entry in a.entries for run in entry.runs]
    return next((measure for measure in (EXACT[name], name) if all(measure in m for m in metrics)), None)


def on_defaults(a: Analysis, about: Study) -> list[str]:
    """Which algorithms nothing sets values for in this experiment, while it does for others; not known of older runs."""
    choices = {e.label: e.runs[0].config.get("choices", {}) for e in a.entries}
    without = [label for label, chosen in choices.items() if chosen.get("experiment") and chosen.get("settings", "") is None]
    if about.tuning or not without or len(without) == len(choices):
        return []
    return paragraphs("on_defaults", without, choices[without[0]]["experiment"])


def bill(a: Analysis) -> TextTable:
    """What a run of each took, in short: the mean over runs."""
    names = [name for name in ("samples", "tokens", "flops", "seconds") if any(e.cost(name) is not None for e in a.entries)]
    rows = [[e.label, *("" if (v := e.cost(name)) is None else short(v) for name in names)] for e in a.entries]
    return TextTable(["a run costs", *(COST_TITLES[name] for name in names)], rows, "bill")


def comparisons(a: Analysis) -> TextTable:
    """One row a pair."""
    rows = []
    for c in a.comparisons:
        ends = [bare_difference(a.metric, end) for end in c.interval or ()]
        chance = f" ({c.improvement_interval[0]:.2f} to {c.improvement_interval[1]:.2f})" if c.improvement_interval else ""
        margin = [] if c.margin is None else [p_text(c.equivalence_corrected)[4:]]
        rows.append(
            [
                f"{c.first} \N{MINUS SIGN} {c.second}", difference(a.metric, c.difference), " to ".join(ends) or "none",
                f"{c.improvement:.2f}{chance}", str(c.seeds), p_text(c.p)[4:], p_text(c.corrected)[4:], *margin,
                _verdict(a.metric, c),
            ]
        )  # fmt: skip
    columns = ["pair", "difference", "95 % interval", "P(first better)", "common seeds", "p", "p after Holm"]
    level = [f"p of {difference(a.metric, c.margin)} or more, after Holm" for c in a.comparisons[:1] if c.margin is not None]
    return TextTable([*columns, *level, "verdict"], rows)


def _verdict(metric: str, c: Comparison) -> str:
    near = [f"within {difference(metric, c.margin)}"] if c.equivalent and c.margin is not None else []
    if c.separated:
        return ", ".join([(c.first if c.difference > 0 else c.second) + " is better", *near])
    return f"level {near[0]}" if near else "not told apart" if c.margin is None else "open"


def counts(runs: Sequence[Run]) -> str:
    """How much there is."""
    numbers = {"algorithm": len({run.algorithm for run in runs}), "seed": len({run.seed for run in runs}), "run": len(runs)}
    return ", ".join(f"{count} {unit}{'' if count == 1 else 's'}" for unit, count in numbers.items())


def method(runs: Sequence[Run], analyses: Sequence[Analysis], about: Study) -> list[str]:
    """How the numbers came about."""
    names = {key: runs[0].summary.get(key) for key in ("data", "reward", "reference", "model")}
    if analyses[0].climbs:  # each its own proxy
        del names["reward"]
        names["gold reward"] = runs[0].config["choices"]["gold"]
    unused: dict[str, set[str]] = {}
    for run in runs:
        for key in run.summary.get("unused", []):
            unused.setdefault(key, set()).add(run.label or run.algorithm)
    by_key = {key: sorted(labels) for key, labels in sorted(unused.items())}
    budgets = list(dict.fromkeys(budget_text(budget(run)) for run in runs))
    seeds = ranges(sorted({run.seed for run in runs}))
    return paragraphs("method", about, analyses[0].metric, len(runs), seeds, names, budgets, by_key)


def settings(runs: Sequence[Run]) -> TextTable:
    """What each label was trained with: the algorithm's own settings, and those beside them that had a say, which are what ends
    a run unless a budget does, and the rollout of one that samples."""
    rows = []
    for run in {run.label: run for run in reversed(runs)}.values():
        length = "trainer.max_steps" if run.config.get("trainer", {}).get("max_steps") else "trainer.epochs"
        sampled = ["rollout.prompts", "rollout.samples"] if run.summary.get("completion_tokens") else []
        keys = ["trainer.learning_rate", "trainer.schedule", "trainer.batch", *([] if budget(run) else [length]), *sampled]
        beside = flat({name: run.config.get(name) for name in ("trainer", "rollout")})
        shown = flat(run.config.get("algorithm")) | {key: beside.get(key) for key in keys}
        texts = [
            f"{key}={json.dumps(value) if isinstance(value, list | dict) else value}"
            for key, value in shown.items()
            if key and value is not None
        ]
        rows.append([run.label, ", ".join(texts)])
    return TextTable(["algorithm", "settings"], rows[::-1], "texts cards")


def machine(runs: Sequence[Run]) -> TextTable:
    """Versions and hardware; several values where runs differ."""
    facts: dict[str, dict[str, None]] = {}
    for name in ("platform", "python", "cpus", "threads", "processes", "devices", "commit", "versions"):
        for value in (run.environment.get(name) for run in runs):
            for key, part in value.items() if isinstance(value, dict) else [(name, value)]:
                text = ", ".join(map(str, part)) or "no accelerator" if isinstance(part, list) else str(part)
                if part is not None:
                    facts.setdefault(key, {})[text] = None
    return TextTable(["what", "value"], [[key, "; ".join(texts)] for key, texts in facts.items()], "texts")


def ranges(numbers: Sequence[int]) -> str:
    """0-9, 12."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
