"""One stage after the other."""

from __future__ import annotations

import sys
import time

from omegaconf import DictConfig

from alignzoo.common.folder import CONFIG, Row, begun, held
from alignzoo.config.composition import compose
from alignzoo.config.quoting import written
from alignzoo.errors import UserError, masked
from alignzoo.pipeline.stages import DONE, UNFINISHED, Stage, check, stages
from alignzoo.pipeline.status import StatusFile
from alignzoo.runs import single


def run(cfg: DictConfig) -> list[Row]:
    """Makes the stages that are not done, and returns the summaries of all, as far as one that was interrupted.

    Every stage is checked before the first is made. Raises UserError that names the stage for a user's mistake; what was made
    before stays, and the same command goes on from there.
    """
    placed = stages(cfg)
    check(placed)
    status_file = StatusFile(cfg, placed)
    summaries: list[Row] = []
    for stage in placed:
        if stage.status == DONE:
            _say(f"{stage.title}: is there already, in {stage.folder}")
        else:
            _say(f"{stage.title}: into {stage.folder}")
        summary = single.summary_of(stage.folder) or _make(stage, status_file)
        summaries.append({**summary, "stage": stage.title})
        if summary["status"] != "finished":
            break
    return summaries


def _make(stage: Stage, status_file: StatusFile) -> Row:
    """The summary; what came of the attempt, an error too, is in pipeline.json."""
    if stage.status == UNFINISHED:
        cfg = compose([f"resume={written(stage.folder)}", f"accept={written(list(stage.config.accept))}"])
    else:
        cfg = stage.config
        _take_over(stage)
    start = time.perf_counter()
    try:
        summary = single.train(cfg)
    except UserError as error:
        status_file.note(stage, "failed", time.perf_counter() - start, str(error))
        raise UserError(f"{stage.title}, failed: {error}\n{_remedy(stage)}") from error
    except Exception as error:
        status_file.note(stage, "failed", time.perf_counter() - start, masked(f"{type(error).__name__}: {error}"))
        error.add_note(f"{stage.title}, failed. {_remedy(stage)}")
        raise
    status_file.note(stage, summary["status"], time.perf_counter() - start)
    return summary


def _take_over(stage: Stage) -> None:
    """What an attempt under another label has begun, and was killed before its first checkpoint."""
    saved = stage.folder / CONFIG
    if single.main_process() and saved.is_file() and saved.read_bytes() != single.identity(stage.config).encode():
        with held(stage.folder, f"run_dir={stage.folder}"), begun(stage.folder, single.identity(stage.config)):
            pass


def _remedy(stage: Stage) -> str:
    return f"Its folder: {stage.folder}. What was made before is kept; the same command goes on from there"


def _say(text: str) -> None:
    if single.main_process():
        print(text, file=sys.stderr, flush=True)
