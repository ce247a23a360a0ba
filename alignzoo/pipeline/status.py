"""pipeline.json: what a pipeline is made of, and how far it is; and the same as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

from alignzoo.common import console
from alignzoo.common.disk import keep_existing, write_whole
from alignzoo.common.folder import read_if_whole
from alignzoo.common.metric_table import ShownIn, shown
from alignzoo.errors import masked
from alignzoo.pipeline.stages import Stage, stages
from alignzoo.runs import single

FILE = "pipeline.json"
SHOWN = 4  # metrics of a stage in the table


class StatusFile:
    """Keeps the file, in the folder that all stages share; where they don't share one there is none. Seconds are those of all
    attempts."""

    def __init__(self, cfg: DictConfig, placed: Sequence[Stage]) -> None:
        self.stages = placed
        self.path = None if cfg.stages_dir else placed[-1].folder.parent / FILE
        self.about = {"name": cfg.pipeline.name, "description": cfg.pipeline.description, "command": single.command()}
        before = (self.path and read_if_whole(self.path)) or {}
        if self.path and "stages" not in before:
            keep_existing(f"run_dir={self.path.parent}", self.path, overwrite=False, consent="")
        self.attempts = {row["folder"]: row for row in before.get("stages", [])}
        self._write()

    def note(self, stage: Stage, status: str, seconds: float, error: str = "") -> None:
        """What came of an attempt at a stage."""
        before = self.attempts.get(str(stage.folder), {}).get("seconds", 0.0)
        self.attempts[str(stage.folder)] = {"status": status, "seconds": round(before + seconds, 1), "error": error}
        self._write()

    def _write(self) -> None:
        if self.path is None or not single.main_process():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps({**self.about, "stages": list(map(self._row, self.stages))}, indent=1))

    def _row(self, stage: Stage) -> dict[str, object]:
        attempt = self.attempts.get(str(stage.folder), {})
        summary = single.summary_of(stage.folder) or {}
        return {
            "name": stage.name, "folder": str(stage.folder), "hash": stage.folder.name.rpartition("-")[2],
            "inputs": [used.name for used in stage.inputs], "overrides": list(map(masked, stage.overrides)),
            "status": summary.get("status") or attempt.get("status", stage.status), "seconds": attempt.get("seconds", 0.0),
            "error": "" if summary else attempt.get("error", ""), "metrics": summary.get("metrics", {}),
        }  # fmt: skip


def show(cfg: DictConfig, overrides: bool = False) -> None:
    """A table of the stages: where each is, how far, and what came of it; and the overrides it is made from."""
    table = console.table("stage", "from", "state", "folder", "metrics", whole=("stage", "from", "state"), wide="metrics")
    placed = stages(cfg)
    for stage in placed:
        metrics = (single.summary_of(stage.folder) or {}).get("metrics", {})
        table.add_row(stage.name, ", ".join(s.name for s in stage.inputs), stage.status, str(stage.folder), _shown(metrics))
    console.show(table)
    for stage in placed if overrides else []:
        console.show(f"\n{stage.name}: alignzoo train", *map(masked, stage.overrides), soft_wrap=True)


def _shown(metrics: Mapping[str, object]) -> str:
    """The few that say most."""
    values = {name: value for name in shown(ShownIn.STAGES) if isinstance(value := metrics.get(name), int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in [*values.items()][:SHOWN])
