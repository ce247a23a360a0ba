"""Rows to tables: the view is made, tokenised, fitted into the context, and what had to be cut or dropped is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo.batch import Batch, Pairs, Prompts
from alignzoo.contracts import Context, Table, Tables
from alignzoo.data.encode import Encoder, Tokens
from alignzoo.data.rows import Row
from alignzoo.data.tables import PromptTable, Ragged, WholeTable, completion_table
from alignzoo.data.views import RECIPES, Example, Recipe, derived, examples, recipe, together
from alignzoo.errors import UserError


@dataclass(kw_only=True)
class Preparation:
    """Makes tables of one view. Prompts longer than `max_prompt_tokens` lose their beginning, completions longer than
    `max_completion_tokens` their end, and both are counted; 0 cuts nothing. What then exceeds the context is an error."""

    view: type[Batch]
    encoder: Encoder
    context: Context
    max_prompt_tokens: int = 0
    max_completion_tokens: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def tables(self, train: list[Row], heldout: list[Row], asked: list[Row] | None = None) -> Tables:
        """Of these rows; `asked` are the held-out rows whose prompts evaluation samples from, where they are others."""
        alone, train = len(train), together(self.view, train)
        if len(train) < alone:
            self.counts["ratings_compared_within_prompts"] = alone
        heldout = together(self.view, heldout)
        chosen = recipe(self.view, train) if self.view in RECIPES else None
        report: dict[str, Any] = {"view": self.view.__name__}
        if note := chosen and derived(self.view, chosen, train):
            report["derived"] = note
        tables = [self._table(rows, chosen) if rows else None for rows in (train, heldout)]
        prompts = self._prompts_to_sample(heldout if asked is None else asked)
        for name, table in zip(("train", "heldout", "heldout_prompts"), (*tables, prompts), strict=True):
            report[name] = 0 if table is None else len(table)
        if tables[0] is None or not len(tables[0]):
            raise UserError(f"no row of {train[0].where.rsplit(',', 1)[0]} can be used as {self.view.__name__}")
        return Tables(
            train=tables[0],
            heldout=tables[1],
            prompts=prompts,
            report=report | {name: n for name, n in self.counts.items() if n},
        )

    def table(self, rows: list[Row]) -> Table | None:
        """One table of these rows, None if there are none. Raises UserError where they don't give the view."""
        return self._table(rows, recipe(self.view, rows)) if rows else None

    def prompts(self, rows: list[Row]) -> tuple[list[Row], PromptTable]:
        """Every prompt of these rows once, as a row and as tokens that leave room to sample."""
        unique = _unique([row for row in rows if row.values.get("prompt")])
        return unique, self._prompts(unique)

    def _table(self, rows: list[Row], chosen: Recipe | None) -> Table:
        if chosen is None:
            return self._own(rows)
        if self.view is Prompts:
            usable = [row for row in rows if row["prompt"]]
            self.counts["empty_prompts_dropped"] += len(rows) - len(usable)
            return self._prompts(usable if derived(Prompts, chosen, rows) is None else _unique(usable))
        return self._completions(examples(rows, chosen))

    def _own(self, rows: list[Row]) -> Table:
        collate = getattr(self.view, "collate", None)
        if collate is None:
            raise UserError(
                f"no data source makes {self.view.__name__} records: give the class `collate(cls, rows, encoder)`, "
                "which makes them from rows (`row['prompt']`, ..., `row.columns`)"
            )
        return WholeTable(records=collate(rows, self.encoder))

    def _completions(self, made: list[Example]) -> Table:
        """Rows with the same prompt and the same remaining columns share one prompt, which has the columns of the first."""
        keys = [json.dumps([e.prompt, e.row.remaining], sort_keys=True, default=str) for e in made]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        places = sorted(first.values())
        number = {keys[place]: i for i, place in enumerate(places)}
        owners = [made[place].row for place in places]
        raw = self.encoder.prompts([row["prompt"] for row in owners])
        prompts = self._cut_prompts(raw, owners)
        prompt_of = [number[key] for key in keys]
        flat = [(e.prompt, raw[place], c) for e, place in zip(made, prompt_of, strict=True) for c in e.completions]
        encoded = iter(self.encoder.completions(*zip(*flat, strict=True))) if flat else iter(())
        completions = [[self._cut(next(encoded)) for _ in e.completions] for e in made]
        self._check_lengths(made, [prompts[place] for place in prompt_of], completions)
        kept = [i for i, row in enumerate(completions) if not (self.view is Pairs and row[0].ids == row[1].ids)]
        if len(kept) < len(made):
            self.counts["pairs_equal_once_cut_dropped"] += len(made) - len(kept)
        return completion_table(
            self.view,
            self._prompt_table(owners, prompts),
            [prompt_of[i] for i in kept],
            [completions[i] for i in kept],
            [made[i].marks for i in kept],
        )

    def _prompts_to_sample(self, rows: list[Row]) -> PromptTable | None:
        """The held-out prompts, each once; where records needn't leave room to sample, cut until they do, and counted."""
        unique = _unique([row for row in rows if row.values.get("prompt")])
        if not unique:
            return None
        if self.view is Prompts:
            return self._prompts(unique)
        ids = self._cut_prompts(self.encoder.prompts([row["prompt"] for row in unique]), unique, counted=False)
        long = sum(len(prompt) > self._room for prompt in ids)
        if long:
            self.counts["heldout_prompts_cut_to_sample"] += long
        return self._prompt_table(unique, [prompt[-self._room :] for prompt in ids])

    @property
    def _room(self) -> int:
        """The tokens of context that sampling leaves to the prompt."""
        length, new = self.context.context_length, self.context.sampling.max_new_tokens
        if new >= length:
            raise UserError(
                f"generation.max_new_tokens={new} leaves no room for a prompt in a context of {length} tokens: choose fewer"
            )
        return length - new

    def _prompts(self, rows: list[Row]) -> PromptTable:
        room = self._room
        ids = self._cut_prompts(self.encoder.prompts([row["prompt"] for row in rows]), rows)
        self._refuse_long(ids, rows, room, "generation.max_new_tokens leaves of it")
        return self._prompt_table(rows, ids)

    def _cut_prompts(self, ids: list[list[int]], rows: list[Row], counted: bool = True) -> list[list[int]]:
        limit = self.max_prompt_tokens
        if not limit:
            self._refuse_long(ids, rows, self.context.context_length - 1, "a completion leaves of it")
            return ids
        if counted:
            self.counts["prompts_truncated"] += sum(len(prompt) > limit for prompt in ids)
        return [prompt[-limit:] for prompt in ids]

    def _cut(self, tokens: Tokens) -> Tokens:
        if not self.max_completion_tokens:
            return tokens
        cut = tokens.cut(self.max_completion_tokens)
        self.counts["completions_truncated"] += cut.truncated
        return cut

    def _refuse_long(self, ids: list[list[int]], rows: list[Row], room: int, why: str) -> None:
        long = [i for i, prompt in enumerate(ids) if len(prompt) > room]
        if long:
            raise UserError(
                f"{rows[long[0]].where}: the prompt has {len(ids[long[0]])} tokens, more than the context: {room} is what {why}"
                f"{_others(long)}\nkeep the end of long prompts with data.max_prompt_tokens={room}, "
                "or choose a longer model.context_length"
            )

    def _check_lengths(self, made: Sequence[Example], prompts: list[list[int]], completions: list[list[Tokens]]) -> None:
        length = self.context.context_length
        sizes = [len(prompt) + max(len(c.ids) for c in row) for prompt, row in zip(prompts, completions, strict=True)]
        long = [i for i, size in enumerate(sizes) if size > length]
        if long:
            raise UserError(
                f"{made[long[0]].row.where}: prompt and completion have {sizes[long[0]]} tokens, "
                f"more than the context of {length}{_others(long)}\n"
                f"cut them with data.max_prompt_tokens and data.max_completion_tokens (together at most {length}), "
                "or choose a longer model.context_length"
            )

    def _prompt_table(self, rows: list[Row], ids: list[list[int]]) -> PromptTable:
        names = dict.fromkeys(name for row in rows for name in row.columns)
        tokenizer = self.encoder.tokenizer
        return PromptTable(
            ids=Ragged(ids),
            columns={name: [row.columns.get(name) for row in rows] for name in names},
            decode=lambda batch: tokenizer.batch_decode(batch, skip_special_tokens=True),
            size=len(rows),
        )


def _unique(rows: Sequence[Row]) -> list[Row]:
    """The first row of each prompt."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.key, row)
    return list(first.values())


def _others(long: list[int]) -> str:
    return f" (so do {len(long) - 1} more)" if len(long) > 1 else ""
