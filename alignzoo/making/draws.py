"""Completions and their scores, sampled once: blocks of draws in a folder named by all that they depend on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignzoo import __version__
from alignzoo.common import fingerprint
from alignzoo.common.disk import rename_damaged, write_whole

BLOCK = 256  # draws of a file: what an interruption loses at most
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class ScoredCompletion:
    """A completion: its text, its tokens, and its score, None where it has none."""

    text: str
    ids: list[int]
    truncated: bool
    score: float | None


@dataclass(frozen=True)
class Draw:
    """The samples of one draw of a prompt."""

    number: int
    prompt: int
    samples: list[ScoredCompletion]


Make = Callable[[range], list[Draw]]  # the samples of these draws, whatever other draws there are


class Store:
    """The draws that have these `origins`, kept under `cache`; `make` is asked for those that are not there. `notes` are told
    beside, and are no part of what names the folder."""

    def __init__(self, cache: Path, origins: Mapping[str, object], notes: Mapping[str, object], make: Make) -> None:
        self.origins, self.notes, self.make = origins, notes, make
        self.folder = cache / "made" / fingerprint.of_json([__version__, origins])[:16]
        self.reused = 0

    def draws(self, count: int, done: Callable[[int], None] = lambda count: None) -> list[Draw]:
        """The first `count` draws; `done` hears how many more there are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):  # runs that need the same wait for the first
            return [draw for block in self._blocks(count, done) for draw in block]

    @property
    def provenance(self) -> dict[str, Any]:
        """By which version and when the newest of the draws were made, and of what."""
        path = self.folder / PROVENANCE
        try:
            return dict(json.loads(path.read_text("utf-8")))
        except (ValueError, FileNotFoundError) as error:
            rename_damaged(path, error)
            self._write_provenance(sum(block.read_bytes().count(b"\n") for block in self.folder.glob("*.jsonl")))
            return self.provenance

    def _blocks(self, count: int, done: Callable[[int], None]) -> Iterator[list[Draw]]:
        for start in range(0, count, BLOCK):
            wanted, path = min(BLOCK, count - start), self.folder / f"{start // BLOCK:05d}.jsonl"
            block = _read(path, start)[:wanted]
            self.reused += len(block)
            if len(block) < wanted:
                block = block + self.make(range(start + len(block), start + wanted))
                self._write_provenance(start + wanted)  # first: draws without it would never be told of
                write_whole(path, "".join(json.dumps(asdict(draw)) + "\n" for draw in block))
            done(wanted)
            yield block

    def _write_provenance(self, draws: int) -> None:
        what = {"made_by": f"alignzoo {__version__}", "date": time.strftime("%Y-%m-%d %H:%M:%S %z"), "draws": draws}
        write_whole(self.folder / PROVENANCE, json.dumps({**what, **self.notes, **self.origins}, indent=1, default=str))


def _read(path: Path, start: int) -> list[Draw]:
    """The draws of a block, which are numbered from `start` on; none where the file is damaged, which is then set aside."""
    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        draws = [Draw(row["number"], row["prompt"], [ScoredCompletion(**sample) for sample in row["samples"]]) for row in rows]
        if [draw.number for draw in draws] != [*range(start, start + len(draws))]:
            raise ValueError("its draws are not numbered in order")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        rename_damaged(path, error)
        return []
    return draws
