"""Data sources: JSON Lines or a JSON array, Parquet, and `datasets` from the hub or from disk."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from alignzoo.batch import Batch
from alignzoo.common.disk import existing
from alignzoo.data.formats import PREFERENCE
from alignzoo.data.json_text import Report
from alignzoo.data.large import LazyRows, not_of
from alignzoo.data.prepare import Rows
from alignzoo.data.raters import VOTING
from alignzoo.data.repeats import Repeated
from alignzoo.data.rows import CANONICAL, Row
from alignzoo.data.source import RowSource
from alignzoo.data.stored import ArrowRows, JsonRows, ParquetRows, RawRow
from alignzoo.data.streamed import Stream, StreamedRows
from alignzoo.errors import UserError, first_line, nearest

if TYPE_CHECKING:
    from datasets import Dataset

CONVERSATIONS = (
    *CANONICAL, "conversations", "conversation", "tools", "functions", "chat_template_kwargs", *PREFERENCE,
)  # fmt: skip


@dataclass(kw_only=True)
class FileSource(RowSource):
    """A file, and perhaps a second one to hold out."""

    heldout_path: str | None = field(
        default=None, metadata={"help": "a file of held-out rows, in place of a share of the data"}
    )

    def read(self, heldout: bool) -> Iterable[RawRow] | None:
        if heldout:
            return self.read_file(existing(self.heldout_path, "data.heldout_path")) if self.heldout_path else None
        return self.read_file(existing(self.place(), "data.path"))

    @abstractmethod
    def read_file(self, path: Path) -> Iterable[RawRow]:
        """(where, row) of each row of the file."""


@dataclass(kw_only=True)
class JsonLines(FileSource):
    """JSON Lines, one object a line, or one JSON array of objects; plain or gzip (.gz)."""

    def read_file(self, path: Path) -> JsonRows:
        return JsonRows(path)


@dataclass(kw_only=True)
class Parquet(FileSource):
    """A Parquet file."""

    def read_file(self, path: Path) -> ParquetRows:
        return ParquetRows(path, _sparse(self))


@dataclass(kw_only=True)
class SplitSource(RowSource):
    """A `datasets` data set with splits."""

    split: str = field(default="train", metadata={"help": "the split to train on"})
    heldout_split: str | None = field(default=None, metadata={"help": "the split to hold out, in place of a share of the data"})

    def read(self, heldout: bool) -> Iterable[RawRow] | None:
        name = self.heldout_split if heldout else self.split
        return ArrowRows(self.load(name), f"{self.place()}[{name}]", _sparse(self)) if name else None

    @abstractmethod
    def load(self, split: str) -> Dataset:
        """The rows of a split."""


@dataclass(kw_only=True)
class Hub(SplitSource):
    """A data set of the Hugging Face hub, or whatever else `datasets.load_dataset` takes."""

    name: str | None = field(default=None, metadata={"help": "the data set's configuration"})
    revision: str | None = field(default=None, metadata={"help": "a branch, tag or commit"})
    streaming: bool = field(
        default=False, metadata={"help": "read rows as they come, in their order, and nothing beforehand but the first of them"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = ["vocabulary", "shots", "max_rows"] + ["heldout"] * (self.heldout_split is None)
        drops = [name for name in ("duplicates", "contradictions") if getattr(self, name) is Repeated.drop]
        for name in [name for name in numbers if getattr(self, name)] + drops:
            if self.streaming:
                split = "hold out a split with data.heldout_split=NAME, or nothing with data.heldout=0"
                self._refuse(f"data.{name}", split if name == "heldout" else "leave it out")

    def rows(self) -> tuple[list[Row], list[Row], Report]:
        if self.streaming:
            self._refuse("what is made, mixed or asked of its rows", "leave data.streaming out")
        return super().rows()

    def lazy_rows_for(self, view: type[Batch]) -> tuple[LazyRows, Rows, Report] | None:
        if not self.streaming:
            return super().lazy_rows_for(view)
        counts = Counter[str]()
        heldout, _ = self.whole(True, counts) or ([], {})
        stream = Stream(lambda: self.load(self.split), f"{self.path}[{self.split}]", _sparse(self))
        rows = StreamedRows.of(stream, self._canonical_row, self.drops).then(partial(not_of, {row.key for row in heldout}))
        counts.update(f"left_out_{name}" for columns in stream.first for name in self.leave_out if name in columns)
        if any(not row.values.keys().isdisjoint(VOTING) for row in rows.examined):
            self._refuse("settling votes of several raters", "settle them beforehand")
        self._check(rows.examined, counts, len(rows))
        sides = self._in_columns(view, rows, heldout, counts)
        return sides or self._refuse("comparing ratings within prompts", "choose rows of pairs")

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise UserError(f"data.streaming=true has no whole to look at, and {what} takes it: {remedy}")

    def load(self, split: str) -> Dataset:
        from datasets import load_dataset

        try:
            return load_dataset(self.place(), self.name, split=split, revision=self.revision, streaming=self.streaming)
        except (ValueError, OSError) as error:
            raise UserError(f"data.path={self.path}, split {split}: {first_line(error)}") from error


@dataclass(kw_only=True)
class Disk(SplitSource):
    """A data set written by `save_to_disk`, with splits or without."""

    def load(self, split: str) -> Dataset:
        from datasets import DatasetDict, load_from_disk

        path = existing(self.place(), "data.path")
        try:
            loaded = load_from_disk(str(path))
        except (ValueError, OSError) as error:
            raise UserError(f"data.path={path} is not a data set saved by save_to_disk: {first_line(error)}") from error
        if isinstance(loaded, DatasetDict):
            if split not in loaded:
                raise UserError(f"data.path={path} has no split {split!r}.{nearest(split, loaded)} It has {', '.join(loaded)}")
            return loaded[split]
        if self.heldout_split:
            what = f"data.heldout_split={self.heldout_split}: {path} has no splits"
            raise UserError(f"{what}; hold out a share with data.heldout")
        return loaded


def _sparse(source: RowSource) -> frozenset[str]:
    """The columns of messages and tools."""
    return frozenset({*CONVERSATIONS, *source.columns.values()})
