"""Which runs can be compared, and what sets them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from alignzoo.errors import UserError
from alignzoo.runs.results import Run, budget, flat

TASK_GENERATION = ("temperature", "top_k", "top_p", "min_p", "max_new_tokens")  # how evaluation draws, so part of the task
START = ("copy", "adapter", "cached")
COMPARED = ("data", "reward", "gold", "reference", "budget")  # groups that runs must share to be comparable
NOT_SETTINGS = ("seed", "label", "choices", "run_dir", "resume", "plugins_dir", "stages")


def identity(run: Run, vary: Sequence[str] = ()) -> dict[str, dict[str, object]]:
    """What two runs must share, by subject: {task, reward, reference, budget: {dotted key: value}}, without the keys
    of `vary`.
    """
    config, choices = run.config, run.config.get("choices", {})
    generation = {key: config.get("generation", {}).get(key) for key in TASK_GENERATION}
    subjects = {
        "task": {"data": choices.get("data"), "model": choices.get("model")}
        | flat({"data": config.get("data"), "model": config.get("model"), "generation": generation}),
        "reward": {"reward": choices.get("reward")} | flat({"reward": config.get("reward")}),
        "gold": {"gold": choices.get("gold") or "none"} | flat({"gold": config.get("gold") or {}}),
        "reference": _reference(choices.get("reference"), config.get("reference")),
        "budget": budget(run),
    }
    if choices.get("gold") not in (None, "none"):  # what is climbed on the way to it is an algorithm's own affair
        subjects["reward"] = {}
    subjects["task"].pop("data.rows", None)  # the length of an epoch: a matter of cost
    return {subject: {k: v for k, v in keys.items() if k not in vary} for subject, keys in subjects.items()}


def _reference(choice: str | None, settings: object) -> dict[str, object]:
    """The policy's start is one reference, whether it is a copy, the policy without its adapter, or kept log-probs."""
    return {"reference": "copy"} if choice in START else {"reference": choice, **flat({"reference": settings})}


def check_comparable(runs: Sequence[Run], vary: Sequence[str] = ()) -> None:
    """Raises UserError that names the runs that are not comparable with the first, and the setting that says so."""
    first = identity(runs[0], vary)
    complaints = []
    for run in runs[1:]:
        for subject, keys in identity(run, vary).items():
            differing = [k for k in {**first[subject], **keys} if first[subject].get(k) != keys.get(k)]
            if differing:
                key = differing[0]
                complaints.append(f"{run.folder}: another {subject} ({key}={keys.get(key)}, not {first[subject].get(key)})")
                break
    if complaints:
        more = f"\n  and {len(complaints) - 8} more" if len(complaints) > 8 else ""
        raise UserError(
            f"runs that are not comparable with {runs[0].folder}; report them apart:\n  " + "\n  ".join(complaints[:8]) + more
        )


def named(runs: Sequence[Run], vary: Sequence[str] = (), sweep: Sequence[str] = ()) -> list[Run]:
    """The runs with their condition, the values of `vary`, and label: runs of one algorithm with other settings, the values of
    `sweep` among them, get labels that say which.

    Raises UserError for two runs of the same label, condition and seed.
    """
    settings = [_settings(run, vary) | picked(run, sweep) for run in runs]
    conditioned = [replace(run, condition=_text(picked(run, vary))) for run in runs]
    labelled = []
    for run, of_run in zip(conditioned, settings, strict=True):
        of_algorithm = [s for r, s in zip(runs, settings, strict=True) if r.algorithm == run.algorithm]
        differing = sorted(k for k in of_run if any(s.get(k) != of_run[k] for s in of_algorithm))
        labelled.append(replace(run, label=" ".join([run.algorithm, _text({k: of_run[k] for k in differing})]).strip()))
    ordered = sorted(labelled, key=lambda r: (r.condition, r.label, r.seed, str(r.folder)))
    for a, b in pairwise(ordered):
        if (a.condition, a.label, a.seed) == (b.condition, b.label, b.seed):
            raise UserError(f"{a.folder} and {b.folder} are the same run: {a.label}, seed {a.seed}. Give one of them")
    return labelled


def _settings(run: Run, vary: Sequence[str]) -> dict[str, object]:
    """What may set two runs of one algorithm apart: all settings but those that make runs comparable, and those varied."""
    shared = {key for keys in identity(run).values() for key in keys} | {"data.rows"}
    apart = {key: value for key, value in run.config.items() if key not in (*NOT_SETTINGS, *COMPARED)}
    settings = {key: value for key, value in flat(apart).items() if key not in shared and key not in vary}
    if settings.get("making.seed") == run.seed:  # said of every run that makes its data with its own seed
        del settings["making.seed"]
    return settings


def picked(run: Run, vary: Sequence[str]) -> dict[str, object]:
    """The values of these dotted settings, where it has them."""
    everything = flat(run.config)
    return {key: everything[key] for key in vary if key in everything}


def _text(settings: dict[str, object]) -> str:
    return " ".join(f"{key.removeprefix('algorithm.')}={value}" for key, value in settings.items())
