"""What a data source promises: at least one view, the same every time, tokens in place, and held-out prompts held out."""

from __future__ import annotations

import torch

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.contracts import Source, Table, Tables
from alignzoo.errors import UserError
from alignzoo.testing import reshape
from alignzoo.testing.expect import expect, no_draw
from alignzoo.testing.reward_checks import context
from alignzoo.testing.subject import Part

VIEWS = (Prompts, Completions, Pairs, Triples, Rated, Rankings)


def views(part: Part[Source]) -> None:
    """It gives records in one view at least, and says why not in the others."""
    by_view, refused = _views(part)
    cause = "settings are missing: give data.path=..."
    expect(bool(by_view), "at least one view", "; ".join(dict.fromkeys(refused))[:200], cause)
    for view, tables in by_view.items():
        expect(isinstance(tables, Tables), "Tables", type(tables).__name__, "`tables` returns something else")
        expect(len(tables.train) > 0, f"training records as {view.__name__}", "none", "everything is held out")
        batch = _first(tables)
        expect(isinstance(batch, view), f"{view.__name__} records", type(batch).__name__, "`view` is not looked at")


def tokens(part: Part[Source]) -> None:
    """Prompts end at the right, completions begin at the left, and what is scored is attended."""
    vocabulary = len(context(part.folder).tokenizer)
    for c in (c for tables in _views(part)[0].values() for c in reshape.completions(_first(tables))):
        ended = c.prompts.attended[:, -1].all()
        expect(ended, "prompts padded on the left", "padding at the end", "padding on the right")
        begun = c.attended[:, 0].all()
        expect(begun, "completions padded on the right", "padding at the start", "padding on the left")
        outside = (c.scored & ~c.attended).any()
        expect(not outside, "`scored` to be a part of `attended`", "more", "padding is scored")
        each = c.scored.any(1).all()
        expect(each, "a scored token in every completion", "none in some", "an empty completion")
        low, high = int(c.ids.min()), int(c.ids.max())
        expect(0 <= low <= high < vocabulary, "tokens of the vocabulary", f"{low} to {high}", "another tokenizer's ids")


def rows(part: Part[Source]) -> None:
    """`row` holds the numbers of the rows asked for, in their order."""
    for view, tables in _views(part)[0].items():
        if len(tables.train) > 2:
            batch = tables.train.batch([2, 0])
            row = batch.row if isinstance(batch, Prompts) else reshape.completions(batch)[0].row
            listed = list(dict.fromkeys(row.tolist()))
            expect(listed == [2, 0], f"rows 2 and 0 of {view.__name__}", f"{listed}", "`row` counts from 0 in each batch")


def repeatable(part: Part[Source]) -> None:
    """Read again it is the same, and nothing is drawn from a global random stream."""
    with no_draw("random.Random(context.seed), torch.Generator()"):
        once, again = ({view: reshape.tensors(_first(t)) for view, t in _views(part)[0].items()} for _ in range(2))
    for view, columns in once.items():
        pairs = [(x, again[view][path]) for path, x in columns.items()]
        same = all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)
        expect(same, f"the same {view.__name__} when read again", "others", "a shuffle without a seed")


def heldout(part: Part[Source]) -> None:
    """No prompt of the training records is held out."""
    tables = _views(part)[0].get(Prompts)
    if tables is None or tables.prompts is None:
        return
    train, out = (_prompts(t) for t in (tables.train, tables.prompts))
    shared = train & out
    expect(not shared, "no held-out prompt in training", f"{len(shared)} of {len(out)}", "a split by row, where prompts repeat")


def _prompts(table: Table) -> set[tuple[int, ...]]:
    batch = table.batch(range(len(table)))
    assert isinstance(batch, Prompts)
    return {tuple(ids[mask].tolist()) for ids, mask in zip(batch.ids, batch.attended, strict=True)}


def _views(part: Part[Source]) -> tuple[dict[type[Batch], Tables], list[str]]:
    """The tables of each view that it gives, and why it does not give the others."""
    by_view: dict[type[Batch], Tables] = {}
    refused = []
    for view in VIEWS:
        source, run = part.fresh(), context(part.folder)
        run.tokenizer = source.tokenizer() or run.tokenizer
        try:
            by_view[view] = source.tables(view, run)
        except UserError as error:
            refused.append(str(error))
    return by_view, refused


def _first(tables: Tables) -> Batch:
    return tables.train.batch(range(min(4, len(tables.train))))


CHECKS = (views, tokens, rows, repeatable, heldout)
