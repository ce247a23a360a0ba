"""What a suite says, and what `alignzoo bench` takes beside it: the schemas of `conf/suite/*.yaml` and `conf/bench.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from alignzoo.errors import UserError, require
from alignzoo.runs.results import flat
from alignzoo.settings import Search

ALGORITHMS = ("dpo", "ppo", "distill", "reinforce")
TRIALS = ">= 2, the first being what is configured; or 0"
FIRST_TUNING_SEED = 10_000
RANGE = {f.name for f in fields(Search)}
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
    margin: float | None = None  # how far apart two may be and count as level; none: that is not asked
    threshold: float = 0.9  # the share of the gap that learning curves are asked about
    metric: str | None = None  # what to compare; none: gap_closed where all runs have it, else gold, else reward
    tune: int = 0  # trials for each algorithm before the runs that count
    search: dict[str, Any] = field(default_factory=dict)  # {key: range}, or {label: {key: range}}, for those that are declared
    trial: list[str] = field(default_factory=list)  # overrides of the trials alone, such as a shorter run

    def __post_init__(self) -> None:
        if self.trial and not self.tune:
            raise UserError(f"suite.trial={self.trial} is for tuning, and nothing is tuned: give suite.tune=N too")
        require(0 < self.threshold <= 1, "suite.threshold", self.threshold, "in (0, 1]")
        require(self.tune >= 0 and self.tune != 1, "suite.tune", self.tune, TRIALS)
        require(self.margin is None or 0 < self.margin < inf, "suite.margin", self.margin, "> 0, and finite")

    def read(self) -> None:
        """Puts what may be written in several ways into one: algorithms as {label: algorithm}, seeds as a list, what is varied
        or swept by dotted key. Raises UserError for what is neither. Not done when it is made, because defaults that a suite
        is merged with stay as they are written."""
        self.algorithms, self.seeds = labelled(self.algorithms), seeds_of(self.seeds)
        self.vary, self.sweep = grid(self.vary, "suite.vary"), grid(self.sweep, "suite.sweep")
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in self.planned):
            raise UserError(f"suite.planned={self.planned} is no list of pairs: write [[first,second],[first,third]]")
        self.planned = [[str(label) for label in pair] for pair in self.planned]


@dataclass(kw_only=True)
class Options:
    """The node `bench`: how runs are run, and what the user asks of single algorithms."""

    threads: int = 1  # of each run
    tune: int | None = None  # none: as the suite says
    tune_seeds: Any = 1  # of each trial: how many, far from those of the runs that count, or a list of which
    search: dict[str, Any] = field(default_factory=dict)  # in place of the suite's
    override: dict[str, list[str]] = field(default_factory=dict)  # {label: [key=value, ...]}, after the suite's own

    def __post_init__(self) -> None:
        require(self.threads >= 1, "bench.threads", self.threads, ">= 1")
        require(self.tune is None or (self.tune >= 0 and self.tune != 1), "bench.tune", self.tune, TRIALS)


@dataclass(kw_only=True)
class Request:
    """A bench as asked for: the schema of `conf/bench.yaml`, with what of a suite is said otherwise in its place, and what is
    filled in from the command line.
    """

    suite: Suite = field(default_factory=Suite)
    bench: Options = field(default_factory=Options)
    algorithms: Any = None  # {label: algorithm}; none: the suite's
    seeds: Any = None
    folder: Path = Path("runs/bench")
    jobs: int | None = None
    dry_run: bool = False
    run: int | None = None  # which run of the grid a launched job is
    command: list[str] = field(default_factory=list)
    suite_name: str = ""
    overrides: list[str] = field(default_factory=list)  # of all runs, after the suite's
    launcher: str | None = None  # Hydra's, by name; none: a pool of this process
    bench_lines: list[str] = field(default_factory=list)  # for Hydra: everything but the overrides of runs

    def __post_init__(self) -> None:
        # here alone everything has its place: later a user's word and a suite's are not told apart
        suite, options = self.suite, self.bench
        suite.read()
        self.algorithms = suite.algorithms if self.algorithms is None else labelled(self.algorithms)
        self.seeds = suite.seeds if self.seeds is None else seeds_of(self.seeds)
        options.tune = suite.tune if options.tune is None else options.tune
        for name, is_set in (("search", options.search), ("tune_seeds", options.tune_seeds != 1)):
            if is_set and not options.tune:
                raise UserError(f"bench.{name} is for tuning, and nothing is tuned: give bench.tune=N too")
        first = FIRST_TUNING_SEED if isinstance(options.tune_seeds, int) else 0
        options.tune_seeds = [first + seed for seed in seeds_of(options.tune_seeds)]
        ranges = flat_ranges(options.search)
        for key in ranges:
            label = key.split(".")[0]
            if label in suite.algorithms and label not in self.algorithms:
                raise UserError(f"bench.search.{key}: this bench has no {label!r}. It has {', '.join(self.algorithms)}")
        options.search = flat_ranges(suite.search) | ranges


ConfigStore.instance().store(name="bench_schema", node=Request)


def labelled(entries: object) -> dict[str, str]:
    """{label: algorithm} of NAME, LABEL:NAME or {LABEL: NAME}, or a list of these. Raises UserError for a label that is there
    twice.
    """
    algorithms: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        label, colon, name = str(entry).partition(":")
        pairs = entry.items() if isinstance(entry, dict) else [(label, name if colon else label)]
        for label, name in ((str(label).strip(), str(name).strip()) for label, name in pairs):
            if not LABEL.fullmatch(label):
                raise UserError(f"algorithms: {label!r} is no label: write NAME or LABEL:NAME, of letters, digits, - and _")
            if label in algorithms:
                raise UserError(f"algorithms: {label!r} is there twice: give one another name, as in {label}_2:{name}")
            algorithms[label] = name
    if not algorithms:
        raise UserError("algorithms=[] is out of range: must be one or more names")
    return algorithms


def seeds_of(value: object) -> list[int]:
    """How many, or which. Raises UserError for anything else, and for none."""
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(seeds, list) or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UserError(f"seeds={value} is neither a whole number nor a list of them")
    if not seeds:
        raise UserError(f"seeds={value} is out of range: must be a number >= 1, or a list of seeds")
    return list(dict.fromkeys(seeds))


def grid(node: dict[str, Any], name: str) -> dict[str, list[object]]:
    """{dotted key: values} of `vary` or `sweep`, in which keys may be nested. Raises UserError for no list."""
    values = flat(node)
    for key, listed in values.items():
        if not isinstance(listed, list) or not listed:
            raise UserError(f"{name}.{key}={listed} is no list of values: write {name}.{key}=[a,b]")
    return values


def flat_ranges(node: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """{dotted key: range as written}."""
    ranges: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, dict) and not set(value) <= RANGE:
            ranges |= flat_ranges(value, f"{prefix}{key}.")
        else:
            ranges[f"{prefix}{key}"] = value
    return ranges
