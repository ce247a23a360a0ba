"""`data=mixture`: rows of several sources, in proportion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.common import nested
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Table, Tables
from alignzoo.data.dialogue import as_messages
from alignzoo.data.formats import Values
from alignzoo.data.json_text import Report
from alignzoo.data.rows import Row
from alignzoo.data.text import TextSource
from alignzoo.data.views import RECIPES, Example, derived, examples, recipe, together
from alignzoo.errors import UserError, require

ORIGIN = "origin"  # the column with the name of a row's source


@dataclass
class SourceRows:
    """One source's rows, as they are or as a view has them."""

    name: str
    weight: float | None
    train: list[Row]
    heldout: list[Row]
    report: Report


@dataclass(kw_only=True)
class Mixture(TextSource):
    """Rows of `sources`, each {kind: a data source's name, weight: its share of the mixture, and that source's own fields}.

        data=mixture data.sources='{a: {kind: jsonl, path: a.jsonl, weight: 3}, b: {kind: parquet, path: b.parquet, weight: 1}}'

    Weights are relative; with none, each source has as many rows as it has. A source may hold pairs where another holds
    rankings: each is converted by itself. The column `origin` names the source of a row.
    """

    sources: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "name: {kind, weight, and the source's own fields}"}
    )
    size: int = field(
        default=0, metadata={"help": "training rows; 0: as many as all sources have, those that are few repeated"}
    )
    mixture_seed: int = field(default=0, metadata={"help": "which rows of a source are taken where not all are"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 0, "data.size", self.size, ">= 0")
        for name, part in self.sources.items():
            _check(f"data.sources.{name}", part)
        without = [name for name, part in self.sources.items() if part.get("weight") is None]
        if without and len(without) < len(self.sources):
            raise UserError(f"data.sources.{without[0]} has no weight, and others have: give each one, or none")

    def rows(self) -> tuple[list[Row], list[Row], Report]:
        return self._joined(self._sources(None))

    def rows_for(self, view: type[Batch]) -> tuple[list[Row], list[Row], Report]:
        """In the columns of the view, whatever each source has."""
        sources = self._sources(view)
        return self._joined(_in_view(view, sources) if view in RECIPES else sources)

    def tables(self, view: type[Batch], context: Context) -> Tables:
        tables = super().tables(view, context)
        if view is not Pairs:
            self._pairs = self._pairs_of(context)
        return tables

    def _pairs_of(self, context: Context) -> Table | None:
        """Held-out pairs of the sources that have some."""
        rows = []
        for source in self._sources(Pairs):
            try:
                rows += _in_view(Pairs, [source])[0].heldout
            except UserError:
                continue
        rows = [as_messages(row) for row in rows] if self.chat else rows
        return self._table_of(Pairs, rows, self.encoder(context), context)

    def _sources(self, view: type[Batch] | None) -> list[SourceRows]:
        if not self.sources:
            raise UserError("data=mixture has no sources: give data.sources='{NAME: {kind: jsonl, path: FILE}, ...}'")
        read = []
        for name, settings in self.sources.items():
            with _named(name):
                source = nested.plugin_of("data", f"data.sources.{name}", settings, ("kind", "weight"))
                _check_source(source)
                train, heldout, counts = source.rows() if view is None else source.rows_for(view)
                train, heldout = ([_from(name, row) for row in rows] for rows in (train, heldout))
                read.append(SourceRows(name, settings.get("weight"), train, heldout, {"kind": settings["kind"], **counts}))
        return read

    def _joined(self, sources: list[SourceRows]) -> tuple[list[Row], list[Row], Report]:
        """The training rows in proportion, none of a prompt that another source holds out, and all held-out rows."""
        heldout = [row for source in sources for row in source.heldout]
        taken = {row.key for row in heldout if row.values.get("prompt")}
        for source in sources:
            kept = [row for row in source.train if row.key not in taken]
            if len(kept) < len(source.train):
                source.report["training_rows_that_others_hold_out"] = len(source.train) - len(kept)
            source.train = kept
            if not kept:
                what = "no row is left to train on: the others hold out all its prompts"
                raise UserError(f"data.sources.{source.name}: {what}")
        sizes = [len(source.train) for source in sources]
        counts = shares([source.weight or size for source, size in zip(sources, sizes, strict=True)], self.size or sum(sizes))
        rows = []
        for source, size, count in zip(sources, sizes, counts, strict=True):
            # all of them as often as they go in, then some, chosen by the seed
            order = generator(self.mixture_seed, "mixture", source.name).permutation(size)
            rows += source.train * (count // size) + [source.train[i] for i in sorted(order[: count % size].tolist())]
            source.report |= {
                "training_rows": size, "used": count, "share": count / sum(counts),
                "times_each": count / size, "heldout_rows": len(source.heldout),
            }  # fmt: skip
        return rows, heldout, {"sources": {source.name: source.report for source in sources}}


def shares(weights: Sequence[float], total: int) -> list[int]:
    """`total` in proportion to the weights, in whole numbers by largest remainder."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _in_view(view: type[Batch], sources: Sequence[SourceRows]) -> list[SourceRows]:
    """The sources with the columns of the view. Raises UserError naming one that can't give it."""
    viewed = []
    for source in sources:
        with _named(source.name):
            train, heldout = together(view, source.train), together(view, source.heldout)
            chosen = recipe(view, train)
            note = derived(view, chosen, train)
            sides = [[_in_columns(view, e) for e in examples(rows, chosen)] for rows in (train, heldout)]
            if not sides[0]:
                raise UserError(f"no row of {train[0].where} and the rest can be used as {view.__name__}")
        if view is Prompts:
            sides = [list({row.key: row for row in reversed(rows)}.values())[::-1] for rows in sides]
        report = source.report | ({"derived": note} if note else {})
        viewed.append(replace(source, train=sides[0], heldout=sides[1], report=report))
    bare = [source.name for source in viewed if "margin" not in source.train[0].values]
    if view is Pairs and 0 < len(bare) < len(viewed):
        what = f"{', '.join(bare)} has no margins, and others have"
        raise UserError(f"data.sources: {what}: leave their column out, or give it to all")
    return viewed


def _in_columns(view: type[Batch], example: Example) -> Row:
    texts, marks = example.completions, example.marks
    values: Values = {"prompt": example.prompt}
    if view is Completions or view is Rated:
        values |= {"completion": texts[0]} | ({"label": marks[0]} if view is Rated else {})
    elif view is Pairs:
        values |= {"chosen": texts[0], "rejected": texts[1]} | ({"margin": marks[0]} if marks else {})
    elif view is Triples:
        values |= {"chosen": texts[0], "rejected": texts[1], "completion": texts[2]}
    elif view is Rankings:
        values |= {"completions": texts, "ranks": marks}
    return replace(example.row, values=values)


def _from(name: str, row: Row) -> Row:
    origin = {ORIGIN: name}
    return replace(row, where=f"{name}: {row.where}", columns=row.columns | origin, remaining=row.remaining | origin)


def _check(key: str, part: object) -> None:
    if not isinstance(part, Mapping) or "kind" not in part:
        raise UserError(f"{key}={part}: must be {{kind: NAME, weight: NUMBER, and that source's own fields}}")
    weight = part.get("weight")
    good = weight is None or (isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < float("inf"))
    require(good, f"{key}.weight", weight, "a number > 0")


def _check_source(source: object) -> None:
    if not isinstance(source, TextSource):
        raise UserError("has no rows of text to mix: take its file with kind jsonl, or use it alone")
    for f in fields(TextSource):
        if getattr(source, f.name) != getattr(Mixture(), f.name):
            raise UserError(f"{f.name} is the mixture's to say, for all sources: give data.{f.name}")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Mistakes inside are told with the source's name."""
    try:
        yield
    except UserError as error:
        key = f"data.sources.{name}"
        raise error if str(error).startswith(key) else UserError(f"{key}: {error}") from error
