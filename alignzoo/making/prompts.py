"""The prompts of any data source, each once, as rows and as tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from alignzoo.batch import Prompts
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Source, Table, Tables
from alignzoo.data.encode import Tokens, Written
from alignzoo.data.rows import CANONICAL, Row
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError


@dataclass(frozen=True)
class Asked:
    """Distinct prompts, numbered from 0, and what `purpose` their samples are for: part of the key of all randomness."""

    purpose: str
    rows: list[Row]
    table: Table
    seed: int
    orders: dict[int, list[int]] = field(default_factory=dict)  # of the prompts, by turn, as they are needed

    def prompt_of(self, draw: int) -> int:
        """Which prompt a draw is of: all in an order made from the seed, then all in another one, and so on, so that what is
        made of few prompts is the beginning of what is made of more."""
        turn, place = divmod(draw, len(self.rows))
        if turn not in self.orders:
            self.orders[turn] = generator(self.seed, self.purpose, "order", turn).permutation(len(self.rows)).tolist()
        return self.orders[turn][place]

    def batch(self, draws: range) -> Prompts:
        """The prompts of these draws; `row` is the draw."""
        found: Any = self.table.batch([self.prompt_of(draw) for draw in draws])
        return Prompts(
            ids=found.ids, attended=found.attended, row=torch.tensor(draws), columns=found.columns, decode=found.decode
        )


def train_and_heldout(source: Source, context: Context, seed: int) -> tuple[Asked, Asked | None, list[Row]]:
    """The prompts of training, those held out if there are any, and all held-out rows. Raises UserError where the source has no
    prompts."""
    if isinstance(source, TextSource):
        train, heldout, _ = source.rows()
        sides = [source.prompts(rows, context) for rows in (train, heldout) if rows]
    else:
        tables, heldout = source.tables(Prompts, context), list[Row]()
        sides = [_of_table(table) for table in _both(tables) if len(table)]
    if not sides[0][0]:
        raise UserError("the data has no prompts to sample for: choose data with prompts, or leave `making` out")
    asked = [Asked(purpose, *side, seed) for purpose, side in zip(("made", "made to hold out"), sides, strict=False) if side[0]]
    return asked[0], asked[1] if len(asked) > 1 else None, heldout


def _both(tables: Tables) -> list[Table]:
    return [tables.train] if tables.prompts is None else [tables.train, tables.prompts]


def _of_table(table: Table) -> tuple[list[Row], Table]:
    """Of a source that has no rows of text: what its records say."""
    batch: Any = table.batch(range(len(table)))
    ids = [row[own].tolist() for row, own in zip(batch.ids, batch.attended, strict=True)]
    first = {tuple(one): place for place, one in reversed(list(enumerate(ids)))}
    places = sorted(first.values())
    texts = batch.take(places).text
    rows = []
    for text, place in zip(texts, places, strict=True):
        columns = {name: values[place] for name, values in batch.columns.items()}
        prompt = Written.of(text, Tokens(ids[place], [False] * len(ids[place])))
        remaining = {name: value for name, value in columns.items() if name not in CANONICAL}
        rows.append(Row(f"prompt {place}", {"prompt": prompt}, columns, remaining))
    return rows, _Some(table, places)


@dataclass(frozen=True)
class _Some:
    """Some rows of a table, numbered anew."""

    table: Table
    places: list[int]

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, rows: Any) -> Any:
        return self.table.batch([self.places[row] for row in rows])
