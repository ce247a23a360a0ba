"""Data too large to be held: gone through once, for what must be known of every row; a row is made when it is looked at."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from alignzoo.common.fingerprint import Items
from alignzoo.common.progress import counted
from alignzoo.data.formats import ALPACA, MEDIA, OTHER_NAMES, PREFERENCE, SYSTEM
from alignzoo.data.raters import VOTING
from alignzoo.data.repeats import Claims
from alignzoo.data.rows import COLUMNS, Row, UnusableRow, is_heldout, key_of
from alignzoo.data.stored import RawRow, Stored

CHECKED = 1000  # rows that are looked at before training
NUMBERS = ("label", "margin")
PLAIN = ("prompt", "completion", "chosen", "rejected", *NUMBERS)
MEANT = {*COLUMNS, *(name for names in OTHER_NAMES.values() for name in names), *PREFERENCE, *ALPACA, *SYSTEM, *MEDIA}

Shape = tuple[tuple[str, type], ...]  # the columns of a row, and what they hold
Make = Callable[[RawRow], Row]


class HeldoutPrompt(Exception):
    """A row of a prompt that is held out, met when it is made: none to train on."""


def not_of(keys: Collection[str], row: Row) -> Row:
    """The row. Raises HeldoutPrompt where its key is one of these."""
    if row.key in keys:
        raise HeldoutPrompt
    return row


@dataclass(frozen=True)
class LazyRows:
    """Rows at `places` of what is stored. `known` are the first of them, and one of each shape that rows have."""

    stored: Any  # Stored
    make: Make
    places: np.ndarray
    keys: np.ndarray  # the beginnings of the hashes of their prompts
    shown: np.ndarray  # places of one of each shape
    content: Items  # what stands for all that is stored, as `TextSource.content` has it
    drops: bool = False  # whether rows that can't be used are passed over, instead of raised
    endless: ClassVar[bool] = False

    @property
    def beginning(self) -> int:
        """How many of the first rows are looked at before training."""
        return min(CHECKED, len(self))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, part: slice) -> LazyRows:
        return replace(self, places=self.places[part], keys=self.keys[part])

    def __iter__(self) -> Iterator[Row]:
        for place in counted(self.places, f"{self.stored.name}: making rows", len(self)):
            yield from self._usable(int(place))

    def row(self, number: int) -> Row:
        """Raises UnusableRow."""
        return self.make(self.stored.row(int(self.places[number])))

    def unique(self) -> LazyRows:
        """The first row of each prompt."""
        _, first = np.unique(self.keys, return_index=True)
        return self.at(np.sort(first))

    def at(self, rows: np.ndarray) -> LazyRows:
        return replace(self, places=self.places[rows], keys=self.keys[rows])

    def then(self, change: Callable[[Row], Row]) -> LazyRows:
        """The rows changed, once they are made."""
        return replace(self, make=lambda raw: change(self.make(raw)))

    def count(self, parts: Callable[[Row], int]) -> np.ndarray:
        """(N,): of how many parts each row is, 1 where it can't be used, as is told when it is looked at."""

        def of(number: int) -> int:
            try:
                return parts(self.row(number))
            except UnusableRow:
                return 1

        return np.array([of(number) for number in counted(range(len(self)), f"{self.stored.name}: counting", len(self))])

    @cached_property
    def known(self) -> list[Row]:
        """Raises UnusableRow."""
        shown = np.union1d(self.places[:CHECKED], np.intersect1d(self.shown, self.places))
        return [row for place in shown for row in self._usable(int(place))]

    def _usable(self, place: int) -> list[Row]:
        try:
            return [self.make(self.stored.row(place))]
        except HeldoutPrompt:
            return []
        except UnusableRow:
            if not self.drops:
                raise
            return []


def known(rows: Sequence[Row] | LazyRows) -> Sequence[Row]:
    """The rows, or as many as tell what all of them have."""
    return rows.known if isinstance(rows, LazyRows) else rows


