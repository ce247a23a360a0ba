"""Equal tuning: before the runs that count, as many trials for every algorithm, each over its own search space, on seeds of
their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from omegaconf import OmegaConf

from alignzoo.bench import bench_folder, launch
from alignzoo.bench import space as spaces
from alignzoo.bench.grid import BenchRun, Settings, bench_run, condition, conditions
from alignzoo.bench.job import INTERRUPTED
from alignzoo.bench.suite import Request
from alignzoo.config import command_line, composition
from alignzoo.config.registry import Registry
from alignzoo.config.run import instantiate
from alignzoo.errors import UserError, nearest
from alignzoo.report.prose import paragraphs
from alignzoo.report.study import TrialOutcome, TuningOutcome
from alignzoo.runs import results
from alignzoo.settings import Search


@dataclass(frozen=True)
class Trial:
    """Settings {key: value} and their runs, one a tuning seed; the first trial's are none: everything as configured."""

    settings: Settings
    runs: list[BenchRun]


@dataclass(frozen=True)
class Tuning:
    """What is tried for one algorithm under one condition."""

    label: str
    condition: str
    space: spaces.Space
    trials: list[Trial]


def plan(request: Request) -> list[Tuning]:
    """What will be tried, each config composed and checked. Empty where nothing is to be tuned. Raises UserError."""
    if not request.bench.tune:
        return []
    if both := set(request.bench.tune_seeds) & set(request.seeds):
        raise UserError(f"bench.tune_seeds={request.bench.tune_seeds}: {sorted(both)[0]} is among seeds= too; tune on others")
    untuned = [
        bench_run(request, point, label, request.seeds[0], {}) for point in conditions(request) for label in request.algorithms
    ]
    ranges = _ranges(request, {run.label: run for run in untuned})
    return [_tuning(request, run, ranges[run.label]) for run in untuned]


def runs(tunings: Sequence[Tuning]) -> list[BenchRun]:
    """All of them, in the order they are started: a trial of every algorithm before the next."""
    numbered = [(number, run) for tuning in tunings for number, trial in enumerate(tuning.trials) for run in trial.runs]
    return [run for _, run in sorted(numbered, key=lambda pair: pair[0])]


def carry_out(request: Request, tunings: Sequence[Tuning]) -> list[TuningOutcome] | None:
    """Runs what isn't finished, and says what came of it; None where it was interrupted.

    The chosen trial is that of the best mean metric over the tuning seeds, the first of equals; one of whose runs any failed
    counts as the worst. Where all failed none is chosen.
    """
    trials = runs(tunings)
    if not trials:
        return []
    if INTERRUPTED in launch.execute(trials, request):
        return None
    from alignzoo.report.analysis import PREFERRED, preferred_metric

    failed = bench_folder.failures(request, trials)
    ended = {str(run.folder): results.find([run.folder]).runs[0] for run in trials if run.finished}
    metric = request.suite.metric or preferred_metric(list(ended.values())) or PREFERRED[-1]
    outcomes = [_outcome(tuning, metric, ended, failed) for tuning in tunings]
    print("\n".join(paragraphs("tuned", outcomes)))
    return outcomes


def chosen_settings(outcomes: Sequence[TuningOutcome]) -> dict[tuple[str, str], Settings]:
    """{(label, condition): the settings chosen}; none where the first trial was, which is everything as configured."""
    return {(o["label"], o["condition"]): o["trials"][o["chosen"]]["settings"] if o["chosen"] else {} for o in outcomes}


def choose(scores: Sequence[float | None]) -> int | None:
    """The place of the highest, the first of equals; None, a failure, is below all. None where all failed."""
    finite = [score for score in scores if score is not None]
    return scores.index(max(finite)) if finite else None


def _tuning(request: Request, untuned: BenchRun, ranges: Mapping[str, Search | None]) -> Tuning:
    label, varied, seeds = untuned.label, condition(request, untuned.point), request.bench.tune_seeds
    space = spaces.space(untuned.config, ranges, _fixed(request, untuned))
    folder = request.folder / bench_folder.TUNING / varied / label
    trials = []
    for number, settings in enumerate(space.trials(request.bench.tune or 0, seeds[0], request.algorithms[label])):
        _check(untuned, settings)
        places = {seed: folder / f"{number}-{seed}" for seed in seeds}
        of_label = (request, untuned.point, label)
        trial_runs = [bench_run(*of_label, seed, settings, place, request.suite.trial) for seed, place in places.items()]
        trials.append(Trial(settings, trial_runs))
    return Tuning(label, varied, space, trials)


