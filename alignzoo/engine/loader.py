"""What the trainer iterates over: records for offline algorithms, rollouts cut into minibatches for online ones.

Both are functions of a position: which rows, in which order, follows from the seed and the position alone, the same for any
number of ranks, so that a resumed run needs no fast-forward. Neither goes through `accelerator.prepare`, which reads a batch
ahead: a rollout would then come from a policy one update old.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.common.noise import generator
from alignzoo.contracts import Table, Tables
from alignzoo.data.lazy import LazyTable
from alignzoo.data.tables import renumbered
from alignzoo.engine.cost import tokens_in
from alignzoo.errors import UserError
from alignzoo.models.roles import gather_objects

EMPTY_ROLLOUTS = 100  # in a row, after which an algorithm that keeps nothing is stopped


@dataclass(frozen=True)
class Share:
    """This rank's part of the work: contiguous, so that ranks together read what one process reads, in the same order."""

    rank: int
    ranks: int

    def of(self, count: int) -> slice:
        each = count // self.ranks
        return slice(self.rank * each, (self.rank + 1) * each)


class Order:
    """An endless stream of rows: a fresh permutation an epoch, a function of the seed. State, of a table whose records are made
    when they are drawn: how far it was looked at, where rows were passed over, and counts of what was cut or dropped.
    """

    def __init__(self, table: Table, seed: int) -> None:
        if len(table) == 0:
            raise UserError("the training data has no rows")
        self.table, self.seed = table, seed
        self.looked_at, self.passed = 0, list[int]()
        self.counts: Counter[str] = Counter()  # of each row once

    def records(self, start: int, stop: int) -> Any:
        """The records at stream positions [start, stop). Their `row` is unique in the stream; modulo the data's length it is
        the row number.
        """
        self.look(stop)
        size, parts = len(self.table), []
        for epoch, places in groupby(self._places(start, stop), key=lambda place: place // size):
            rows = self._rows(epoch, [place - epoch * size for place in places])
            parts.append(renumbered(self.table.batch(rows), partial(torch.add, other=epoch * size)))
        return parts[0] if len(parts) == 1 else type(parts[0]).cat(parts)

    def look(self, stop: int) -> None:
        """Passes over rows before this position that can't be used, so that the next of the order takes their place. Raises
        LateRow where these are an error.
        """
        if not isinstance(self.table, LazyTable):
            return
        size = len(self.table)
        while self.looked_at < stop:
            place = self.looked_at + len(self.passed)
            epoch, offset = divmod(place, size)
            (row,) = self._rows(epoch, [offset])
            usable = self.table.record(row) is not None
            counts = self.table.dropped.pop(row, Counter())
            if epoch == 0:
                self.counts.update(counts)
            if usable:
                self.looked_at += 1
            elif epoch and not self.looked_at:
                raise UserError("no row of the training data can be used")
            else:
                self.passed.append(place)

    def _places(self, start: int, stop: int) -> Iterator[int]:
        """Where the rows at these positions are in the order, those that are passed over included."""
        for position in range(start, stop):
            yield position + bisect_right(range(len(self.passed)), position, key=lambda i: self.passed[i] - i)

    def state_dict(self) -> dict[str, Any]:
        if not isinstance(self.table, LazyTable):
            return {}
        stream = self.table.rows.stored.state_dict() if self.table.rows.endless else {}
        return {"looked_at": self.looked_at, "passed": [*self.passed], "counts": dict(self.counts), "stream": stream}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "looked_at" in state:
            self.looked_at, self.passed, self.counts = state["looked_at"], state["passed"], Counter(state["counts"])
        if state.get("stream") and isinstance(self.table, LazyTable):
            self.table.rows.stored.load_state_dict(state["stream"])

    def _rows(self, epoch: int, offsets: list[int]) -> list[int]:
        if isinstance(self.table, LazyTable) and self.table.rows.endless:
            return offsets
        rows: list[int] = self._permutation(epoch)[offsets].tolist()
        return rows

    @lru_cache(maxsize=2)  # noqa: B019 - an Order lives as long as its run
    def _permutation(self, epoch: int) -> Any:
        return generator(self.seed, "order", epoch).permutation(len(self.table))


def with_late(order: Order, tables: Tables) -> dict[str, Any]:
    """The report of the data with what was cut or dropped of rows when they were drawn or evaluated, on all ranks."""
    counts = Counter(order.counts)
    for table in (tables.heldout, tables.prompts):
        if isinstance(table, LazyTable):
            rows = {row: dropped for part in gather_objects(table.dropped) for row, dropped in part.items()}
            counts.update(sum(rows.values(), Counter()))
    return tables.report | {name: tables.report.get(name, 0) + count for name, count in counts.items()}


class OfflineLoader:
    """Micro-batches of the data, optimizer step by optimizer step; `by_length`: those of a step sorted by length. State: the
    number of steps taken.
    """

    def __init__(self, order: Order, batch: int, micro_batch: int, share: Share, by_length: bool = False) -> None:
        self.order, self.batch, self.micro_batch, self.share = order, batch, micro_batch, share
        self.by_length, self.step = by_length, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            mine = self.share.of(self.batch)
            start = self.step * self.batch
            self.order.look(start + self.batch)  # all ranks alike, before any has begun the step
            self.step += 1
            first, last = start + mine.start, start + mine.stop
            # by rows of the table, not by records: a row of rankings is several records that belong together
            if self.by_length:
                yield from _sorted([self.order.records(i, i + 1) for i in range(first, last)], self.micro_batch)
            else:
                yield from (self.order.records(i, i + self.micro_batch) for i in range(first, last, self.micro_batch))

    def drop(self) -> None:
        """There is no rollout to drop."""

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step} | self.order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.order.load_state_dict(state)


