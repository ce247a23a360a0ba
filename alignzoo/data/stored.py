"""Rows that stay where they are stored, and are read from there: lines of a file, or Arrow mapped into memory."""

from __future__ import annotations

import gzip
import json
import tempfile
import weakref
import zlib
from abc import ABC, abstractmethod
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from alignzoo.common.progress import counted
from alignzoo.data.json_text import BrokenJson, Json, elements, parsed
from alignzoo.data.messages import Columns, UnusableRow
from alignzoo.errors import UserError, first_line

if TYPE_CHECKING:
    import datasets

LARGE = 20_000  # rows; more are not held in memory
BLOCK = 2**20  # bytes
BATCH = 1000  # rows of Arrow
RawRow = tuple[str, Columns | UnusableRow]  # where it is; and its columns, or why it can't be read


class Stored(ABC):
    """Rows by their places, in which they come. Of `large` ones one may be asked for by its place, once all have been gone
    through, which makes `digest`."""

    name: str
    digest = sha256()

    @property
    @abstractmethod
    def large(self) -> bool:
        """Whether there are more than LARGE, that are not one text."""

    @abstractmethod
    def __iter__(self) -> Iterator[RawRow]: ...

    @abstractmethod
    def row(self, place: int) -> RawRow: ...


class JsonRows(Stored):
    """The objects of a file, one a line or all in one array, plain or gzip (.gz). Of lines the places alone are held."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        try:
            self.file = _unpacked(path) if path.suffix == ".gz" else path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        weakref.finalize(self, self.file.close)

    @cached_property
    def large(self) -> bool:
        self.file.seek(0)
        begins = self.file.read(BLOCK).removeprefix(BOM_UTF8).lstrip()[:1]
        self.file.seek(0)
        return begins != b"[" and sum(1 for _ in islice(self.file, LARGE + 1)) > LARGE

    def __iter__(self) -> Iterator[RawRow]:
        self.starts, self.numbers, self.digest = array("q"), array("q"), sha256()
        start = 0
        self.file.seek(0)
        for number, line in enumerate(self.file, start=1):
            content = line.removeprefix(BOM_UTF8) if number == 1 else line
            if not self.starts and content.lstrip().startswith(b"["):
                yield from self._elements(content + self.file.read())
                return
            self.digest.update(line)
            if content.strip():
                self.starts.append(start)
                self.numbers.append(number)
                yield self._line(number, content)
            start += len(line)

    def row(self, place: int) -> RawRow:
        self.file.seek(self.starts[place])
        number = self.numbers[place]
        line = self.file.readline()
        return self._line(number, line.removeprefix(BOM_UTF8) if number == 1 else line)

    def _line(self, number: int, line: bytes) -> RawRow:
        where = f"{self.name}, line {number}"
        try:
            text = line.decode()
            return where, _object(parsed(text.rstrip()), where)
        except UnicodeDecodeError as error:
            return where, UnusableRow(f"{where}: {_not_utf8(error)}", "not_utf8")
        except BrokenJson as error:
            return where, UnusableRow(f"{where}: {error}: {text.strip()[:40]!r}", error.kind)

    def _elements(self, content: bytes) -> Iterator[RawRow]:
        number = 0
        try:
            for number, value in enumerate(elements(content.decode()), start=1):
                yield (where := f"{self.name}, row {number}"), _object(value, where)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: {_not_utf8(error)}") from None
        except BrokenJson as error:
            remedy = "write one object a line, and data.unusable=drop can drop the line"
            raise UserError(f"{self.path}, row {number + 1}: {error}\nan array can't be read past it: {remedy}") from None


class ArrowRows(Stored):
    """Rows of a data set; `sparse` are columns whose nulls are keys that other rows have."""

    def __init__(self, data: datasets.Dataset, name: str, sparse: frozenset[str]) -> None:
        self.data, self.name, self.sparse = data, name, sparse

    @property
    def large(self) -> bool:
        return hasattr(self.data, "__len__") and len(self.data) > LARGE

    def __iter__(self) -> Iterator[RawRow]:
        import pyarrow

        self.digest = sha256()
        encode = json.JSONEncoder(default=str).encode
        try:
            for place, columns in enumerate(self._rows()):
                self.digest.update(encode(columns).encode("utf-8", "surrogatepass"))
                yield numbered(self.name, place, columns, self.sparse)
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise UserError(f"{self.name} can't be read: {first_line(error)}") from error

    def _rows(self) -> Iterable[Columns]:
        for batch in self.data.iter(BATCH):
            yield from (dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True))

    def row(self, place: int) -> RawRow:
        return numbered(self.name, place, self.data[place], self.sparse)


class ParquetRows(ArrowRows):
    """Rows of a Parquet file, unpacked and mapped into memory."""

    def __init__(self, path: Path, sparse: frozenset[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        self.name, self.sparse = path.name, sparse
        try:
            file = parquet.ParquetFile(path)
            with tempfile.NamedTemporaryFile(suffix=".arrow") as unpacked:  # once mapped, it stays while it is looked at
                with pyarrow.ipc.new_stream(unpacked, file.schema_arrow) as stream:
                    for batch in counted(file.iter_batches(), f"{path.name}: unpacking", each=1):
                        stream.write_batch(batch)
                unpacked.flush()
                self.table = pyarrow.ipc.open_stream(pyarrow.memory_map(unpacked.name)).read_all()
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {first_line(error)}") from error

    @property
    def large(self) -> bool:
        return len(self.table) > LARGE

    def _rows(self) -> Iterable[Columns]:
        for batch in self.table.to_batches(max_chunksize=BATCH):
            yield from batch.to_pylist()

    def row(self, place: int) -> RawRow:
        return numbered(self.name, place, self.table.slice(place, 1).to_pylist()[0], self.sparse)


def numbered(name: str, place: int, columns: Columns, sparse: frozenset[str]) -> RawRow:
    """A row of Arrow, which gives each message and each tool, as nulls, the keys that others of its column have."""
    return f"{name}, row {place + 1}", {
        key: _without_nulls(value) if key in sparse else value for key, value in columns.items()
    }


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _unpacked(path: Path) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with gzip.open(path) as packed:
            file.writelines(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        file.seek(0)
        with file:
            raise UserError(f"{path}, after line {sum(1 for _ in file)}: not a complete gzip file ({error})") from None
    return file


def _object(value: Json, where: str) -> Columns | UnusableRow:
    if isinstance(value, BrokenJson):
        return UnusableRow(f"{where}: {value}", value.kind)
    if not isinstance(value, dict):
        return UnusableRow(f"{where}: must be a JSON object {{column: value}}, not {value!r:.40}", "not_an_object")
    return value


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 text (byte {error.start + 1}); convert the file to UTF-8"
