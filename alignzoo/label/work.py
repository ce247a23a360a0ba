"""Questions with their answers: what is asked, where answers are kept, and the data that is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alignzoo.common.disk import write_whole
from alignzoo.common.folder import line
from alignzoo.label import requests
from alignzoo.label.items import Item, Scale
from alignzoo.label.journal import Journal, RaterAnswer, by_item, data_rows

REQUESTS = 4096  # of which is remembered what is in them


@dataclass(frozen=True)
class Work:
    """What is asked, where answers are kept, and the data that is made of them: None for a `request`, which needs none."""

    items: list[Item]
    scale: Scale
    journal: Journal
    out: Path | None
    raters: int = 0  # more answers to an item than this aren't wanted; 0: no limit
    request: Path | None = None

    def answers(self) -> list[RaterAnswer]:
        """Those to these items and, of `out`, to others."""
        if self.request is None:
            return self.journal.answers()
        files = self.request, requests.table_of(self.request), requests.answers_of(self.request)
        return _answers_of(self.request, *map(_stamp, files))

    def keep(self) -> None:
        """The data, as of now, whoever else answers at the moment."""
        if self.out is not None:
            with self.journal.alone():
                write_whole(self.out, b"".join(map(line, data_rows(self.journal.answers()))))

    def open_to(self, rater: str, answers: Iterable[RaterAnswer]) -> list[Item]:
        """Without what the rater, or enough others, have answered."""
        by_id = by_item(answers)
        return [item for item in self.items if not self._closed(rater, [answer.rater for answer in by_id.get(item.id, ())])]

    def _closed(self, rater: str, names: Sequence[str]) -> bool:
        return rater in names or 0 < self.raters <= len(names)


def of_request(path: Path) -> Work:
    """What a waiting program asks. Raises UserError for a file that is no request."""
    return _asked_by(path, _stamp(path))


Stamp = tuple[int, int, int] | None  # another one where a file was written to


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(REQUESTS)
def _asked_by(path: Path, stamp: Stamp) -> Work:
    asks = requests.read(path)
    return Work(asks.items, asks.scale, Journal(requests.answers_of(path)), None, asks.raters, path)


@lru_cache(REQUESTS)
def _answers_of(path: Path, *stamps: Stamp) -> list[RaterAnswer]:
    return requests.answers(path, lambda problem: None)
