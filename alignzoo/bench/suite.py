"""What a suite says, and what `alignzoo bench` takes beside it: the schemas of `conf/suite/*.yaml` and `conf/bench.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from alignzoo.errors import UserError, require

ALGORITHMS = ("dpo", "ppo", "distill", "reinforce")
TRIALS = ">= 2, the first being what is configured; or 0"
FIRST_TUNING_SEED = 10_000
LABEL = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(kw_only=True)
class Suite:
    """A comparison worth making again: `conf/suite/NAME.yaml`.

    `algorithms` are names of algorithms and presets; LABEL:NAME gives one another name, so that it can be there twice.
    """

    title: str = ""
    description: str = ""
    algorithms: Any = field(default_factory=lambda: list(ALGORITHMS))
    seeds: Any = 1  # how many (0, 1, ...), or a list of which
    overrides: list[str] = field(default_factory=list)  # of every run; {seed} stands for its seed
    override: dict[str, list[str]] = field(default_factory=dict)  # of the runs of one label
    vary: dict[str, Any] = field(default_factory=dict)  # {key: values} that make conditions, each compared by itself
    crossed: bool = True  # every combination of what is varied; false: one key at a time, the others at their first value
    sweep: dict[str, Any] = field(default_factory=dict)  # {key: values} that make one frontier
    planned: list[Any] = field(default_factory=list)  # pairs of labels to compare; none: all
    threshold: float = 0.9  # the share of the gap that learning curves are asked about
    metric: str | None = None  # what to compare; none: gap_closed where all runs have it, else gold, else reward
    tune: int = 0  # trials for each algorithm before the runs that count
    search: dict[str, Any] = field(default_factory=dict)  # {key: range}, or {label: {key: range}}, for those that are declared

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "suite.threshold", self.threshold, "in (0, 1]")
        require(self.tune >= 0 and self.tune != 1, "suite.tune", self.tune, TRIALS)


@dataclass(kw_only=True)
class Options:
    """The node `bench`: how runs are run, and what the user asks of single algorithms."""

    threads: int = 1  # of each run
    tune: int | None = None  # none: as the suite says
    tune_seeds: Any = 1  # of each trial: how many, or a list of which
    search: dict[str, Any] = field(default_factory=dict)  # in place of the suite's
    override: dict[str, list[str]] = field(
        default_factory=dict
    )  # bench.override.LABEL='[key=value,...]', after the suite's own

    def __post_init__(self) -> None:
        require(self.threads >= 1, "bench.threads", self.threads, ">= 1")
        require(self.tune is None or (self.tune >= 0 and self.tune != 1), "bench.tune", self.tune, TRIALS)


@dataclass(kw_only=True)
class BenchConfig:
    """The schema of `conf/bench.yaml`."""

    suite: Suite = field(default_factory=Suite)
    bench: Options = field(default_factory=Options)
    algorithms: Any = None
    seeds: Any = None
    folder: str = "runs/bench"
    jobs: int | None = None
    dry_run: bool = False
    run: int | None = None  # which run of the grid a launched job is; filled in by bench itself


ConfigStore.instance().store(name="bench_schema", node=BenchConfig)


def labelled(entries: Any) -> dict[str, str]:
    """{label: algorithm} of NAME, LABEL:NAME or {LABEL: NAME}, or a list of these. Raises UserError for a label that is there
    twice.
    """
    found: dict[str, str] = {}
    for label, name in (pair for entry in (entries if isinstance(entries, list) else [entries]) for pair in _pairs(entry)):
        if not LABEL.fullmatch(label):
            raise UserError(f"algorithms: {label!r} is no label: write NAME or LABEL:NAME, of letters, digits, - and _")
        if label in found:
            raise UserError(f"algorithms: {label!r} is there twice: give one another name, as in {label}_2:{name}")
        found[label] = name
    if not found:
        raise UserError("algorithms=[] is out of range: must be one or more names")
    return found


def _pairs(entry: Any) -> list[tuple[str, str]]:
    if isinstance(entry, dict):
        return [(str(label), str(name)) for label, name in entry.items()]
    label, colon, name = str(entry).partition(":")
    return [(label.strip(), name.strip() if colon else label.strip())]


def seeds_of(value: Any) -> list[int]:
    """How many, or which. Raises UserError for anything else, and for none."""
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(seeds, list) or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UserError(f"seeds={value} is neither a whole number nor a list of them")
    if not seeds:
        raise UserError(f"seeds={value} is out of range: must be a number >= 1, or a list of seeds")
    return list(dict.fromkeys(seeds))


def tuning_seeds(value: Any) -> list[int]:
    """How many, far from those of the runs that count, or which."""
    return [FIRST_TUNING_SEED + seed for seed in seeds_of(value)] if isinstance(value, int) else seeds_of(value)


def pairs_of(planned: list[Any]) -> list[list[str]]:
    """Raises UserError for what is no list of pairs."""
    for pair in planned:
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"suite.planned={planned} is no list of pairs: write [[first,second],[first,third]]")
    return [[str(label) for label in pair] for pair in planned]


def grid(node: dict[str, Any], name: str) -> dict[str, list[Any]]:
    """{dotted key: values} of `vary` or `sweep`, in which keys may be nested. Raises UserError for no list."""
    found: dict[str, list[Any]] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= {f"{key}.{inner}": values for inner, values in grid(value, f"{name}.{key}").items()}
        elif not isinstance(value, list) or not value:
            raise UserError(f"{name}.{key}={value} is no list of values: write {name}.{key}=[a,b]")
        else:
            found[str(key)] = value
    return found
