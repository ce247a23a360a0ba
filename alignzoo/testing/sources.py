"""What a data source promises: at least one view, the same every time, tokens in place, and held-out prompts held out."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from alignzoo.batch import Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.contracts import Tables
from alignzoo.errors import UserError
from alignzoo.testing import reshape
from alignzoo.testing.part import Part
from alignzoo.testing.rewards import context
from alignzoo.testing.subject import expect

VIEWS = (Prompts, Completions, Pairs, Rated, Rankings)


def views(part: Part) -> None:
    """It gives records in one view at least, and says why not in the others."""
    found, refused = {}, {}
    for view in VIEWS:
        try:
            found[view] = _tables(part, view)
        except UserError as error:
            refused[view] = str(error)
    expect(
        bool(found),
        "at least one view",
        "; ".join(dict.fromkeys(refused.values()))[:200],
        "settings are missing: give data.path=...",
    )
    for view, tables in found.items():
        expect(isinstance(tables, Tables), "Tables", type(tables).__name__, "`tables` returns something else")
        expect(len(tables.train) > 0, f"training records as {view.__name__}", "none", "everything is held out")
        batch = tables.train.batch(range(min(4, len(tables.train))))
        expect(isinstance(batch, view), f"{view.__name__} records", type(batch).__name__, "`view` is not looked at")


def tokens(part: Part) -> None:
    """Prompts end at the right, completions begin at the left, and what is scored is attended."""
    made = context(part)
    for completions in (c for view in VIEWS[1:] for c in _sides(_batch(part, view))):
        prompts = completions.prompts
        expect(bool(prompts.attended[:, -1].all()), "prompts padded on the left", "padding at the end", "padding on the right")
        expect(
            bool(completions.attended[:, 0].all()),
            "completions padded on the right",
            "padding at the start",
            "padding on the left",
        )
        inside = not bool((completions.scored & ~completions.attended).any())
        expect(inside, "`scored` to be a part of `attended`", "more", "padding is scored")
        expect(
            bool(completions.scored.any(1).all()), "a scored token in every completion", "none in some", "an empty completion"
        )
        low, high = int(completions.ids.min()), int(completions.ids.max())
        expect(
            0 <= low <= high < len(made.tokenizer), "tokens of the vocabulary", f"{low} to {high}", "another tokenizer's ids"
        )


def rows(part: Part) -> None:
    """`row` holds the numbers of the rows asked for, in their order."""
    for view in VIEWS:
        if (tables := _try(part, view)) is not None and len(tables.train) > 2:
            batch: Any = tables.train.batch([2, 0])
            listed = list(dict.fromkeys(batch.row.tolist()))
            expect(listed == [2, 0], f"rows 2 and 0 of {view.__name__}", f"{listed}", "`row` counts from 0 in each batch")


def repeatable(part: Part) -> None:
    """Read again it is the same, and nothing is drawn from a global random stream."""
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    for view in VIEWS:
        once, again = _batch(part, view), _batch(part, view)
        if once is not None and again is not None:
            pairs = zip(reshape.tensors(once), reshape.tensors(again), strict=True)
            same = all(x.shape == y.shape and torch.equal(x, y) for (_, x), (_, y) in pairs)
            expect(same, f"the same {view.__name__} when read again", "others", "a shuffle without a seed")
    after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    drawn = not torch.equal(before[0], after[0]) or before[1:] != after[1:]
    expect(not drawn, "no draw from a global random stream", "one", "random.Random(context.seed), torch.Generator()")


def heldout(part: Part) -> None:
    """No prompt of the training records is held out."""
    tables = _try(part, Prompts)
    if tables is None or tables.prompts is None:
        return
    train, out = (_prompts(t) for t in (tables.train, tables.prompts))
    shared = train & out
    expect(not shared, "no held-out prompt in training", f"{len(shared)} of {len(out)}", "a split by row, where prompts repeat")


def _prompts(table: Any) -> set[tuple[int, ...]]:
    batch = table.batch(range(len(table)))
    return {tuple(ids[mask].tolist()) for ids, mask in zip(batch.ids, batch.attended, strict=True)}


def _tables(part: Part, view: Any) -> Tables:
    made = context(part)
    source = part.fresh()
    made.tokenizer = source.tokenizer() or made.tokenizer
    return source.tables(view, made)


def _try(part: Part, view: Any) -> Tables | None:
    try:
        return _tables(part, view)
    except UserError:
        return None


def _batch(part: Part, view: Any) -> Any:
    tables = _try(part, view)
    return None if tables is None else tables.train.batch(range(min(4, len(tables.train))))


def _sides(batch: Any) -> list[Completions]:
    if isinstance(batch, Pairs):
        return [batch.chosen, batch.rejected]
    return [batch] if isinstance(batch, Completions) else []


CHECKS = (views, tokens, rows, repeatable, heldout)
