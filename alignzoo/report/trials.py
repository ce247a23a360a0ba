"""What was tried before the runs that count: the ranges, every trial, what was kept, what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.common.metric_table import COST_TITLES, title
from alignzoo.report.prose import TextTable, number, paragraphs, short
from alignzoo.report.study import TrialOutcome, TuningOutcome


def sentences(outcomes: Sequence[TuningOutcome]) -> list[str]:
    """How it was tuned, at what cost, and what to be wary of."""
    counts = [str(count) for count in sorted({len(outcome["trials"]) for outcome in outcomes if outcome["space"]})]
    seeds = [seed for outcome in outcomes for trial in outcome["trials"] for seed in trial["scores"]]
    totals = {name: sum(outcome["cost"].get(name, 0.0) for outcome in outcomes) for name in COST_TITLES if name != "steps"}
    cost = [f"{short(total)} {COST_TITLES[name]}" for name, total in totals.items() if total]
    return paragraphs("tuning", outcomes, counts, sorted(set(seeds), key=int), len(seeds), cost)


def ranges(outcomes: Sequence[TuningOutcome]) -> TextTable:
    rows = []
    for outcome in outcomes:
        kept = outcome["trials"][outcome["chosen"] or 0]["settings"]
        rows += [[_who(outcome), key, within, _text(kept[key])] for key, within in outcome["space"].items()]
        rows += [[_who(outcome), key, f"not searched: {why}", "as configured"] for key, why in outcome["left_out"].items()]
    return TextTable(["algorithm", "setting", "searched", "kept"], rows, "texts cards")


def trials(outcomes: Sequence[TuningOutcome]) -> TextTable:
    rows = []
    for outcome in outcomes:
        for place, trial in enumerate(outcome["trials"]):
            short_keys = {k.removeprefix("algorithm.").removeprefix("trainer."): v for k, v in trial["settings"].items()}
            settings = ", ".join(f"{key}={_text(value)}" for key, value in short_keys.items())
            notes = ["as configured"] * (place == 0) + ["kept"] * (place == outcome["chosen"])
            rows.append([f"{_who(outcome)}, trial {place}", settings, _score(outcome["metric"], trial), ", ".join(notes)])
    return TextTable(["trial", "settings", title(outcomes[0]["metric"]), "which"], rows, "texts cards")


def _score(metric: str, trial: TrialOutcome) -> str:
    """The mean; beside it, of several, that of each seed."""
    each = [number(metric, score) if score is not None else "failed" for score in trial["scores"].values()]
    mean = f"failed: {trial['error']}" if trial["score"] is None else number(metric, trial["score"])
    return mean if len(each) == 1 else f"{mean} ({', '.join(each)})"


def _who(outcome: TuningOutcome) -> str:
    return f"{outcome['label']} ({outcome['condition']})" if outcome["condition"] else outcome["label"]


def _text(value: object) -> str:
    return "null" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