def _check(untuned: BenchRun, settings: Settings) -> None:
    """Raises UserError where the algorithm refuses these settings together."""
    cfg = copy.deepcopy(untuned.config)
    for key, value in settings.items():
        OmegaConf.update(cfg, key, value)
    try:
        instantiate(cfg)
    except UserError as error:
        text = " ".join(f"{key}={value}" for key, value in settings.items())
        raise UserError(f"{untuned.label} can't be tuned with {text or 'what is configured'}: {error}") from None


def _ranges(request: Request, untuned: Mapping[str, BenchRun]) -> dict[str, dict[str, Search | None]]:
    """{label: {key: range}} of what the suite and the user say of ranges. Raises UserError for a key that no run has."""
    everyone, single = spaces.by_label(request.bench.search, {*request.suite.algorithms, *untuned})
    ranges: dict[str, dict[str, Search | None]] = {}
    for label, run in untuned.items():
        declared = spaces.declared(run.config)
        written = {key: value for key, value in everyone.items() if spaces.has(run.config, key)} | single.get(label, {})
        for key in written:
            if not spaces.has(run.config, key):
                raise UserError(f"bench.search: {label} has no key {key!r}.{nearest(key, declared)}")
            if key in request.suite.vary or key in request.suite.sweep:
                raise UserError(f"bench.search: {key} can't be tuned, because the suite varies or sweeps it")
        ranges[label] = {key: spaces.read(key, value, declared.get(key)) for key, value in written.items()}
    for key in everyone:
        if not any(key in of_label for of_label in ranges.values()):
            keys = {name for run in untuned.values() for name in spaces.declared(run.config)}
            raise UserError(f"bench.search: none of the algorithms has {key!r}.{nearest(key, keys)}")
    return ranges


def _fixed(request: Request, run: BenchRun) -> dict[str, str]:
    """{key: why it isn't searched unless asked for}: what makes a preset that preset, what a YAML file takes from the task,
    what was set for all runs, and what the suite gives several values."""
    preset = Registry(run.config.plugins_dir).get("algorithm", run.algorithm).preset
    preset_keys = results.flat({"algorithm": yaml.safe_load(preset.read_text("utf-8"))} if preset else {})
    overridden = [o.get_key_element().lstrip("+~") for o in command_line.parse(run.overrides)]
    return {
        **{key: f"what makes it {run.algorithm}" for key in preset_keys},
        **{key: f"tied to {expression}" for key, expression in composition.tied(run.overrides).items()},
        **{key: "set by an override" for key in overridden if "." in key},
        **{key: "varied by the suite" for key in request.suite.vary},
        **{key: "swept by the suite" for key in request.suite.sweep},
    }


def _outcome(
    tuning: Tuning, metric: str, ended: Mapping[str, results.Run], failed: Mapping[str, str]
) -> TuningOutcome:  # fmt: skip
    """A run without a finite score makes its whole trial fail: a mean of the rest would favour settings that break."""
    trials: list[TrialOutcome] = []
    for trial in tuning.trials:
        settings = {**tuning.space.configured, **trial.settings}
        scores = [ended[str(run.folder)].score(metric) if str(run.folder) in ended else None for run in trial.runs]
        finite = [score for score in scores if score is not None]
        bad = [str(run.folder) for run, score in zip(trial.runs, scores, strict=True) if score is None]
        error = failed.get(bad[0], f"no finite {metric}") if bad else ""
        mean = None if bad else math.fsum(finite) / len(finite)
        by_seed = {str(run.seed): score for run, score in zip(trial.runs, scores, strict=True)}
        trials.append({"settings": settings, "scores": by_seed, "score": mean, "error": error})
    chosen = choose([trial["score"] for trial in trials])
    costs = [ended[str(run.folder)].cost for run in runs([tuning]) if str(run.folder) in ended]
    return {
        "label": tuning.label, "condition": tuning.condition, "metric": metric,
        "space": {d.key: str(d.search) for d in tuning.space.dimensions}, "left_out": tuning.space.left_out,
        "trials": trials, "chosen": chosen,
        "edges": [] if chosen is None else tuning.space.edges(trials[chosen]["settings"]),
        "cost": {name: math.fsum(cost.get(name, 0.0) for cost in costs) for name in dict.fromkeys(k for c in costs for k in c)},
    }  # fmt: skip
