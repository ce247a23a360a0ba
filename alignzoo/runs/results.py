"""Finished runs, from anywhere, as tidy rows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alignzoo.common import trees
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import (
    COMPLETIONS,
    CONFIG,
    ENVIRONMENT,
    METRICS,
    SUMMARY,
    line,
    objects,
    read,
    result_step,
    rows,
)
from alignzoo.common.metric_table import COST_TITLES
from alignzoo.errors import UserError, first_line, printable

TRIALS, STAGES, REPLACED = "tuning", "stages", "replaced"  # folders of a bench whose runs don't count
ROWS = "results.jsonl"
COSTS = tuple(COST_TITLES)
Document = dict[str, Any]  # what a JSON or YAML file holds


@dataclass(frozen=True)
class Run:
    """One finished run. `label` tells algorithms and their settings apart, `condition` the settings that a study varies."""

    folder: Path
    config: Document
    summary: Document
    environment: Document
    label: str = ""
    condition: str = ""

    @property
    def algorithm(self) -> str:
        """The name it goes by: the `label` it was given, else its algorithm's."""
        return printable(str(self.config.get("label") or self.summary["algorithm"]))

    @property
    def seed(self) -> int:
        return int(self.summary["seed"])

    @property
    def command(self) -> str:
        """The command that started it, where it is kept."""
        command = self.environment.get("command") or ""
        return shlex.join(map(str, command)) if isinstance(command, list) else str(command)

    def score(self, metric: str) -> float | None:
        """The final evaluation's, None where it has none or one that is not finite."""
        value = self.summary["metrics"].get(metric)
        return float(value) if value is not None and math.isfinite(value) else None

    @cached_property
    def cost(self) -> dict[str, float]:
        """Of the whole run: steps, samples (completions drawn, else rows learned from), tokens, seconds; and FLOPs where
        counted. As the last evaluation says, else the summary. What evaluation took is not in it.
        """
        s = self.summary
        steps = s.get("steps", 0)
        tokens = sum(s.get(name, 0) for name in ("prompt_tokens", "completion_tokens", "trained_tokens"))
        samples = s.get("samples") or steps * self.config.get("trainer", {}).get("batch", 0)
        seconds = s.get("total_seconds", 0.0) - s.get("evaluation_seconds", 0.0)
        costs = {"steps": steps, "samples": samples, "tokens": tokens, "flops": s.get("flops"), "seconds": seconds}
        last = self._evaluated[-1] if self._evaluated else {}
        costs = {name: last.get(f"cost/{name}", value) for name, value in costs.items()}
        return {name: float(value) for name, value in costs.items() if value}

    @cached_property
    def written(self) -> list[dict[str, Any]]:
        """The rows of completions.jsonl that the run's result wrote."""
        written = rows(self.folder / COMPLETIONS)
        last = result_step(written, self.summary)
        return [row for row in written if row["step"] == last]

    @cached_property
    def _evaluated(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl that are evaluations."""
        return [row for row in rows(self.folder / METRICS) if any(name.startswith("eval/") for name in row)]

    @cached_property
    def evaluations(self) -> list[dict[str, float]]:
        """The evaluations on the way: metrics, and the cost up to there. A cost that metrics.jsonl lacks is taken to grow in
        proportion to the steps.
        """
        evaluations = []
        for row in self._evaluated:
            metrics = {name.removeprefix("eval/"): value for name, value in row.items() if name.startswith("eval/")}
            share = row["step"] / self.cost["steps"] if self.cost.get("steps") else 1.0
            costs = {f"cost/{name}": row.get(f"cost/{name}", total * share) for name, total in self.cost.items()}
            evaluations.append({**metrics, **costs})
        return evaluations

    def curve(self, cost: str, metric: str) -> tuple[list[float], list[float]]:
        """(cost, metric) of the evaluations that have both."""
        both = [(e[f"cost/{cost}"], e[metric]) for e in self.evaluations if f"cost/{cost}" in e and metric in e]
        return [x for x, y in both if math.isfinite(y)], [y for _, y in both if math.isfinite(y)]

    def row(self) -> dict[str, object]:
        """The tidy row: who, what, cost, and each metric as eval/<name>. What is not finite is None."""
        names = ("algorithm", "data", "model", "reward", "reference", "seed", "status")
        facts = {name: self.summary.get(name) for name in names}
        counts = {k: v for k, v in self.summary.items() if k not in facts and isinstance(v, int | float)}
        metrics = {f"eval/{k}": v for k, v in self.summary["metrics"].items()}
        machine = {"threads": self.environment.get("threads"), "commit": self.environment.get("commit")}
        versions = {f"version/{k}": v for k, v in self.environment.get("versions", {}).items()}
        start = {"run": str(self.folder), "label": self.label, "condition": self.condition, "budget": budget_text(budget(self))}
        return {k: _finite(v) for k, v in (start | facts | counts | metrics | machine | versions).items()}


@dataclass(frozen=True)
class FoundRuns:
    """The runs of some folders, and those passed over: {folder: why}."""

    runs: list[Run]
    skipped: dict[str, str] = field(default_factory=dict)


def find(folders: Sequence[Path]) -> FoundRuns:
    """The runs that are these folders or lie in them, each once; of a pipeline its last stage, unless another is given. Raises
    UserError where there is none."""
    runs, skipped = list[Run](), dict[str, str]()
    for folder in dict.fromkeys(path for root in folders for path in _run_folders(root)):
        if not (folder / SUMMARY).is_file():
            skipped[str(folder)] = _why_unfinished(folder)
            continue
        try:
            runs.append(_read(folder))
        except (UserError, OSError) as error:
            skipped[str(folder)] = f"can't be read: {error}"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            skipped[str(folder)] = f"can't be read: {error!r}"
    used = {Path(stage).name for run in runs for stage in (run.config.get("stages") or {}).values()}
    named = {path.resolve() for path in folders}
    runs = [run for run in runs if run.folder.name not in used or run.folder.resolve() in named]
    if not runs:
        reasons = "".join(f"\n  {name}: {why}" for name, why in skipped.items())
        raise UserError(f"no finished run in {', '.join(map(str, folders))}{reasons}")
    return FoundRuns(runs, skipped)


def _run_folders(root: Path) -> Iterator[Path]:
    if not root.exists():
        raise UserError(f"{root} does not exist")
    runs = [root] if (root / CONFIG).is_file() else [path.parent for path in sorted(root.glob(f"**/{CONFIG}"))]
    # what a bench tried, made before its runs or made again lies beside them, and doesn't count
    runs = [path for path in runs if not {TRIALS, STAGES, REPLACED} & {*path.relative_to(root).parts}]
    for path in map(Path.resolve, runs):
        yield path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _read(folder: Path) -> Run:
    environment = folder / ENVIRONMENT
    run = Run(
        folder=folder,
        config=by_stage(_config(folder / CONFIG)),
        summary=read(folder / SUMMARY),
        environment=read(environment) if environment.is_file() else {},
    )
    _ = run.evaluations  # while a damaged line of one run can still leave the others be
    if not isinstance(run.summary["metrics"], dict) or not run.algorithm or run.seed is None:
        raise ValueError("summary.json is not one of a run")
    return run


def _config(path: Path) -> Document:
    import yaml

    try:
        return dict(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None


def by_stage(config: Document) -> Document:
    """With `{stage:NAME}` for the folder of a stage: where it is, and with which seed it was made, sets no runs apart."""
    folders = {folder: f"{{stage:{name}}}" for name, folder in (config.get("stages") or {}).items()}

    def named(text: str) -> str:
        folder = next((folder for folder in folders if text.startswith(folder)), "")
        return folders[folder] + text.removeprefix(folder) if folder else text

    return {key: value if key == "stages" else trees.changed(value, named) for key, value in config.items()}


def _why_unfinished(folder: Path) -> str:
    """The last line of the log that `alignzoo bench` keeps beside a run, where there is one."""
    log = folder.with_name(folder.name + ".log")
    lines = log.read_text("utf-8", errors="replace").split("\n") if log.is_file() else []
    written = [line.strip() for line in lines if line.strip()]
    return f"no summary.json: {written[-1]}" if written else "no summary.json: unfinished, or failed"


def budget(run: Run) -> dict[str, object]:
    """{dotted key: value} of what the run was allowed; empty where nothing was said."""
    budget = run.config.get("budget") or {}
    return {} if budget.get("unit", "none") == "none" else flat({"budget": budget})


def budget_text(allowed: dict[str, object]) -> str:
    """Such as "100,000 samples"."""
    return f"{allowed['budget.amount']:,.15g} {allowed['budget.unit']}" if allowed else ""


def flat(tree: object, prefix: str = "") -> Document:
    """{dotted key: leaf}; lists are leaves."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    leaves: Document = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def write_rows(rows: Sequence[Mapping[str, object]], folder: Path) -> None:
    """results.jsonl and results.parquet: every row with every column."""
    import pyarrow
    import pyarrow.parquet

    columns = list(dict.fromkeys(name for row in rows for name in row))
    full = [{name: row.get(name) for name in columns} for row in rows]
    write_whole(folder / ROWS, b"".join(map(line, full)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(full), folder / "results.parquet")


def are_rows(path: Path) -> bool:
    """Whether `write_rows` has written this file."""
    return any(row is not None and {"run", "label", "condition", "budget"} <= row.keys() for _, row in objects(path)[:1])


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
