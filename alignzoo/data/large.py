"""Data too large to be held: gone through once, for what must be known of every row; a row is made when it is looked at."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from alignzoo.common.fingerprint import Items
from alignzoo.common.progress import counted
from alignzoo.data.formats import ALPACA, MEDIA, OTHER_NAMES, PREFERENCE, SYSTEM
from alignzoo.data.json_text import Json
from alignzoo.data.raters import VOTING
from alignzoo.data.repeats import Claims
from alignzoo.data.rows import COLUMNS, Row, UnusableRow, key_of, short_keys
from alignzoo.data.stored import RawRow, Stored

CHECKED = 1000  # rows that are looked at before training
NUMBERS = ("label", "margin")
PLAIN = ("prompt", "completion", "chosen", "rejected", *NUMBERS)
MEANT = {*COLUMNS, *(name for names in OTHER_NAMES.values() for name in names), *PREFERENCE, *ALPACA, *SYSTEM, *MEDIA}

T = TypeVar("T")
Shape = tuple[tuple[str, type], ...]  # the columns of a row, and what they hold
Make = Callable[[RawRow], Row]


class HeldoutPrompt(Exception):
    """A row of a prompt that is held out, met when it is made: none to train on."""


class ByPlace(Protocol):
    """Raw rows that are asked for by their places."""

    name: str

    def row(self, place: int) -> RawRow: ...


def not_of(keys: Collection[str], row: Row) -> Row:
    """The row. Raises HeldoutPrompt where its key is one of these."""
    if row.key in keys:
        raise HeldoutPrompt
    return row


def usable(items: Iterable[T], make: Callable[[T], Row], drops: bool, counts: Counter[str]) -> Iterator[Row]:
    """The rows made of these, without those that can't be used, which are counted where they are dropped, and raised else."""
    for item in items:
        try:
            yield make(item)
        except HeldoutPrompt:
            continue
        except UnusableRow as error:
            if not drops:
                raise
            counts.update(error.counted_as)


@dataclass(frozen=True)
class LazyRows:
    """Rows at `places` of what is stored."""

    stored: ByPlace
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
        return self.at(np.arange(len(self))[part])

    def __iter__(self) -> Iterator[Row]:
        return self._made(counted(self.places.tolist(), f"{self.stored.name}: making rows", len(self)))

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

    def state_dict(self) -> dict[str, Json]:
        """Of rows that come in their order: where they are."""
        return {}

    def load_state_dict(self, state: dict[str, Json]) -> None:
        """Go on from where rows were that gave this."""

    def count(self, parts: Callable[[Row], int]) -> np.ndarray:
        """(N,): of how many parts each row is, 1 where it can't be used, as is told when it is looked at."""

        def count_of(number: int) -> int:
            try:
                return parts(self.row(number))
            except UnusableRow:
                return 1

        return np.array([count_of(n) for n in counted(range(len(self)), f"{self.stored.name}: counting", len(self))])

    @cached_property
    def examined(self) -> list[Row]:
        """The first rows, and one of each shape that rows have. Raises UnusableRow."""
        places = np.union1d(self.places[:CHECKED], np.intersect1d(self.shown, self.places))
        return list(self._made(places.tolist()))

    def _made(self, places: Iterable[int]) -> Iterator[Row]:
        return usable(places, lambda place: self.make(self.stored.row(place)), self.drops, Counter())


def examined(rows: Sequence[Row] | LazyRows) -> Sequence[Row]:
    """The rows, or as many as tell what all of them have."""
    return rows.examined if isinstance(rows, LazyRows) else rows


@dataclass
class Survey:
    """What is known of all rows of a data set once it has been gone through."""

    stored: Stored
    columns: Mapping[str, str]  # as in data.columns
    left_out: Collection[str]
    places: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    claims: Claims = field(default_factory=Claims)
    shapes: dict[Shape, int] = field(default_factory=dict)  # the first place of each
    counts: Counter[str] = field(default_factory=Counter)  # as `RowSource.rows` tells them

    def go_through(self, make: Make, most: int, drops: bool) -> bool:
        """False where a row has votes, which are settled over the whole. Raises UnusableRow unless such rows are dropped."""
        plain: dict[Shape, dict[str, str] | None] = {}
        for place, raw in enumerate(counted(islice(self.stored, most or None), f"{self.stored.name}: reading")):
            self.counts["rows"] += 1
            try:
                if isinstance(raw[1], UnusableRow):
                    raise raw[1]
                shape = tuple(zip(raw[1], map(type, raw[1].values()), strict=True))
                if shape not in plain:
                    plain[shape], self.shapes[shape] = self._plain(dict(shape)), place
                self.counts.update(f"left_out_{name}" for name in self.left_out if name in raw[1])
                # rows of plain text are most of large data, and to make each would take several times as long
                columns = plain[shape]
                values = make(raw).values if columns is None else {name: raw[1][column] for name, column in columns.items()}
            except UnusableRow as error:
                if not drops:
                    raise
                self.counts.update(error.counted_as)
                continue
            if not values.keys().isdisjoint(VOTING):
                return False
            self.places.append(place)
            self.keys.append(int.from_bytes(key_of(values, raw[1])[:8]))
            self.claims.add(values)
        return True

    def rows(self, make: Make, drops: bool) -> LazyRows:
        content = {self.stored.name: {"rows": len(self.places), "sha256": self.stored.digest.hexdigest()}}
        places, keys, shown = (np.array(column) for column in (self.places, self.keys, list(self.shapes.values())))
        return LazyRows(self.stored, make, places, keys, shown, content, drops)

    def of_prompts_of(self, rows: list[Row]) -> np.ndarray:
        """(N,) bool: which rows have a prompt of these."""
        return np.isin(np.array(self.keys), short_keys(rows), kind="sort")

    def _plain(self, shape: Mapping[str, type]) -> dict[str, str] | None:
        """{canonical column: column} of rows of plain text in columns that mean what they are called; None of others, and where
        it takes more to say."""
        types = {name: kind for name, kind in shape.items() if kind is not type(None) and name not in self.left_out}
        renamed = {name: self.columns.get(name, name) for name in PLAIN}
        values = {name: column for name, column in renamed.items() if column in types}
        plain = all(issubclass(types[column], float | int if name in NUMBERS else str) for name, column in values.items())
        mapped = renamed.keys() >= self.columns.keys() and shape.keys() >= set(self.columns.values())
        alone = MEANT.isdisjoint(types.keys() - set(values.values()))
        return values if plain and mapped and alone and "prompt" in values else None