class OnlineLoader:
    """Rollouts, gone through in shuffled minibatches, prompt groups kept together. State: the rollout in progress and the
    position in it.

    `sample(index, records)` turns this rank's records into experience. All ranks exchange theirs, so that minibatches don't
    depend on the number of ranks; a last minibatch that is not full is filled with records of weight 0.
    """

    def __init__(
        self, order: Order, prompts: int, batch: int, micro_batch: int, passes: int, share: Share, seed: int,
        sample: Callable[[int, Any], Batch], after: Callable[[Batch], None], rebind: Callable[[Batch], Batch],
        by_length: bool = False,
    ) -> None:  # fmt: skip
        self.order, self.prompts, self.batch, self.micro_batch = order, prompts, batch, micro_batch
        self.passes, self.share, self.seed = passes, share, seed
        self.sample, self.after, self.rebind = sample, after, rebind
        self.index, self.cursor, self.by_length = 0, 0, by_length
        self.rollout: Any = None

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self.rollout is None or self.cursor == self.passes * self._minibatches():
                self._next_rollout()
            minibatch = self._minibatch(self.cursor)
            self.cursor += 1
            if self.by_length:
                yield from _sorted([minibatch.take([i]) for i in range(len(minibatch))], self.micro_batch)
            else:
                yield from _cut(minibatch, self.micro_batch)

    def drop(self) -> None:
        """Leave the rest of the rollout; the next batch comes from a new one."""
        self.rollout = None

    def ahead(self) -> float:
        """The share of the rollout in progress that is still to be gone through."""
        return 0.0 if self.rollout is None else 1 - self.cursor / (self.passes * self._minibatches())

    def _next_rollout(self) -> None:
        for _ in range(EMPTY_ROLLOUTS):
            mine = self.share.of(self.prompts)
            start = self.index * self.prompts
            self.order.look(start + self.prompts)
            records = self.order.records(start + mine.start, start + mine.stop)
            made = gather_objects(_unbound(self.sample(self.index, records).to("cpu")))
            kept = [part for part in made if len(part)]
            self.index, self.cursor = self.index + 1, 0
            if kept:
                self.rollout = self.rebind(kept[0] if len(kept) == 1 else type(kept[0]).cat(kept))
                self.after(self.rollout)
                return
        raise UserError(f"{EMPTY_ROLLOUTS} rollouts in a row kept no completion: the algorithm drops everything it samples")

    def _minibatches(self) -> int:
        return -(-len(self.rollout) // self.batch)

    def _minibatch(self, cursor: int) -> Any:
        turn, place = divmod(cursor, self._minibatches())
        rows = _grouped(self.rollout, generator(self.seed, "minibatches", self.index, turn))
        rows = rows[place * self.batch : (place + 1) * self.batch]
        missing = self.batch - len(rows)
        minibatch = self.rollout.take(rows)
        if missing:
            filler = self.rollout.take(rows[:1].expand(missing)).blank()
            minibatch = type(minibatch).cat([minibatch, filler])
        mine = self.share.of(self.batch)
        return minibatch.take(range(mine.start, mine.stop))

    def state_dict(self) -> dict[str, Any]:
        rollout = None if self.rollout is None else _unbound(self.rollout)
        return {"index": self.index, "cursor": self.cursor, "rollout": rollout} | self.order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.index, self.cursor, self.rollout = state["index"], state["cursor"], state["rollout"]
        self.order.load_state_dict(state)
        if self.rollout is not None:
            self.rollout = self.rebind(self.rollout)


def bind(batch: Any, decode: Any) -> Any:
    """The records with this decoder in all their prompts: it does not travel between ranks or into checkpoints."""
    changes = {f.name: bind(getattr(batch, f.name), decode) for f in fields(batch) if isinstance(getattr(batch, f.name), Batch)}
    return replace(batch, **changes, **({"decode": decode} if hasattr(batch, "decode") else {}))


def _unbound(batch: Batch) -> Batch:
    return bind(batch, None)


def _cut(records: Any, size: int) -> Iterator[Any]:
    for start in range(0, len(records), size):
        yield records if size >= len(records) else records.take(range(start, min(start + size, len(records))))


def _sorted(parts: list[Any], size: int) -> Iterator[Any]:
    """The parts sorted by length, so many at a time: little of a micro-batch is padding then."""
    parts = sorted(parts, key=tokens_in)
    for start in range(0, len(parts), size):
        yield type(parts[0]).cat(parts[start : start + size])


def _grouped(rollout: Any, order: Any) -> Tensor:
    """All rows, shuffled, those of one draw together, whatever the order in which ranks have made them."""
    draws = getattr(rollout, "row", None)
    groups = torch.arange(len(rollout)) if draws is None else draws.unique(return_inverse=True)[1]
    place = torch.from_numpy(order.permutation(int(groups.max()) + 1))
    return place[groups].argsort(stable=True)
