"""bench.json, which the report reads, and the folder it lies in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo.bench.job import INTERRUPTED, STOP, journal
from alignzoo.bench.plan import STAGES, Run
from alignzoo.bench.request import Request
from alignzoo.bench.suite import pairs_of
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import CONFIG
from alignzoo.errors import UserError
from alignzoo.report import study
from alignzoo.report.main import unharmed, writable
from alignzoo.runs import single
from alignzoo.runs.results import REPLACED

TUNING = "tuning"  # the folder, in that of the bench, of runs that don't count


def prepare(request: Request, runs: Sequence[Run], first: Sequence[Run] = ()) -> None:
    """The folder is there, can be written and holds no other bench's runs. Raises UserError where it isn't so.

    Of runs whose settings will be known when others have ended, those to do `first`, only the places are checked.
    """
    foreign = _others(request.folder, {r.folder for r in runs})
    if foreign:
        names = ", ".join(str(path.relative_to(request.folder)) for path in foreign[:3])
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise UserError(f"folder={request.folder} holds runs of another bench ({names}{more}): choose another folder=")
    _check_settings(first or runs)
    study.read([request.folder])  # bench.json, of a bench
    unharmed(request.folder / "report", f"folder={request.folder}", consent="")
    writable(request.folder, "folder=")
    (request.folder / STOP).unlink(missing_ok=True)


def _check_settings(runs: Sequence[Run]) -> None:
    """Raises UserError where a folder holds a run with other settings than it is to have."""
    known: dict[tuple[str, ...], tuple[int, str]] = {}
    for r in runs:
        saved = r.folder / CONFIG
        if not saved.exists():
            continue
        if r.shared not in known:
            known[r.shared] = r.seed, single.identity(r.config)
        seed, text = known[r.shared]
        # composing takes a while: most often only the seed differs
        there, likely = saved.read_text("utf-8", "replace"), text.replace(f"\nseed: {seed}\n", f"\nseed: {r.seed}\n")
        if there != likely and there != single.identity(r.config):
            what = single.first_difference(there, single.identity(r.config))
            raise UserError(f"{r.folder} holds a run with other settings ({what}): choose another folder=, or remove it")


def _others(folder: Path, mine: set[Path]) -> list[Path]:
    found = [path.parent for path in sorted(folder.glob(f"**/{CONFIG}"))] if folder.is_dir() else []
    return [path for path in found if path not in mine and path.relative_to(folder).parts[0] not in (TUNING, STAGES, REPLACED)]


def failures(request: Request, runs: Sequence[Run]) -> dict[str, str]:
    """{folder: error} of the runs that have no result, by what was noted last of each."""
    last = {row["run"]: row for row in journal(request.folder)}
    unfinished = [str(r.folder) for r in runs if not r.finished]
    return {name: last[name]["error"] for name in unfinished if name in last and last[name]["code"] not in (0, INTERRUPTED)}


def write(request: Request, runs: Sequence[Run], tuning: Sequence[dict[str, Any]] = ()) -> None:
    """bench.json: see `alignzoo.report.study.Study`. Comparisons with what it leaves out of its suite aren't planned."""
    said = {
        "command": request.command, "suite": request.suite_name, "vary": list(request.vary), "sweep": list(request.sweep),
        "planned": [pair for pair in pairs_of(request.suite.planned) if request.algorithms.keys() >= {*pair}],
        "tuning": list(tuning),
        "failed": failures(request, runs), "threshold": request.suite.threshold,
    }  # fmt: skip
    write_whole(request.folder / study.FILE, json.dumps(said, indent=1))
