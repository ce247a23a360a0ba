"""Data sources: JSON Lines, Parquet, and `datasets` from the hub or from disk."""

from __future__ import annotations

import gzip
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.data.source import RowSource, existing
from alignzoo.errors import UserError, nearest


@dataclass(kw_only=True)
class FileSource(RowSource):
    """A file, and perhaps a second one to hold out."""

    heldout_path: str | None = field(
        default=None, metadata={"help": "a file of held-out rows, in place of a share of the data"}
    )

    def read(self, heldout: bool) -> Iterable[tuple[str, Mapping[str, Any]]] | None:
        if heldout and not self.heldout_path:
            return None
        key, path = ("data.heldout_path", self.heldout_path or "") if heldout else ("data.path", self._given())
        return self.read_file(existing(path, key))

    @abstractmethod
    def read_file(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where, row) of each row of the file."""


@dataclass(kw_only=True)
class JsonLines(FileSource):
    """JSON Lines: one object a line, plain or gzip (.gz)."""

    def read_file(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        number = 0
        try:
            with opened(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield f"{path.name}, line {number}", _object(line, path, number)
        except UnicodeDecodeError:
            raise UserError(f"{path}, after line {number}: not UTF-8 text; convert the file to UTF-8") from None
        except (gzip.BadGzipFile, EOFError) as error:
            raise UserError(f"{path}, after line {number}: not a complete gzip file ({error})") from None


@dataclass(kw_only=True)
class Parquet(FileSource):
    """A Parquet file."""

    def read_file(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        import pyarrow
        from pyarrow import parquet

        try:
            batches = parquet.ParquetFile(path).iter_batches()
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _numbered(path.name, rows)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {_first_line(error)}") from error


@dataclass(kw_only=True)
class SplitSource(RowSource):
    """A `datasets` data set with splits."""

    split: str = field(default="train", metadata={"help": "the split to train on"})
    heldout_split: str | None = field(default=None, metadata={"help": "the split to hold out, in place of a share of the data"})

    def read(self, heldout: bool) -> Iterable[tuple[str, Mapping[str, Any]]] | None:
        if heldout and not self.heldout_split:
            return None
        name = self.heldout_split if heldout and self.heldout_split else self.split
        return _numbered(f"{self._given()}[{name}]", self.load(name))

    @abstractmethod
    def load(self, split: str) -> Iterable[Mapping[str, Any]]:
        """The rows of a split."""


@dataclass(kw_only=True)
class Hub(SplitSource):
    """A data set of the Hugging Face hub, or whatever else `datasets.load_dataset` takes."""

    name: str | None = field(default=None, metadata={"help": "the data set's configuration"})
    revision: str | None = field(default=None, metadata={"help": "a branch, tag or commit"})

    def load(self, split: str) -> Iterable[Mapping[str, Any]]:
        from datasets import load_dataset

        try:
            loaded: Iterable[Mapping[str, Any]] = load_dataset(self._given(), self.name, split=split, revision=self.revision)
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


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error.msg} at character {error.pos + 1}): {line[:40]!r}") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: must be a JSON object {{column: value}}, not {line.strip()[:40]!r}")
    return row


def _numbered(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((f"{name}, row {number}", dict(row)) for number, row in enumerate(rows, start=1))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
