"""Tables whose records are made when they are asked for, of data too large to be tokenised beforehand."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from alignzoo.batch import Batch
from alignzoo.contracts import Table
from alignzoo.data.large import HeldoutPrompt, LazyRows
from alignzoo.data.rows import Row, UnusableRow
from alignzoo.data.tables import renumbered
from alignzoo.errors import UserError

logger = logging.getLogger("alignzoo")
REMEMBERED = 4096  # records
AT_ONCE = 256  # records


class LateRow(UserError):
    """A row that turns out unusable when its record is made."""


class LazyTable:
    """Records of `rows`. `table_of(row, part)` is a table of a row's part, and counts of what was cut or dropped; `parts` (N,)
    are how many each row has, None: one. A record depends on its own row alone.

    A row that can't be used is left out of a batch, and counted where the rows drop such, or told. Where it must not be, as in
    training, it raises LateRow.
    """

    strict = False

    def __init__(
        self, rows: LazyRows, table_of: Callable[[Row, int], tuple[Table | None, Counter[str]]], parts: np.ndarray | None = None
    ) -> None:
        self.rows, self.table_of = rows, table_of
        self.first = None if parts is None else np.concatenate([[0], np.cumsum(parts)])  # record of each row
        self.dropped: dict[int, Counter[str]] = {}  # what was cut or dropped of rows that were looked at
        self._record = lru_cache(maxsize=REMEMBERED)(self._make)

    def __len__(self) -> int:
        return len(self.rows) if self.first is None else int(self.first[-1])

    def batch(self, rows: Sequence[int]) -> Batch:
        records = [record for row in rows if (record := self.record(row)) is not None]
        return type(records[0]).cat(records) if records else self._usable.take([])

    def record(self, row: int) -> Batch | None:
        """None for a row that is left out; `dropped` says why."""
        try:
            return self._record(int(row))
        except LateRow as error:
            if self.strict:
                raise
            if row not in self.dropped:
                logger.warning("%s\nIt is left out of what is evaluated", error)
            self.dropped[int(row)] = Counter(heldout_rows_left_out=1)
            return None

    @property
    def beginning(self) -> int:
        """How many of the first records are looked at before training."""
        return min(self.rows.beginning, len(self))

    def check(self) -> None:
        """Looks at the first rows. Raises UserError where one can't be used, or none can."""
        records = [record for row in range(self.beginning) if (record := self._record(row)) is not None]
        if not records:
            why = ", ".join(sorted(set[str]().union(*self.dropped.values())))
            raise UserError(f"none of the first {self.beginning} rows of {self.rows.stored.name} can be used: {why}")
        self._usable = records[0]

    def _make(self, number: int) -> Batch | None:
        row, part = number, 0
        if self.first is not None:
            row = int(np.searchsorted(self.first, number, "right")) - 1
            part = number - int(self.first[row])
        try:
            table, counts = self.table_of(self.rows.row(row), part)
        except HeldoutPrompt:
            table, counts = None, Counter({"training_rows_of_heldout_prompts_dropped": 1})
        except UserError as error:
            if not isinstance(error, UnusableRow) or not self.rows.drops:
                raise LateRow(str(error)) from error
            table, counts = None, Counter(error.counted_as)
        if counts := +counts:
            self.dropped[number] = counts
        if not table:
            return None
        return renumbered(table.batch(range(len(table))), lambda rows: torch.full_like(rows, number))


def looked_at(table: Table) -> Iterator[Batch]:
    """Its records, a few at a time; where they are made when they are asked for, those of its beginning."""
    size = table.beginning if isinstance(table, LazyTable) else len(table)
    return (table.batch(range(start, min(start + AT_ONCE, size))) for start in range(0, size, AT_ONCE))