@dataclass
class Survey:
    """What is known of all rows of a data set once it has been gone through."""

    stored: Stored
    columns: Mapping[str, str]  # as in data.columns
    left_out: Collection[str]
    places: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    held: bytearray = field(default_factory=bytearray)
    claims: Claims = field(default_factory=Claims)
    shapes: dict[Shape, int] = field(default_factory=dict)  # the first place of each
    rows_of: Counter[Shape] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)  # rows that can't be read, by kind

    def go_through(self, make: Make, share: float, most: int, drops: bool) -> bool:
        """False where a row has votes, which are settled over the whole. Raises UnusableRow unless such rows are dropped."""
        plain: dict[Shape, dict[str, str] | None] = {}
        for place, raw in counted(islice(self.stored, most or None), f"{self.stored.name}: reading"):
            try:
                if isinstance(raw[1], UnusableRow):
                    raise raw[1]
                shape = tuple(zip(raw[1], map(type, raw[1].values()), strict=True))
                if shape not in plain:
                    plain[shape], self.shapes[shape] = self._plain(dict(shape)), place
                self.rows_of[shape] += 1
                columns = plain[shape]
                values = make(raw).values if columns is None else {name: raw[1][column] for name, column in columns.items()}
            except UnusableRow as error:
                if not drops:
                    raise
                self.unusable[error.kind] += 1
                continue
            if not values.keys().isdisjoint(VOTING):
                return False
            key = key_of(values, raw[1])
            self.places.append(place)
            self.keys.append(int.from_bytes(key[:8]))
            self.held.append(is_heldout(key, share))
            self.claims.add(values)
        return True

    def counts(self) -> Counter[str]:
        """As `RowSource.rows` tells them."""
        counts = Counter({f"unusable_rows_dropped_for_{kind}": count for kind, count in self.unusable.items()})
        dropped = self.unusable.total()
        counts |= {"rows": len(self.places) + dropped, "unusable_rows_dropped": dropped}
        for name in self.left_out:
            counts[f"left_out_{name}"] = sum(count for shape, count in self.rows_of.items() if name in dict(shape))
        return counts

    def rows(self, make: Make, drops: bool) -> LazyRows:
        content = {self.stored.name: {"rows": len(self.places), "sha256": self.stored.digest.hexdigest()}}
        places, keys, shown = (np.array(column) for column in (self.places, self.keys, list(self.shapes.values())))
        return LazyRows(self.stored, make, places, keys, shown, content, drops)

    def of_prompts_of(self, rows: list[Row]) -> np.ndarray:
        """(N,) bool: which rows have a prompt of these."""
        return np.isin(np.array(self.keys), np.array([int(row.key[:16], 16) for row in rows], dtype=np.uint64), kind="sort")

    def heldout(self, share: float, kept: np.ndarray) -> np.ndarray:
        """(N,) bool: which rows are held out, by the rule of `rows.split`."""
        held, keys = np.array(self.held, dtype=bool), np.array(self.keys)
        if share > 0 and not (held & kept).any() and len(np.unique(keys[kept])) > 1:
            held = keys == keys[kept].min()
        return held

    def _plain(self, shape: Mapping[str, type]) -> dict[str, str] | None:
        """{canonical column: column} of rows of plain text in columns that mean what they are called; None of others, and where
        it takes more to say."""
        types = {name: kind for name, kind in shape.items() if kind is not type(None) and name not in self.left_out}
        named = {name: self.columns.get(name, name) for name in PLAIN}
        values = {name: column for name, column in named.items() if column in types}
        plain = all(issubclass(types[column], float | int if name in NUMBERS else str) for name, column in values.items())
        mapped = named.keys() >= self.columns.keys() and shape.keys() >= set(self.columns.values())
        alone = MEANT.isdisjoint(types.keys() - set(values.values()))
        return values if plain and mapped and alone and "prompt" in values else None
