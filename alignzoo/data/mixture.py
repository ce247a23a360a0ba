"""`data=mixture`: rows of several sources, in proportion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.common import nested
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Tables
from alignzoo.data.dialogue import as_messages
from alignzoo.data.rows import Row
from alignzoo.data.text import TextSource
from alignzoo.data.views import RECIPES, Example, derived, recipe, together
from alignzoo.errors import UserError, require

ORIGIN = "origin"  # the column with the name of a row's source


@dataclass
class Part:
    """One source with its rows, as they are or as a view has them."""

    name: str
    weight: float | None
    train: list[Row]
    heldout: list[Row]
    report: dict[str, Any]


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
        self._weights = {name: part.get("weight") for name, part in self.sources.items()}
        without = [name for name, weight in self._weights.items() if weight is None]
        if without and len(without) < len(self._weights):
            raise UserError(f"data.sources.{without[0]} has no weight, and others have: give each one, or none")

    def rows(self) -> tuple[list[Row], list[Row], dict[str, Any]]:
        return self._joined(self._parts(None))

    def rows_for(self, view: type[Batch]) -> tuple[list[Row], list[Row], dict[str, Any]]:
        """In the columns of the view, whatever each source has."""
        parts = self._parts(view)
        return self._joined(_in_view(view, parts) if view in RECIPES else parts)

    def tables(self, view: type[Batch], context: Context) -> Tables:
        made = super().tables(view, context)
        if view is not Pairs:
            self._pairs = self._pairs_of(context)
        return made

    def _pairs_of(self, context: Context) -> Any:
        """Held-out pairs of the sources that have some."""
        rows = []
        for part in self._parts(Pairs):
            try:
                rows += _in_view(Pairs, [part])[0].heldout
            except UserError:
                continue
        rows = [as_messages(row) for row in rows] if self.chat else rows
        return self._heldout_pairs(rows, self.encoder(context), context)

    def _parts(self, view: type[Batch] | None) -> list[Part]:
        if not self.sources:
            raise UserError("data=mixture has no sources: give data.sources='{NAME: {kind: jsonl, path: FILE}, ...}'")
        parts = []
        for name, given in self.sources.items():
            with _named(name):
                source = nested.made("data", f"data.sources.{name}", given, ("kind", "weight"))
                _check_source(source)
                train, heldout, counts = source.rows() if view is None else source.rows_for(view)
                sides = [[_of(name, row) for row in rows] for rows in (train, heldout)]
                parts.append(Part(name, self._weights[name], sides[0], sides[1], {"kind": given["kind"], **counts}))
        return parts

    def _joined(self, parts: list[Part]) -> tuple[list[Row], list[Row], dict[str, Any]]:
        """The training rows in proportion, none of a prompt that another source holds out, and all held-out rows."""
        heldout = [row for part in parts for row in part.heldout]
        taken = {row.key for row in heldout if row.values.get("prompt")}
        for part in parts:
            kept = [row for row in part.train if row.key not in taken]
            part.report |= (
                {"training_rows_that_others_hold_out": len(part.train) - len(kept)} if len(kept) < len(part.train) else {}
            )
            part.train = kept
            if not kept:
                raise UserError(f"data.sources.{part.name}: no row is left to train on: the others hold out all its prompts")
        counts = shares([part.weight or len(part.train) for part in parts], self.size or sum(len(part.train) for part in parts))
        rows = []
        for part, count in zip(parts, counts, strict=True):
            rows += self._drawn(part, count)
            part.report |= {
                "training_rows": len(part.train), "used": count, "share": count / sum(counts),
                "times_each": count / len(part.train), "heldout_rows": len(part.heldout),
            }  # fmt: skip
        return rows, heldout, {"sources": {part.name: part.report for part in parts}}

    def _drawn(self, part: Part, count: int) -> list[Row]:
        """So many rows of a source: all of them as often as they go in, then some, chosen by the seed."""
        whole, rest = divmod(count, len(part.train))
        order = generator(self.mixture_seed, "mixture", part.name).permutation(len(part.train))
        return part.train * whole + [part.train[place] for place in sorted(order[:rest].tolist())]


def shares(weights: Sequence[float], total: int) -> list[int]:
    """`total` in proportion to the weights, in whole numbers by largest remainder."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _in_view(view: type[Batch], parts: Sequence[Part]) -> list[Part]:
    """The parts with the columns of the view. Raises UserError naming a source that can't give it."""
    made = []
    for part in parts:
        with _named(part.name):
            train, heldout = together(view, part.train), together(view, part.heldout)
            chosen = recipe(view, train)
            note = derived(view, chosen, train)
            sides = [[_columns(view, one) for row in rows for one in chosen.make(row)] for rows in (train, heldout)]
            if not sides[0]:
                raise UserError(f"no row of {train[0].where} and the rest can be used as {view.__name__}")
        if view is Prompts:
            sides = [list({row.key: row for row in reversed(rows)}.values())[::-1] for rows in sides]
        made.append(replace(part, train=sides[0], heldout=sides[1], report=part.report | ({"derived": note} if note else {})))
    if view is Pairs and len({"margin" in part.train[0].values for part in made}) > 1:
        bare = ", ".join(part.name for part in made if "margin" not in part.train[0].values)
        raise UserError(f"data.sources: {bare} has no margins, and others have: leave their column out, or give it to all")
    return made


def _columns(view: type[Batch], one: Example) -> Row:
    texts, marks = one.completions, one.marks
    values: dict[str, Any] = {"prompt": one.prompt}
    if view is Completions or view is Rated:
        values |= {"completion": texts[0]} | ({"label": marks[0]} if view is Rated else {})
    elif view is Pairs:
        values |= {"chosen": texts[0], "rejected": texts[1]} | ({"margin": marks[0]} if marks else {})
    elif view is Rankings:
        values |= {"completions": texts, "ranks": marks}
    return replace(one.row, values=values)


def _of(name: str, row: Row) -> Row:
    return replace(
        row, where=f"{name}: {row.where}", columns={**row.columns, ORIGIN: name}, remaining={**row.remaining, ORIGIN: name}
    )


def _check(key: str, part: Any) -> None:
    if not isinstance(part, Mapping) or "kind" not in part:
        raise UserError(f"{key}={part}: must be {{kind: NAME, weight: NUMBER, and that source's own fields}}")
    weight = part.get("weight")
    good = weight is None or (isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < float("inf"))
    require(good, f"{key}.weight", weight, "a number > 0")


def _check_source(source: Any) -> None:
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
