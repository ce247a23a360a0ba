"""Rows that come one after the other, of a data set that nobody has the whole of: in its own order, and again where it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from alignzoo.common import fingerprint
from alignzoo.common.progress import counted
from alignzoo.data.json_text import Json
from alignzoo.data.large import CHECKED, LazyRows, Make
from alignzoo.data.messages import Columns
from alignzoo.data.rows import Row
from alignzoo.data.stored import RawRow, numbered
from alignzoo.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger("alignzoo")
ENDLESS = 2**40  # rows, more than any run draws
NONE = np.array([], dtype=np.int64)


class Stream:
    """Rows of the `datasets.IterableDataset`s that `opened` gives, the first of which are held. State: where it is."""

    rows: Iterator[Columns]

    def __init__(self, opened: Callable[[], Dataset], name: str, sparse: frozenset[str]) -> None:
        self.opened, self.name, self.sparse = opened, name, sparse
        self._open(0)
        self.first = list(islice(counted(self.rows, f"{name}: reading the first rows"), CHECKED))
        if not self.first:
            raise UserError(f"{name} has no rows")
        self.at = len(self.first)  # the place that comes next

    def row(self, place: int) -> RawRow:
        """Of places in their order; another one takes reading from the beginning."""
        if place < len(self.first):
            return self._numbered(place, self.first[place])
        if place < self.at:
            self._open(0)
        columns = self.first[-1]
        while self.at <= place:
            columns = self._next()
        return self._numbered(place, columns)

    def state_dict(self) -> dict[str, Json]:
        return {"at": self.at, "began": self.began, "stream": json.dumps(self.data.state_dict())}

    def load_state_dict(self, state: Columns) -> None:
        self._open(0)
        self.data.load_state_dict(json.loads(state["stream"]))
        self.rows, self.at, self.began = iter(self.data), state["at"], state["began"]

    def _open(self, at: int) -> None:
        self.data = self.opened()
        self.rows = iter(self.data)
        self.at = self.began = at  # of `began`: where this pass over the data did

    def _next(self) -> Columns:
        columns = next(self.rows, None)
        if columns is None:
            logger.warning("%s has ended after %d rows: it begins again", self.name, self.at - self.began)
            self._open(self.at)
            columns = next(self.rows)
        self.at += 1
        return columns

    def _numbered(self, place: int, columns: Columns) -> RawRow:
        return numbered(self.name, place - self.began * (place >= self.began), columns, self.sparse)


@dataclass(frozen=True)
class StreamedRows(LazyRows):
    """All rows of a stream, numbered as they come."""

    stored: Stream

    endless: ClassVar[bool] = True

    @classmethod
    def of(cls, stream: Stream, make: Make, drops: bool) -> StreamedRows:
        beginning = {stream.name: {"rows": len(stream.first), "sha256": fingerprint.of_json(stream.first)}}
        return cls(stream, make, NONE, NONE, NONE, beginning, drops)

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Row]:
        raise UserError(f"{self.stored.name} is streamed, and this takes the whole: leave data.streaming out")

    @property
    def beginning(self) -> int:
        return len(self.stored.first)

    def row(self, number: int) -> Row:
        return self.make(self.stored.row(number))

    def unique(self) -> StreamedRows:
        """As they come: what is far apart can't be compared."""
        return self

    def state_dict(self) -> dict[str, Json]:
        return self.stored.state_dict()

    def load_state_dict(self, state: dict[str, Json]) -> None:
        self.stored.load_state_dict(state)

    def count(self, parts: Callable[[Row], int]) -> np.ndarray:
        raise UserError(
            f"{self.stored.name} is streamed, and a row of it may be several records: leave data.streaming out, or choose an "
            "algorithm that learns from its rows as they are"
        )

    @property
    def examined(self) -> list[Row]:
        return list(self._made(range(self.beginning)))
