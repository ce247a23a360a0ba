"""Equal tuning: before the runs that count, as many trials for every algorithm, each over its own search space, on seeds of
their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from alignzoo.bench import launch, record
from alignzoo.bench import space as spaces
from alignzoo.bench.job import INTERRUPTED
from alignzoo.bench.plan import Run, condition, conditions, made
from alignzoo.bench.request import Request
from alignzoo.bench.suite import labelled
from alignzoo.config import composition, grammar
from alignzoo.config.registry import Registry
from alignzoo.config.run import instantiate
from alignzoo.errors import UserError, nearest
from alignzoo.runs import results
from alignzoo.settings import Search

Tuned = dict[tuple[str, str], dict[str, Any]]  # {(label, condition): {key: value}}


@dataclass(frozen=True)
class Trial:
    """Settings {key: value} and their runs, one a tuning seed; the first trial's are none: everything as configured."""

    settings: dict[str, Any]
    runs: list[Run]


@dataclass(frozen=True)
class Tuning:
    """What is tried for one algorithm under one condition."""

    label: str
    condition: str
    space: spaces.Space
    trials: list[Trial]


def plan(request: Request) -> list[Tuning]:
    """What will be tried, each config composed and checked. Empty where nothing is to be tuned. Raises UserError."""
    if not request.tune:
        return []
    if both := set(request.tune_seeds) & set(request.seeds):
        raise UserError(f"bench.tune_seeds={request.tune_seeds}: {sorted(both)[0]} is among seeds= too; tune on others")
    cases = [(label, point) for point in conditions(request) for label in request.algorithms]
    first = {(label, condition(request, point)): made(request, point, label, request.seeds[0], {}) for label, point in cases}
    asked = _asked(request, {label: run for (label, _), run in first.items()})
    found = []
    for label, point in cases:
        run = first[label, condition(request, point)]
        space = spaces.space(run.config, asked[label], _fixed(request, run))
        trials = space.trials(request.tune, request.tune_seeds[0], request.algorithms[label])
        found.append(_tuning(request, run, space, trials))
    return found


def runs(tunings: Sequence[Tuning]) -> list[Run]:
    """All of them, in the order they are started: a trial of every algorithm before the next."""
    found = [(number, run) for tuning in tunings for number, trial in enumerate(tuning.trials) for run in trial.runs]
    return [run for _, run in sorted(found, key=lambda pair: pair[0])]


def carry_out(request: Request, tunings: Sequence[Tuning]) -> list[dict[str, Any]] | None:
    """Runs what isn't finished, and says what came of it; None where it was interrupted."""
    trials = runs(tunings)
    if not trials:
        return []
    if INTERRUPTED in launch.execute(trials, request):
        return None
    found = outcome(tunings, request.suite.metric, record.failures(request, trials))
    for said in found:
        print(told(said))
    return found


