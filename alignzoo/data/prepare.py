"""Rows to tables: the view is made, tokenised, fitted into the context, and what had to be cut or dropped is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from alignzoo.batch import Batch, Completions, Pairs, Prompts
from alignzoo.common.progress import counted
from alignzoo.contracts import Context, Table, Tables
from alignzoo.data.encode import Encoder, Tokens
from alignzoo.data.json_text import Report
from alignzoo.data.large import LazyRows, examined
from alignzoo.data.lazy import LazyTable
from alignzoo.data.messages import Text, whole
from alignzoo.data.rows import Row
from alignzoo.data.tables import CompletionTable, PromptTable, Ragged, WholeTable
from alignzoo.data.views import RECIPES, Example, Recipe, derived, examples, recipe, together
from alignzoo.errors import UserError

T = TypeVar("T")
TOGETHER = 1000  # prompts tokenised at once
Rows = list[Row] | LazyRows
PROMPT = (
    "the prompt has {size} tokens, more than the context: {room} is what generation.max_new_tokens leaves of it{more}\n"
    "keep the end of long prompts with data.max_prompt_tokens={room}, choose a longer model.context_length"
)
WHOLE = (
    "prompt and completion have {size} tokens, more than the context of {room}{more}\n"
    "cut them with data.max_prompt_tokens and data.max_completion_tokens (together at most {room}), "
    "choose a longer model.context_length"
)


@dataclass(kw_only=True)
class Preparation:
    """Makes tables of one view. Prompts longer than `max_prompt_tokens` lose their beginning, completions longer than
    `max_completion_tokens` their end, and both are counted; 0 cuts nothing. A row that then exceeds the context, or that the
    template refuses, is an error that names it, or with `drop` left out and counted."""

    view: type[Batch]
    encoder: Encoder
    context: Context
    max_prompt_tokens: int = 0
    max_completion_tokens: int = 0
    drop: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    columns: tuple[str, ...] = ()  # that prompts have; those of the rows if none

    def tables(self, train: Rows, heldout: Rows, sampled: Rows | None = None) -> Tables:
        """Of these rows; `sampled` are the held-out rows whose prompts evaluation samples from, where they are others."""
        if not isinstance(train, LazyRows):
            alone, train = len(train), together(self.view, train)
            if len(train) < alone:
                self.counts["ratings_compared_within_prompts"] = alone
        heldout = heldout if isinstance(heldout, LazyRows) else together(self.view, heldout)
        chosen = recipe(self.view, examined(train)) if self.view in RECIPES else None
        report: Report = {"view": self.view.__name__}
        if note := chosen and derived(self.view, chosen, examined(train)):
            report["derived"] = note
        learnt, kept = (self._table(rows, chosen) if rows else None for rows in (train, heldout))
        if isinstance(learnt, LazyTable):
            learnt.strict = True
        prompts = self._prompts_to_sample(heldout if sampled is None else sampled)
        for name, table in (("train", learnt), ("heldout", kept), ("heldout_prompts", prompts)):
            endless = isinstance(table, LazyTable) and table.rows.endless
            report[name] = 0 if table is None else None if endless else len(table)
        if learnt is None or not len(learnt):
            raise UserError(f"no row of {examined(train)[0].where.rsplit(',', 1)[0]} can be used as {self.view.__name__}")
        return Tables(train=learnt, heldout=kept, prompts=prompts, report={**report, **+self.counts})

    def table(self, rows: Rows) -> Table | None:
        """One table of these rows, None if there are none. Raises UserError where they don't give the view."""
        return self._table(rows, recipe(self.view, examined(rows))) if rows else None

    def prompts(self, rows: list[Row]) -> tuple[list[Row], PromptTable]:
        """Every prompt of these rows once, as a row and as tokens that leave room to sample."""
        return self._prompts(_unique([row for row in rows if row.values.get("prompt")]))

    def _table(self, rows: Rows, chosen: Recipe | None) -> Table:
        if isinstance(rows, LazyRows) and chosen is not None and not self._turns_apart(rows, chosen):
            return self._lazy(rows, chosen)
        rows = list(rows)
        if chosen is None:
            return self._collated(rows)
        if self.view is Prompts:
            usable = [row for row in rows if row["prompt"]]
            self.counts["empty_prompts_dropped"] += len(rows) - len(usable)
            return self._prompts(usable if derived(Prompts, chosen, rows) is None else _unique(usable))[1]
        return self._of_examples(examples(rows, chosen))

    def _of_examples(self, listed: Sequence[Example]) -> Table:
        trained = [part for example in listed for part in self._trainable(example)]
        try:
            return self._completions(trained)
        except UserError:  # of one row, and which one is not said
            encode = self.encoder.encode
            encodable = [self._of_row(e.row, partial(encode, [e.prompt], [e.completions])) is not None for e in trained]
            return self._completions([example for example, good in zip(trained, encodable, strict=True) if good])

    def _lazy(self, rows: LazyRows, chosen: Recipe) -> Table:
        """Of the same records, each of which is made alone when it is asked for."""
        if self.view is Prompts:
            rows = rows.unique() if derived(Prompts, chosen, rows.examined) else rows
            return self._when_needed(rows, lambda alone, row, part: alone._table([row], chosen))
        parts = None if chosen.single else rows.count(lambda row: len(list(chosen.make(row))))
        return self._when_needed(rows, lambda alone, row, part: alone._of_examples([[*chosen.make(row)][part]]), parts)

    def _when_needed(
        self, rows: LazyRows, table: Callable[[Preparation, Row, int], Table | None], parts: np.ndarray | None = None
    ) -> LazyTable:
        columns = tuple(dict.fromkeys(name for row in rows.examined for name in row.columns))

        def table_of(row: Row, part: int) -> tuple[Table | None, Counter[str]]:
            alone = replace(self, counts=Counter(), columns=columns)
            return table(alone, row, part), alone.counts

        lazy = LazyTable(rows, table_of, parts)
        lazy.check()
        return lazy

    def _turns_apart(self, rows: LazyRows, chosen: Recipe) -> bool:
        """Whether demonstrations become several records, for which all are looked at: a batch is of records."""
        return self.view is Completions and any(
            len(self.encoder.records(e.prompt, e.completions[0])) > 1 for e in examples(rows.examined, chosen)
        )

    def _collated(self, rows: list[Row]) -> Table:
        """Records of a plugin's own class."""
        collate = getattr(self.view, "collate", None)
        if collate is None:
            raise UserError(
                f"no data source makes {self.view.__name__} records: give the class `collate(cls, rows, encoder)`, "
                "which makes them from rows (`row['prompt']`, ..., `row.columns`)"
            )
        return WholeTable(records=collate(rows, self.encoder))

    def _trainable(self, example: Example) -> list[Example]:
        """The example, or, of a demonstration whose earlier turns the template rewrites, one for each answer."""
        if self.view is not Completions:
            return [example]
        parts = self._of_row(example.row, lambda: self.encoder.records(example.prompt, example.completions[0])) or []
        self.counts["records_of_single_turns"] += len(parts) if len(parts) > 1 else 0
        return [Example(example.row.rewritten(prompt), [answer]) for prompt, answer in parts]

    def _of_row(self, row: Row, encoded: Callable[[], T]) -> T | None:
        """What is made of a row; None where it is refused, and such rows are dropped. Raises UserError that names the row."""
        try:
            return encoded()
        except UserError as error:
            if not self.drop:
                raise UserError(f"{row.where}: {error}") from error
            self.counts["rows_refused_by_the_template_dropped"] += 1
            return None

    def _completions(self, listed: list[Example]) -> Table:
        """Rows with the same prompt and the same remaining columns share one prompt, which has the columns of the first."""
        keys = [json.dumps([whole(e.prompt), e.row.remaining], sort_keys=True, default=str) for e in listed]
        first: dict[str, Example] = {}
        for key, example in zip(keys, listed, strict=True):
            first.setdefault(key, example)
        # a prompt is tokenised once with all its completions, for these decide together where it ends
        owners, number = list(first.values()), {key: place for place, key in enumerate(first)}
        prompt_of = [number[key] for key in keys]
        groups: list[list[Text]] = [[] for _ in owners]
        for example, place in zip(listed, prompt_of, strict=True):
            groups[place] += example.completions
        encoded = self._encoded([example.prompt for example in owners], groups)
        prompts = [self._cut_prompt(example.prompt, ids) for example, (ids, _) in zip(owners, encoded, strict=True)]
        tokens = [iter(completions) for _, completions in encoded]
        completions = [
            [self._cut(next(tokens[place])) for _ in e.completions] for e, place in zip(listed, prompt_of, strict=True)
        ]
        sizes = [len(prompts[p]) + max(len(c.ids) for c in row) for p, row in zip(prompt_of, completions, strict=True)]
        kept = self._within([example.row for example in listed], sizes, self.context.context_length, WHOLE)
        equal = {i for i in kept if issubclass(self.view, Pairs) and completions[i][0].ids == completions[i][1].ids}
        self.counts["pairs_equal_once_cut_dropped"] += len(equal)
        kept = [i for i in kept if i not in equal]
        return CompletionTable(
            self.view,
            self._prompt_table([example.row for example in owners], prompts),
            [prompt_of[i] for i in kept],
            [completions[i] for i in kept],
            [listed[i].marks for i in kept],
        )

    def _encoded(self, prompts: list[Text], groups: list[list[Text]]) -> list[tuple[list[int], list[Tokens]]]:
        title = f"tokenising {len(prompts)} prompts"
        starts = counted(range(0, len(prompts), TOGETHER), title, len(prompts) // TOGETHER + 1, each=1)
        parts = [self.encoder.encode(prompts[i : i + TOGETHER], groups[i : i + TOGETHER]) for i in starts]
        return [row for part in parts for row in part]

    def _prompts_to_sample(self, rows: Rows) -> Table | None:
        """The held-out prompts, each once; where records needn't leave room to sample, cut until they do, and counted."""
        if isinstance(rows, LazyRows) and any(row.values.get("prompt") for row in rows.examined):
            return self._when_needed(rows.unique(), lambda alone, row, part: alone._prompts_to_sample([row]))
        unique = _unique([row for row in rows if row.values.get("prompt")])
        if not unique:
            return None
        if self.view is Prompts:
            return self._prompts(unique)[1]
        limit = min(self.max_prompt_tokens or self._room, self._room)
        raw = self.encoder.prompts([row["prompt"] for row in unique])
        self.counts["heldout_prompts_cut_to_sample"] += sum(len(ids) > self._room for ids in raw)
        cut = [self._end_of(row["prompt"], ids, limit) for row, ids in zip(unique, raw, strict=True)]
        return self._prompt_table(unique, [ids[-limit:] for ids in cut])

    @property
    def _room(self) -> int:
        """The tokens of context that sampling leaves to the prompt."""
        length, new = self.context.context_length, self.context.sampling.max_new_tokens
        if new >= length:
            raise UserError(
                f"generation.max_new_tokens={new} leaves no room for a prompt in a context of {length} tokens: choose fewer"
            )
        return length - new

    def _prompts(self, rows: list[Row]) -> tuple[list[Row], PromptTable]:
        try:
            raw = self.encoder.prompts([row["prompt"] for row in rows])
        except UserError:  # of one row, and which one is not said
            rows = [r for r in rows if self._of_row(r, partial(self.encoder.prompts, [r["prompt"]])) is not None]
            raw = self.encoder.prompts([row["prompt"] for row in rows])
        ids = [self._cut_prompt(row["prompt"], prompt) for row, prompt in zip(rows, raw, strict=True)]
        kept = self._within(rows, [len(prompt) for prompt in ids], self._room, PROMPT)
        rows = [rows[i] for i in kept]
        return rows, self._prompt_table(rows, [ids[i] for i in kept])

    def _cut_prompt(self, prompt: Text, ids: list[int]) -> list[int]:
        limit = self.max_prompt_tokens or len(ids)
        self.counts["prompts_truncated"] += len(ids) > limit
        return self._end_of(prompt, ids, limit)

    def _end_of(self, prompt: Text, ids: list[int], limit: int) -> list[int]:
        """At most `limit` tokens: of a conversation the latest messages, after the system's and within the template's frame; of
        a text its end, after BOS."""
        if len(ids) <= limit:
            return ids
        if not self.encoder.plain(prompt):
            return self.encoder.prompts([self.encoder.shortened(prompt, limit)])[0]
        opening = ids[: ids[0] == self.encoder.tokenizer.bos_token_id]
        return [*opening, *ids[len(ids) - limit + len(opening) :]]

    def _cut(self, tokens: Tokens) -> Tokens:
        if not self.max_completion_tokens:
            return tokens
        cut = tokens.cut(self.max_completion_tokens)
        self.counts["completions_truncated"] += cut.truncated
        return cut

    def _within(self, rows: Sequence[Row], sizes: Sequence[int], room: int, why: str) -> list[int]:
        """The places of rows that fit. Raises UserError for the first that does not, or counts those that are dropped."""
        long = [i for i, size in enumerate(sizes) if size > room]
        if long and not self.drop:
            more = f" (so do {len(long) - 1} more)" if len(long) > 1 else ""
            reason = why.format(size=sizes[long[0]], room=room, more=more)
            raise UserError(f"{rows[long[0]].where}: {reason}, or drop such rows with data.unusable=drop")
        self.counts["rows_too_long_dropped"] += len(long)
        return [i for i, size in enumerate(sizes) if size <= room]

    def _prompt_table(self, rows: list[Row], ids: list[list[int]]) -> PromptTable:
        names = self.columns or dict.fromkeys(name for row in rows for name in row.columns)
        tokenizer = self.encoder.tokenizer
        return PromptTable(
            ids=Ragged(ids),
            columns={name: [row.columns.get(name) for row in rows] for name in names},
            made_of=[row["prompt"] for row in rows],
            decode=lambda batch: tokenizer.batch_decode(batch, skip_special_tokens=True),
        )


def _unique(rows: Sequence[Row]) -> list[Row]:
    """The first row of each prompt."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.key, row)
    return list(first.values())
