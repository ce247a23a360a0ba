"""pipeline.json: what a pipeline is made of, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from alignzoo.common.disk import keep_existing, write_whole
from alignzoo.errors import masked
from alignzoo.pipeline.plan import Stage, inputs, stages
from alignzoo.runs import single

FILE = "pipeline.json"
SHOWN = 4  # metrics of a stage in the table
FIRST = ("gold", "reward", "preference_accuracy", "accuracy", "kl", "perplexity", "loss", "length")


class Record:
    """Keeps the file, in the folder that all stages share; where they don't share one there is none. Seconds are those of all
    attempts."""

    def __init__(self, cfg: DictConfig, every: Sequence[Stage]) -> None:
        self.every = every
        self.path = None if cfg.stages_dir else every[-1].folder.parent / FILE
        self.about = {"name": cfg.pipeline.name, "description": cfg.pipeline.description, "command": single.command()}
        before = _read(self.path)
        if self.path and "stages" not in before:
            keep_existing(f"run_dir={self.path.parent}", self.path, overwrite=False, consent="")
        self.known = {row["folder"]: row for row in before.get("stages", [])}
        self._write()

    def note(self, stage: Stage, status: str, seconds: float, error: str = "") -> None:
        """What came of an attempt at a stage."""
        before = self.known.get(str(stage.folder), {}).get("seconds", 0.0)
        self.known[str(stage.folder)] = {"status": status, "seconds": round(before + seconds, 1), "error": error}
        self._write()

    def _write(self) -> None:
        if self.path is None or not single.main_process():
            return
        rows = [self._row(stage) for stage in self.every]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps({**self.about, "stages": rows}, indent=1))

    def _row(self, stage: Stage) -> dict[str, Any]:
        known = self.known.get(str(stage.folder), {})
        summary = single.summary_of(stage.folder) or {}
        return {
            "name": stage.name, "folder": str(stage.folder), "hash": stage.digest,
            "inputs": [other.name for other in inputs(self.every, stage)], "overrides": list(map(masked, stage.overrides)),
            "status": summary.get("status") or known.get("status", stage.status), "seconds": known.get("seconds", 0.0),
            "error": "" if summary else known.get("error", ""), "metrics": summary.get("metrics", {}),
        }  # fmt: skip


def show(cfg: DictConfig, overrides: bool = False) -> None:
    """A table of the stages: where each is, how far, and what came of it; and the overrides it is made from."""
    every = stages(cfg)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "from", "state", "folder"):
        table.add_column(name, no_wrap=name != "folder", overflow="fold")
    table.add_column("metrics", ratio=1)
    for stage in every:
        summary = single.summary_of(stage.folder) or {}
        used = ", ".join(other.name for other in inputs(every, stage))
        table.add_row(stage.name, used, stage.status, str(stage.folder), told(summary.get("metrics", {})))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table, markup=False, highlight=False)
    for stage in every if overrides else []:
        console.print(
            f"\n{stage.name}: alignzoo train", *map(masked, stage.overrides), markup=False, highlight=False, soft_wrap=True
        )


def told(metrics: dict[str, Any]) -> str:
    """The few that say most."""
    names = [name for name in FIRST if isinstance(metrics.get(name), int | float)][:SHOWN]
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names)


def _read(path: Path | None) -> dict[str, Any]:
    """The file as it was left; nothing where there is none, or none that can be read."""
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
