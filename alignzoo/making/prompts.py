"""The prompts of any data source, each once, as rows and as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from alignzoo.batch import Batch, Prompts, token_lists
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Source, Table
from alignzoo.data.encode import Tokens, TokenText
from alignzoo.data.rows import CANONICAL, Row
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError


@dataclass(frozen=True)
class PromptPool:
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
        batch = _prompts(self.table, [self.prompt_of(draw) for draw in draws])
        row = torch.tensor(draws)
        return Prompts(ids=batch.ids, attended=batch.attended, row=row, columns=batch.columns, decode=batch.decode)


def train_and_heldout(source: Source, context: Context, seed: int) -> tuple[PromptPool, PromptPool | None, list[Row]]:
    """The prompts of training, those held out if there are any, and all held-out rows. Raises UserError where the source has no
    prompts."""
    if isinstance(source, TextSource):
        train, heldout, _ = source.rows()
        sides = [source.prompts(rows, context) for rows in (train, heldout) if rows]
    else:
        tables, heldout = source.tables(Prompts, context), list[Row]()
        sides = [_of_table(table) for table in (tables.train, tables.prompts) if table is not None and len(table)]
    if not sides[0][0]:
        raise UserError("the data has no prompts to sample for: choose data with prompts, or leave `making` out")
    pools = [
        PromptPool(purpose, *side, seed) for purpose, side in zip(("made", "made to hold out"), sides, strict=False) if side[0]
    ]
    return pools[0], pools[1] if len(pools) > 1 else None, heldout


def _prompts(table: Table, rows: Sequence[int]) -> Prompts:
    batch = table.batch(rows)
    assert isinstance(batch, Prompts)
    return batch


def _of_table(table: Table) -> tuple[list[Row], Table]:
    """Of a source that has no rows of text: what its records say."""
    batch = _prompts(table, range(len(table)))
    ids = token_lists(batch.ids, batch.attended)
    places = sorted({tuple(row): place for place, row in reversed(list(enumerate(ids)))}.values())  # where each is first
    rows = []
    for text, place in zip(batch.take(places).text, places, strict=True):
        columns = {name: values[place] for name, values in batch.columns.items()}
        prompt = TokenText.of(text, Tokens(ids[place], [False] * len(ids[place])))
        remaining = {name: value for name, value in columns.items() if name not in CANONICAL}
        rows.append(Row(f"prompt {place}", {"prompt": prompt}, columns, remaining))
    return rows, _Places(table, places)


@dataclass(frozen=True)
class _Places:
    """Some rows of a table, numbered anew."""

    table: Table
    places: list[int]

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, rows: Sequence[int]) -> Batch:
        return self.table.batch([self.places[row] for row in rows])
