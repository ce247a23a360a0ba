"""The stages of pipelines before their last: made before the runs that use them, each once however many do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from alignzoo.bench.job import STOP, Job, journal, note
from alignzoo.bench.plan import Run
from alignzoo.bench.request import Request
from alignzoo.common.folder import SUMMARY
from alignzoo.config.stages import Planned


def levels(runs: Sequence[Run]) -> list[list[Planned]]:
    """Those of these runs that aren't there, the first of every pipeline before the second."""
    found: dict[int, dict[Path, Planned]] = {}
    for r in runs:
        for place, stage in enumerate(r.stages):
            if not (stage.folder / SUMMARY).is_file():
                found.setdefault(place, {})[stage.folder] = stage
    return [list(found[place].values()) for place in sorted(found)]


def make(runs: Sequence[Run], request: Request, start: Callable[[list[Job]], list[int]]) -> list[Run]:
    """Carries the stages out by `start`, level by level, and returns the runs that can be made now. Of the others the journal
    says which stage failed and why; none can where someone has asked all to end."""
    for level in levels(runs):
        ready = [stage for stage in level if all(Path(text).is_dir() for text in _inputs(stage, runs))]
        start([Job(str(stage.folder), stage.command, str(request.folder), request.threads) for stage in ready])
    if (request.folder / STOP).exists():
        return []
    said = {row["run"]: row["error"] for row in journal(request.folder)}
    able = []
    for r in runs:
        broken = [stage for stage in r.stages if not (stage.folder / SUMMARY).is_file()]
        if broken:
            why = said.get(str(broken[0].folder)) or "it was not made"
            error = f"its stage {broken[0].name} ({broken[0].folder}) failed: {why}"
            note(request.folder, {"run": str(r.folder), "code": 1, "seconds": 0.0, "error": error})
        else:
            able.append(r)
    return able


def _inputs(stage: Planned, runs: Sequence[Run]) -> list[str]:
    """The folders of results that a stage uses."""
    folders = {str(other.folder) for r in runs if stage in r.stages for other in r.stages if other.name in stage.inputs}
    return [f"{folder}/model" for folder in folders]
