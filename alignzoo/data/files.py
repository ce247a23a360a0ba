"""Data sources: JSON Lines or a JSON array, Parquet, and `datasets` from the hub or from disk."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from abc import abstractmethod
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from alignzoo.batch import Batch
from alignzoo.common.progress import counted
from alignzoo.data.formats import PREFERENCE
from alignzoo.data.json_text import BrokenJson, elements
from alignzoo.data.large import LazyRows, not_of
from alignzoo.data.prepare import Rows
from alignzoo.data.raters import VOTING
from alignzoo.data.repeats import Repeated
from alignzoo.data.rows import CANONICAL, Row
from alignzoo.data.source import RowSource, existing
from alignzoo.data.stored import LARGE, ArrowRows, RawRow, Stored, StoredLines, json_line, json_object, lean
from alignzoo.data.streamed import Stream, StreamedRows
from alignzoo.errors import UserError, nearest

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
        path = self._file(heldout)
        return self.read_file(path) if path else None

    def stored(self, heldout: bool) -> Stored | None:
        path = self._file(heldout)
        return self.stored_file(path) if path else None

    @abstractmethod
    def read_file(self, path: Path) -> Iterator[RawRow]:
        """(where, row) of each row of the file."""

    @abstractmethod
    def stored_file(self, path: Path) -> Stored | None:
        """As `stored`, of one file."""

    def _file(self, heldout: bool) -> Path | None:
        if heldout and not self.heldout_path:
            return None
        key, path = ("data.heldout_path", self.heldout_path or "") if heldout else ("data.path", self._given())
        return existing(path, key)


@dataclass(kw_only=True)
class JsonLines(FileSource):
    """JSON Lines, one object a line, or one JSON array of objects; plain or gzip (.gz)."""

    def read_file(self, path: Path) -> Iterator[RawRow]:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        number, begun = 0, False
        try:
            with opened(path, "rb") as lines:
                for number, line in enumerate(lines, start=1):
                    content = line.removeprefix(BOM_UTF8) if number == 1 else line
                    if not begun and content.lstrip().startswith(b"["):
                        yield from _array(content + lines.read(), path)
                        return
                    if content.strip():
                        begun = True
                        yield f"{path.name}, line {number}", json_line(content, f"{path}, line {number}")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path}, after line {number}: not a complete gzip file ({error})") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None

    def stored_file(self, path: Path) -> Stored | None:
        return StoredLines.of(path)


@dataclass(kw_only=True)
class Parquet(FileSource):
    """A Parquet file."""

    def read_file(self, path: Path) -> Iterator[RawRow]:
        import pyarrow
        from pyarrow import parquet

        try:
            batches = parquet.ParquetFile(path).iter_batches()
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _numbered(path.name, rows, _sparse(self))
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {_first_line(error)}") from error

    def stored_file(self, path: Path) -> Stored | None:
        import pyarrow
        from datasets import Dataset
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(path)
            if file.metadata.num_rows <= LARGE:
                return None
            with tempfile.NamedTemporaryFile(suffix=".arrow") as unpacked:  # once mapped, it stays while it is looked at
                with pyarrow.ipc.new_stream(unpacked, file.schema_arrow) as stream:
                    for batch in counted(file.iter_batches(), f"{path.name}: unpacking", each=1):
                        stream.write_batch(batch)
                unpacked.flush()
                return ArrowRows(Dataset.from_file(unpacked.name), path.name, _sparse(self))
        except (pyarrow.ArrowException, OSError):
            return None  # reading says what is wrong


@dataclass(kw_only=True)
class SplitSource(RowSource):
    """A `datasets` data set with splits."""

    split: str = field(default="train", metadata={"help": "the split to train on"})
    heldout_split: str | None = field(default=None, metadata={"help": "the split to hold out, in place of a share of the data"})

    def read(self, heldout: bool) -> Iterable[RawRow] | None:
        name = self._split(heldout)
        return _numbered(f"{self._given()}[{name}]", self.load(name), _sparse(self)) if name else None

    def stored(self, heldout: bool) -> Stored | None:
        name = self._split(heldout)
        data: Any = name and self.load(name)
        return ArrowRows(data, f"{self._given()}[{name}]", _sparse(self)) if name and len(data) > LARGE else None

    def _split(self, heldout: bool) -> str | None:
        return self.heldout_split if heldout else self.split

    @abstractmethod
    def load(self, split: str) -> Iterable[Mapping[str, Any]]:
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

    def rows(self) -> tuple[list[Row], list[Row], dict[str, Any]]:
        if self.streaming:
            self._refuse("what is made, mixed or asked of its rows", "leave data.streaming out")
        return super().rows()

    def lazy_rows_for(self, view: type[Batch]) -> tuple[LazyRows, Rows, dict[str, Any]] | None:
        if not self.streaming:
            return super().lazy_rows_for(view)
        counts = Counter[str]()
        heldout = self._apart(counts) or []
        stream = Stream(lambda: self.load(self.split), f"{self.path}[{self.split}]", _sparse(self))
        rows = StreamedRows.of(stream, self._canonical_row, self.drops).then(partial(not_of, {row.key for row in heldout}))
        counts.update(f"left_out_{name}" for columns in stream.first for name in self.leave_out if name in columns)
        if any(not row.values.keys().isdisjoint(VOTING) for row in rows.known):
            self._refuse("settling votes of several raters", "settle them beforehand")
        self._check(rows.known, counts, len(rows))
        sides = self._in_columns(view, rows, heldout, counts)
        return sides or self._refuse("comparing ratings within prompts", "choose rows of pairs")

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise UserError(f"data.streaming=true has no whole to look at, and {what} takes it: {remedy}")

    def load(self, split: str) -> Iterable[Mapping[str, Any]]:
        from datasets import load_dataset

        options: dict[str, Any] = {"split": split, "revision": self.revision, "streaming": self.streaming}
        try:
            loaded: Iterable[Mapping[str, Any]] = load_dataset(self._given(), self.name, **options)
        except (ValueError, OSError) as error:
            raise UserError(f"data.path={self.path}, split {split}: {_first_line(error)}") from error
        return loaded


@dataclass(kw_only=True)
class Disk(SplitSource):
    """A data set written by `save_to_disk`, with splits or without."""

    def load(self, split: str) -> Iterable[Mapping[str, Any]]:
        from datasets import DatasetDict, load_from_disk

        path = existing(self._given(), "data.path")
        try:
            loaded = load_from_disk(str(path))
        except (ValueError, OSError) as error:
            raise UserError(f"data.path={path} is not a data set saved by save_to_disk: {_first_line(error)}") from error
        if isinstance(loaded, DatasetDict):
            if split not in loaded:
                raise UserError(f"data.path={path} has no split {split!r}.{nearest(split, loaded)} It has {', '.join(loaded)}")
            return loaded[split]
        if self.heldout_split:
            raise UserError(
                f"data.heldout_split={self.heldout_split}: {path} has no splits; hold out a share with data.heldout"
            )
        return loaded


def _array(content: bytes, path: Path) -> Iterator[RawRow]:
    number = 0
    try:
        for number, value in enumerate(elements(content.decode()), start=1):
            yield f"{path.name}, row {number}", json_object(value, f"{path}, row {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start + 1}); convert the file to UTF-8") from None
    except BrokenJson as error:
        raise UserError(
            f"{path}, row {number + 1}: {error}\n"
            "an array can't be read past it: write one object a line, and data.unusable=drop can drop the line"
        ) from None


def _sparse(source: RowSource) -> frozenset[str]:
    """The columns of messages and tools."""
    return frozenset({*CONVERSATIONS, *source.columns.values()})


def _numbered(name: str, rows: Iterable[Mapping[str, Any]], sparse: frozenset[str]) -> Iterator[RawRow]:
    for number, row in enumerate(rows, start=1):
        yield f"{name}, row {number}", lean(row, sparse)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