def outcome(tunings: Sequence[Tuning], metric: str | None, failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """What was tried and what came of it, for bench.json, when all runs have ended. `failed` is {folder: why}.

    The `chosen` trial is that of the best mean `metric` over the tuning seeds, the first of equals; one of whose runs any
    failed counts as the worst. Where all failed none is chosen.
    """
    ended = {run.folder: _result(run) for run in runs(tunings)}
    name = metric or _metric([result for result in ended.values() if result])
    return [_outcome(tuning, name, ended, failed) for tuning in tunings]


def tuned(outcomes: Sequence[Mapping[str, Any]]) -> Tuned:
    """The settings chosen; none where the first trial was, which is everything as configured."""
    return {
        (said["label"], said["condition"]): said["trials"][said["chosen"]]["settings"] if said["chosen"] else {}
        for said in outcomes
    }


def told(said: Mapping[str, Any]) -> str:
    """An outcome in one line."""
    who = " ".join(part for part in (said["condition"], said["label"]) if part)
    tried, chosen = said["trials"], said["chosen"]
    if chosen is None:
        return f"{who}: all {len(tried)} trials failed: it runs as configured"
    if len(tried) == 1:
        return f"{who}: nothing to tune"
    settings = ", ".join(f"{key}={value}" for key, value in tried[chosen]["settings"].items())
    scores = [trial["score"] for trial in (tried[chosen], tried[0])]
    best, first = ("failed" if score is None else f"{score:.4g}" for score in scores)
    what = f"{best}, {first} as configured" if chosen else f"{best}, as configured"
    return f"{who}: best {said['metric']} of {len(tried)} trials is {what}: {settings}"


def choose(scores: Sequence[float | None]) -> int | None:
    """The place of the highest, the first of equals; None, a failure, is below all. None where all failed."""
    known = [score for score in scores if score is not None]
    return scores.index(max(known)) if known else None


def _tuning(request: Request, first: Run, space: spaces.Space, settings: list[dict[str, Any]]) -> Tuning:
    where = request.folder / record.TUNING / condition(request, first.point) / first.label
    for given in settings:
        _check(first, given)
    trials = [
        Trial(
            given,
            [made(request, first.point, first.label, s, given, where / f"{number}-{s}") for s in request.tune_seeds],
        )
        for number, given in enumerate(settings)
    ]
    return Tuning(first.label, condition(request, first.point), space, trials)


def _check(first: Run, settings: Mapping[str, Any]) -> None:
    """Raises UserError where the algorithm refuses these settings together."""
    cfg = copy.deepcopy(first.config)
    for key, value in settings.items():
        OmegaConf.update(cfg, key, value)
    try:
        instantiate(cfg)
    except UserError as error:
        text = " ".join(f"{key}={value}" for key, value in settings.items())
        raise UserError(f"{first.label} can't be tuned with {text or 'what is configured'}: {error}") from None


def _asked(request: Request, first: Mapping[str, Run]) -> dict[str, dict[str, Search | None]]:
    """{label: {key: range}} of what the suite and the user say of ranges. Raises UserError for a key that no run has."""
    everyone, single = spaces.given(request.search, [*labelled(request.suite.algorithms), *first])
    found: dict[str, dict[str, Search | None]] = {}
    for label, run in first.items():
        own = {key: value for key, value in everyone.items() if spaces.has(run.config, key)} | single.get(label, {})
        before = spaces.declared(run.config)
        _check_keys(request, run, own)
        found[label] = {key: spaces.read(key, value, before.get(key)) for key, value in own.items()}
    for key in everyone:
        if not any(key in own for own in found.values()):
            known = {name for run in first.values() for name in spaces.declared(run.config)}
            raise UserError(f"bench.search: none of the algorithms has {key!r}.{nearest(key, known)}")
    return found


def _check_keys(request: Request, run: Run, keys: Iterable[str]) -> None:
    for key in keys:
        if not spaces.has(run.config, key):
            raise UserError(f"bench.search: {run.label} has no key {key!r}.{nearest(key, spaces.declared(run.config))}")
        if key in request.vary or key in request.sweep:
            raise UserError(f"bench.search: {key} can't be tuned, because the suite varies or sweeps it")


def _fixed(request: Request, run: Run) -> dict[str, str]:
    """{key: why it isn't searched unless asked for}: what makes a preset that preset, what a YAML file takes from the task,
    what was set for all runs, and what the suite gives several values."""
    preset = Registry(run.config.plugins_dir).get("algorithm", run.algorithm).preset
    named = results.flat({"algorithm": yaml.safe_load(preset.read_text("utf-8"))} if preset else {})
    tied = composition.tied(run.overrides)
    given = [o.get_key_element().lstrip("+~") for o in grammar.parse(run.overrides)]
    return {
        **{key: f"what makes it {run.algorithm}" for key in named},
        **{key: f"tied to {expression}" for key, expression in tied.items()},
        **{key: "set by an override" for key in given if "." in key},
        **{key: "varied by the suite" for key in request.vary},
        **{key: "swept by the suite" for key in request.sweep},
    }


def _outcome(
    tuning: Tuning, metric: str, ended: Mapping[Path, results.Run | None], failed: Mapping[str, str]
) -> dict[str, Any]:
    space = tuning.space
    configured = {d.key: spaces.plain(d.configured) for d in space.dimensions}
    tried: list[dict[str, Any]] = []
    for trial in tuning.trials:
        scores = {str(run.seed): result.score(metric) if (result := ended[run.folder]) else None for run in trial.runs}
        known = [score for score in scores.values() if score is not None]
        bad = [run for run in trial.runs if scores[str(run.seed)] is None]
        error = failed.get(str(bad[0].folder), f"no finite {metric}") if bad else ""
        mean = None if bad else math.fsum(known) / len(known)
        tried.append({"settings": {**configured, **trial.settings}, "scores": scores, "score": mean, "error": error})
    chosen = choose([trial["score"] for trial in tried])
    return {
        "label": tuning.label, "condition": tuning.condition, "metric": metric,
        "space": {d.key: str(d.search) for d in space.dimensions}, "left_out": space.left_out,
        "trials": tried, "chosen": chosen, "edges": [] if chosen is None else space.edges(tried[chosen]["settings"]),
        "cost": _cost([result for run in runs([tuning]) if (result := ended[run.folder])]),
    }  # fmt: skip


def _result(run: Run) -> results.Run | None:
    return results.find([run.folder]).runs[0] if run.finished else None


def _metric(found: Sequence[results.Run]) -> str:
    """What the report will compare where the suite doesn't say."""
    from alignzoo.report.analysis import PREFERRED

    return next((name for name in PREFERRED if all(name in run.summary["metrics"] for run in found)), PREFERRED[-1])


def _cost(found: Sequence[results.Run]) -> dict[str, float]:
    """What the finished trials cost together."""
    names = dict.fromkeys(name for result in found for name in result.cost)
    return {name: math.fsum(result.cost.get(name, 0.0) for result in found) for name in names}
