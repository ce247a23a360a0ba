"""What the trainer iterates over: records for offline algorithms, rollouts cut into minibatches for online ones.

Both are functions of a position: which rows, in which order, follows from the seed and the position alone, the same for any
number of ranks, so that a resumed run needs no fast-forward. Neither goes through `accelerator.prepare`, which reads a batch
ahead: a rollout would then come from a policy one update old.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch, Decode
from alignzoo.common.account import tokens_in
from alignzoo.common.noise import generator
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import Table, Tables
from alignzoo.data.lazy import LazyTable
from alignzoo.data.tables import renumbered
from alignzoo.errors import UserError

EMPTY_ROLLOUTS = 100  # in a row, refills included, after which an algorithm that keeps nothing is stopped
MOST_ASKED = 100  # times that a rollout may read on
B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Share:
    """This rank's part of the work: contiguous, so that ranks together read what one process reads, in the same order."""

    rank: int
    ranks: int

    def of(self, count: int) -> slice:
        return slice(self.rank * count // self.ranks, (self.rank + 1) * count // self.ranks)


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

    def records(self, start: int, stop: int) -> Batch:
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

    def state_dict(self) -> dict[str, object]:
        if not isinstance(self.table, LazyTable):
            return {}
        stream = self.table.rows.state_dict()
        return {"looked_at": self.looked_at, "passed": [*self.passed], "counts": dict(self.counts), "stream": stream}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "looked_at" in state:
            self.looked_at, self.passed, self.counts = state["looked_at"], state["passed"], Counter(state["counts"])
        if state.get("stream") and isinstance(self.table, LazyTable):
            self.table.rows.load_state_dict(state["stream"])

    def _rows(self, epoch: int, offsets: list[int]) -> list[int]:
        if isinstance(self.table, LazyTable) and self.table.rows.endless:
            return offsets
        rows: list[int] = self._permutation(epoch)[offsets].tolist()
        return rows

    @lru_cache(maxsize=2)  # noqa: B019 - an Order lives as long as its run
    def _permutation(self, epoch: int) -> np.ndarray:
        return generator(self.seed, "order", epoch).permutation(len(self.table))


def with_late(order: Order, tables: Tables) -> dict[str, object]:
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
            part, start = self.share.of(self.batch), self.step * self.batch
            self.order.look(start + self.batch)  # all ranks alike, before any has begun the step
            self.step += 1
            first, last = start + part.start, start + part.stop
            # by rows of the table, not by records: a row of rankings is several records that belong together
            if self.by_length:
                yield from _sorted([self.order.records(i, i + 1) for i in range(first, last)], self.micro_batch)
            else:
                yield from (self.order.records(i, i + self.micro_batch) for i in range(first, last, self.micro_batch))

    def drop(self) -> None:
        """There is no rollout to drop."""

    def state_dict(self) -> dict[str, object]:
        return {"step": self.step} | self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.order.load_state_dict(state)


class OnlineLoader:
    """Rollouts, gone through in shuffled minibatches, prompt groups kept together. State: the rollout in progress, the position
    in it, and the one in the order; with a lag, the rollouts that are drawn and not yet begun.

    A rollout is drawn `lag` minibatches before its first, by the policy of that time: nothing but records is kept.

    All ranks exchange what they sampled, so that minibatches don't depend on the number of ranks; a last minibatch that is not
    full is filled with records of weight 0. `decode` does not travel between ranks or into checkpoints.
    """

    def __init__(
        self, order: Order, prompts: int, batch: int, micro_batch: int, passes: int, share: Share, seed: int,
        decode: Decode | None, by_length: bool = False, lag: int = 0,
    ) -> None:  # fmt: skip
        self.order, self.prompts, self.batch, self.micro_batch, self.lag = order, prompts, batch, micro_batch, lag
        self.passes, self.share, self.seed = passes, share, seed
        self.decode, self.index, self.cursor, self.by_length = decode, 0, 0, by_length
        self.place, self.asked = 0, 0
        self.rollout: Batch | None = None
        self.number = 0  # of the rollout in progress
        self.waiting: list[tuple[int, Batch]] = []  # numbers and rollouts

    def batches(
        self, sample: Callable[[int, Batch], Batch], after: Callable[[Batch], None],
        steps_left: Callable[[], int] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """`sample(index, records)` turns this rank's records into experience; `after` hears of each rollout, whole. What would
        begin after the `steps_left` is not drawn."""
        while True:
            left = 0 if self.rollout is None else self._steps(self.rollout) - self.cursor
            to_come = left + sum(self._steps(rollout) for _, rollout in self.waiting)
            while to_come == 0 or (to_come <= self.lag and (steps_left is None or to_come < steps_left())):
                drawn = self._next_rollout(sample)
                after(drawn)
                self.waiting.append((self.index, drawn))
                to_come += self._steps(drawn)
            if not left:
                (self.number, self.rollout), self.cursor = self.waiting.pop(0), 0
            assert self.rollout is not None
            minibatch, size = self._minibatch(self.rollout, self.cursor), self.micro_batch
            self.cursor += 1
            if self.by_length:
                yield from _sorted([minibatch.take([i]) for i in range(len(minibatch))], size)
            elif size >= len(minibatch):
                yield minibatch
            else:
                yield from (minibatch.take(range(i, min(i + size, len(minibatch)))) for i in range(0, len(minibatch), size))

    def drop(self) -> None:
        """Leave the rest of the rollout; the next batch comes from a new one. Raises UserError where the policies that should
        draw the next ones are gone."""
        if self.lag:
            raise UserError(f"rollout.lag={self.lag} can't be used with an algorithm that leaves a rollout before its end")
        self.rollout = None

    def ahead(self) -> float:
        """The share of the rollout in progress that is still to be gone through."""
        return 0.0 if self.rollout is None else 1 - self.cursor / self._steps(self.rollout)

    def _next_rollout(self, sample: Callable[[int, Batch], Batch]) -> Batch:
        turns = 0
        while turns < EMPTY_ROLLOUTS:
            self.asked = -1
            experience = gather_objects(bind(sample(self.index, self.more(self.prompts)).to("cpu"), None))
            kept = [batch for batch in experience if len(batch)]
            self.index, turns = self.index + 1, turns + 1 + self.asked
            if kept:
                return bind(kept[0] if len(kept) == 1 else type(kept[0]).cat(kept), self.decode)
        raise UserError(
            f"{EMPTY_ROLLOUTS} rollouts in a row kept no completion: the algorithm drops everything it samples. Where it "
            "compares a prompt's completions, their rewards may all be equal: give another reward, or more rollout.samples"
        )

    def more(self, count: int) -> Batch:
        """This rank's part of the next records. Raises UserError where a rollout asks too often."""
        self.asked += 1
        if self.asked > MOST_ASKED:
            raise UserError(f"a rollout asked for more prompts {MOST_ASKED} times, and was still not full: it can't be filled")
        start, part = self.place, self.share.of(count)
        self.order.look(start + count)
        self.place += count
        nothing = part.start == part.stop
        records = self.order.records(start + part.start, start + part.stop + nothing)
        return records.take([]) if nothing else records

    def _steps(self, rollout: Batch) -> int:
        return self.passes * -(-len(rollout) // self.batch)

    def _minibatch(self, rollout: Batch, cursor: int) -> Batch:
        turn, place = divmod(cursor, -(-len(rollout) // self.batch))
        rows = _grouped(rollout, generator(self.seed, "minibatches", self.number, turn))
        rows = rows[place * self.batch : (place + 1) * self.batch]
        missing = self.batch - len(rows)
        minibatch = rollout.take(rows)
        if missing:
            minibatch = type(minibatch).cat([minibatch, rollout.take(rows[:1].expand(missing)).blank()])
        part = self.share.of(self.batch)
        return minibatch.take(range(part.start, part.stop))

    def state_dict(self) -> dict[str, object]:
        rollout = None if self.rollout is None else bind(self.rollout, None)
        here: dict[str, object] = {"index": self.index, "cursor": self.cursor, "place": self.place, "rollout": rollout}
        if self.lag:
            waiting = [(number, bind(drawn, None)) for number, drawn in self.waiting]
            here |= {"number": self.number, "waiting": waiting}
        return here | self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.index, self.cursor, rollout = state["index"], state["cursor"], state["rollout"]
        self.place = state.get("place", self.index * self.prompts)  # not there in checkpoints of before
        self.order.load_state_dict(state)
        self.rollout = None if rollout is None else bind(rollout, self.decode)
        self.number = state.get("number", self.index)
        self.waiting = [(number, bind(drawn, self.decode)) for number, drawn in state.get("waiting", [])]


def bind(batch: B, decode: Decode | None) -> B:
    """The records with this decoder in all their prompts."""
    columns: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch)}
    changes = {name: bind(value, decode) for name, value in columns.items() if isinstance(value, Batch)}
    return replace(batch, **changes, **({"decode": decode} if hasattr(batch, "decode") else {}))


def _sorted(parts: list[Batch], size: int) -> Iterator[Batch]:
    """The parts sorted by length, so many at a time: little of a micro-batch is padding then."""
    parts = sorted(parts, key=tokens_in)
    for start in range(0, len(parts), size):
        yield type(parts[0]).cat(parts[start : start + size])


def _grouped(rollout: Batch, order: np.random.Generator) -> Tensor:
    """All rows, shuffled, those of one draw together, whatever the order in which ranks have made them."""
    draws: Tensor | None = getattr(rollout, "row", None)
    groups = torch.arange(len(rollout)) if draws is None else draws.unique(return_inverse=True)[1]
    place = torch.from_numpy(order.permutation(int(groups.max()) + 1))
    return place[groups].argsort(stable=True)
