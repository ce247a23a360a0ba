"""Runs of an earlier time that the same command would make otherwise now."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo.bench.plan import Run
from alignzoo.bench.request import Request
from alignzoo.common.fingerprint import differences
from alignzoo.common.folder import CHECKPOINTS, FINGERPRINT
from alignzoo.config.run import instantiate
from alignzoo.runs import made_of, single
from alignzoo.runs.results import REPLACED


def renew(request: Request, runs: Sequence[Run]) -> None:
    """Puts those aside that are made of other models, data, code or libraries than there are now, so that they are made again,
    unless accept= says otherwise; and tells which, and why. Their settings have been compared before."""
    now: dict[tuple[str, ...], tuple[dict[str, Any], list[str]]] = {}
    unknown = []
    for r in runs:
        if not r.finished and (_running(r.log) or not any((r.folder / CHECKPOINTS).glob("checkpoint-*"))):
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
        refused = {part: what for part, what in differing.items() if part not in accepted}
        named = "; ".join(f"other {part} ({what})" for part, what in differing.items())
        if refused:
            _tell(f"{r.folder} was made of {named}: it is made again, and lies in {_put_aside(request.folder, r.folder)}")
        elif differing:
            _tell(f"{r.folder} was made of {named}, which accept= keeps")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        _tell(f"{unknown[0].folder}{more}: no {FINGERPRINT}, so whether code, data or libraries have changed can't be compared")


def _running(log: Path) -> bool:
    """Whether a process has the run's log, which it locks."""
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


def _tell(text: str) -> None:
    print(f"alignzoo: {text}", file=sys.stderr, flush=True)
