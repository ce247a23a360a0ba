"""What was tried before the runs that count: the ranges, every trial, what was kept, what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.report.answer import COST_TITLES, listed, number, short, title
from alignzoo.report.sections import Table

Outcome = Mapping[str, Any]  # one of `tuning` in bench.json: see `alignzoo.bench.tuning.outcome`


@dataclass(frozen=True)
class Section:
    """What the page says of tuning; `said` in full view, the tables folded."""

    said: list[str]
    ranges: Table
    trials: Table


def section(outcomes: Sequence[Outcome]) -> Section | None:
    """None where nothing was tuned."""
    if not outcomes:
        return None
    return Section([_how(outcomes), _cost(outcomes), *_remarks(outcomes)], _ranges(outcomes), _trials(outcomes))


def _how(outcomes: Sequence[Outcome]) -> str:
    counts = sorted({len(said["trials"]) for said in outcomes if said["space"]})
    seeds = sorted({int(seed) for said in outcomes for trial in said["trials"] for seed in trial["scores"]})
    trials = f"{listed([str(count) for count in counts])} trials" if counts else "nothing to search"
    on = f"seed {seeds[0]}, which is" if len(seeds) == 1 else f"seeds {listed([str(seed) for seed in seeds])}, which are"
    return (
        f"Before these runs every algorithm was tuned alike: {trials} each, as long as the runs that count, on {on} "
        "none of theirs. The first trial is what was configured, the others spread over the ranges that the algorithm declares "
        f"(scrambled Sobol sequence); the settings of the best mean {title(outcomes[0]['metric'])} were kept."
    )


def _cost(outcomes: Sequence[Outcome]) -> str:
    runs = sum(len(trial["scores"]) for said in outcomes for trial in said["trials"])
    names = [name for name in COST_TITLES if name != "steps" and any(said["cost"].get(name) for said in outcomes)]
    total = {name: sum(said["cost"].get(name, 0.0) for said in outcomes) for name in names}
    costs = listed([f"{short(total[name])} {COST_TITLES[name]}" for name in names]) if names else "nothing that was counted"
    return f"Tuning took {runs} runs and cost {costs}, which is not in the costs of the algorithms."


def _remarks(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What to be wary of."""
    for said in outcomes:
        who, tried, chosen = _who(said), said["trials"], said["chosen"]
        failed = [trial for trial in tried if trial["score"] is None]
        if chosen is None:
            yield f"{who}: all {len(tried)} trials failed ({failed[0]['error']}), so it ran as configured."
        elif failed:
            count = "one trial" if len(failed) == 1 else f"{len(failed)} trials"
            yield f"{who}: {count} of {len(tried)} failed and counted as the worst ({failed[0]['error']})."
        if not said["space"]:
            yield f"{who}: no setting is searched, so it ran as configured."
        for key in said["edges"]:
            value, within = _text(tried[chosen]["settings"][key]), said["space"][key]
            yield f"{who}: {key}={value} lies at the end of its range ({within}). The range may be too narrow."


def _ranges(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for said in outcomes:
        kept = said["trials"][said["chosen"] or 0]["settings"]
        rows += [[_who(said), key, within, _text(kept[key])] for key, within in said["space"].items()]
        rows += [[_who(said), key, f"not searched: {why}", "as configured"] for key, why in said["left_out"].items()]
    return Table(["algorithm", "setting", "searched", "kept"], rows)


def _trials(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for said in outcomes:
        for place, trial in enumerate(said["trials"]):
            settings = ", ".join(f"{_short(key)}={_text(value)}" for key, value in trial["settings"].items())
            notes = [text for text, holds in (("as configured", not place), ("kept", place == said["chosen"])) if holds]
            rows.append([f"{_who(said)}, trial {place}", settings, _score(said["metric"], trial), ", ".join(notes)])
    return Table(["trial", "settings", title(outcomes[0]["metric"]), "which"], rows)


def _score(metric: str, trial: Mapping[str, Any]) -> str:
    """The mean; beside it, of several, that of each seed."""
    each = [number(metric, score) if score is not None else "failed" for score in trial["scores"].values()]
    mean = f"failed: {trial['error']}" if trial["score"] is None else number(metric, trial["score"])
    return mean if len(each) == 1 else f"{mean} ({', '.join(each)})"


def _who(said: Outcome) -> str:
    return f"{said['label']} ({said['condition']})" if said["condition"] else str(said["label"])


def _short(key: str) -> str:
    return key.removeprefix("algorithm.").removeprefix("trainer.")


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
