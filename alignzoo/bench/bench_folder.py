"""bench.json, which the report reads, and the folder it lies in: whose runs those are, and which are to be made again."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignzoo.bench.grid import STAGES, BenchRun
from alignzoo.bench.job import INTERRUPTED, STOP, journal
from alignzoo.bench.suite import Request
from alignzoo.common.disk import write_whole
from alignzoo.common.fingerprint import differences
from alignzoo.common.folder import CHECKPOINTS, CONFIG, FINGERPRINT
from alignzoo.config.run import instantiate
from alignzoo.errors import UserError, tell
from alignzoo.report import study
from alignzoo.report.report import check_replaceable, make_folder
from alignzoo.runs import made_of, single
from alignzoo.runs.results import REPLACED

TUNING = "tuning"  # the folder, in that of the bench, of runs that don't count


def prepare(request: Request, runs: Sequence[BenchRun], first: Sequence[BenchRun] = ()) -> None:
    """The folder is there, can be written and holds no other bench's runs. Raises UserError where it isn't so.

    Of runs whose settings will be known when others have ended, those to do `first`, only the places are checked.
    """
    folder, expected = request.folder, {r.folder for r in runs}
    paths = [path.parent for path in sorted(folder.glob(f"**/{CONFIG}")) if path.parent not in expected]
    foreign = [path for path in paths if path.relative_to(folder).parts[0] not in (TUNING, STAGES, REPLACED)]
    if foreign:
        names = ", ".join(str(path.relative_to(folder)) for path in foreign[:3])
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise UserError(f"folder={folder} holds runs of another bench ({names}{more}): choose another folder=")
    _check_settings(first or runs)
    study.read([folder])  # bench.json, of a bench
    check_replaceable(folder / "report", f"folder={folder}", consent="")
    make_folder(folder, "folder=")
    (folder / STOP).unlink(missing_ok=True)


def _check_settings(runs: Sequence[BenchRun]) -> None:
    """Raises UserError where a folder holds a run with other settings than it is to have."""
    composed: dict[tuple[str, ...], tuple[int, str]] = {}
    for r in runs:
        path = r.folder / CONFIG
        if not path.exists():
            continue
        if r.shared not in composed:
            composed[r.shared] = r.seed, single.identity(r.config)
        seed, text = composed[r.shared]
        # composing takes a while: most often only the seed differs
        there, likely = path.read_text("utf-8", "replace"), text.replace(f"\nseed: {seed}\n", f"\nseed: {r.seed}\n")
        if there != likely and there != single.identity(r.config):
            what = single.first_difference(there, single.identity(r.config))
            raise UserError(f"{r.folder} holds a run with other settings ({what}): choose another folder=, or remove it")


def failures(request: Request, runs: Sequence[BenchRun]) -> dict[str, str]:
    """{folder: error} of the runs that have no result, by what was noted last of each."""
    last = {row["run"]: row for row in journal(request.folder)}
    unfinished = [last[str(r.folder)] for r in runs if not r.finished and str(r.folder) in last]
    return {row["run"]: row["error"] for row in unfinished if row["code"] not in (0, INTERRUPTED)}


def write(request: Request, runs: Sequence[BenchRun], tuning: Sequence[study.TuningOutcome] = ()) -> None:
    """bench.json. Comparisons with what it leaves out of its suite aren't planned."""
    about = study.Study(
        command=request.command, suite=request.suite_name, vary=list(request.suite.vary), sweep=list(request.suite.sweep),
        planned=[pair for pair in request.suite.planned if request.algorithms.keys() >= {*pair}],
        tuning=list(tuning), failed=failures(request, runs), threshold=request.suite.threshold, margin=request.suite.margin,
    )  # fmt: skip
    write_whole(request.folder / study.FILE, json.dumps(asdict(about), indent=1))


def renew(request: Request, runs: Sequence[BenchRun]) -> None:
    """Puts those runs aside that are made of other models, data, code or libraries than there are now, so that they are made
    again, unless accept= says otherwise; and tells which, and why. Their settings have been compared before."""
    now: dict[tuple[str, ...], tuple[dict[str, Any], list[str]]] = {}
    unknown = []
    for r in runs:
        if not r.finished and (_running(r.folder) or not any((r.folder / CHECKPOINTS).glob("checkpoint-*"))):
            continue
        saved = made_of.read(r.folder)
        if saved is None:
            unknown.append(r)
            continue
        if r.shared not in now:  # most often only the seed differs
            setup = instantiate(r.config)
            now[r.shared] = made_of.parts(setup, single.contents(r.config)), setup.accept
        parts, accepted = now[r.shared]
        differing = {part: what for part, what in differences(saved, parts).items() if part != "config"}
        text = f"{r.folder} was made of {'; '.join(f'other {part} ({what})' for part, what in differing.items())}"
        if differing.keys() - set(accepted):
            tell(f"{text}: it is made again, and lies in {_put_aside(request.folder, r.folder)}")
        elif differing:
            tell(f"{text}, which accept= keeps")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        tell(f"{unknown[0].folder}{more}: no {FINGERPRINT}, so whether code, data or libraries have changed can't be compared")


def _running(folder: Path) -> bool:
    """Whether a process has the run's log, which it locks."""
    log = Path(f"{folder}.log")
    if not log.exists():
        return False
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _put_aside(bench: Path, folder: Path) -> Path:
    place = bench / REPLACED / folder.relative_to(bench)
    number = 1
    while place.exists():
        number, place = number + 1, place.with_name(f"{folder.name}.{number}")
    place.parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(place)
