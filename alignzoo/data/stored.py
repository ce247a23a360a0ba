"""Rows that stay where they are stored, and are read from there one by one: lines of a file, or Arrow mapped into memory."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import weakref
import zlib
from abc import ABC, abstractmethod
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

from alignzoo.data.json_text import BrokenJson, parsed
from alignzoo.data.rows import UnusableRow

LARGE = 20_000  # rows; more are not held in memory
BLOCK = 2**20  # bytes
BATCH = 1000  # rows of Arrow
RawRow = tuple[str, Mapping[str, Any] | UnusableRow]  # where it is; and its columns, or why it can't be read


class Stored(ABC):
    """Rows by their places. Each is gone through once from the first to the last, which makes `digest`, before any other is
    asked for."""

    name: str
    digest: Any

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[int, RawRow]]:
        """The place of each row, and the row."""

    @abstractmethod
    def row(self, place: int) -> RawRow: ...


class StoredLines(Stored):
    """JSON Lines, of which the places alone are held."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.name, self.file = path, path.name, file
        weakref.finalize(self, file.close)
        self.starts, self.digest = array("q", [0]), sha256()

    @classmethod
    def of(cls, path: Path) -> StoredLines | None:
        """None for files of no more than LARGE lines, of an array, and such as can't be read."""
        with ExitStack() as stack:
            try:
                packed = path.suffix == ".gz"
                file: Any = stack.enter_context(tempfile.TemporaryFile() if packed else path.open("rb"))  # noqa: SIM115
                if packed:
                    with gzip.open(path) as source:
                        shutil.copyfileobj(source, file, BLOCK)
                    file.seek(0)
                begins = file.read(BLOCK).removeprefix(BOM_UTF8).lstrip()[:1]
                file.seek(0)
                count, blocks = 0, iter(lambda: file.read(BLOCK), b"")
                while count <= LARGE and (block := next(blocks, b"")):
                    count += block.count(b"\n")
            except (OSError, EOFError, zlib.error):
                return None  # reading says what is wrong
            if count <= LARGE or begins == b"[":
                return None
            stack.pop_all()
            return cls(path, file)

    def __iter__(self) -> Iterator[tuple[int, RawRow]]:
        self.file.seek(0)
        for place, line in enumerate(self.file):
            self.starts.append(self.starts[-1] + len(line))
            self.digest.update(line)
            content = line if place else line.removeprefix(BOM_UTF8)
            if content.strip():
                yield place, (f"{self.name}, line {place + 1}", self._object(content, place))

    def row(self, place: int) -> RawRow:
        self.file.seek(self.starts[place])
        line = self.file.read(self.starts[place + 1] - self.starts[place])
        content = line if place else line.removeprefix(BOM_UTF8)
        return f"{self.name}, line {place + 1}", self._object(content, place)

    def _object(self, content: bytes, place: int) -> Mapping[str, Any] | UnusableRow:
        return json_line(content, f"{self.path}, line {place + 1}")


class ArrowRows(Stored):
    """A `datasets.Dataset`; `sparse` are columns whose nulls are keys that other rows have."""

    def __init__(self, data: Any, name: str, sparse: frozenset[str]) -> None:
        self.data, self.name, self.sparse = data, name, sparse
        self.digest = sha256()

    def __iter__(self) -> Iterator[tuple[int, RawRow]]:
        encode = json.JSONEncoder(default=str).encode
        batches = self.data.iter(BATCH)
        rows = (dict(zip(batch, row, strict=True)) for batch in batches for row in zip(*batch.values(), strict=True))
        for place, columns in enumerate(rows):
            self.digest.update(encode(columns).encode("utf-8", "surrogatepass"))
            yield place, (f"{self.name}, row {place + 1}", lean(columns, self.sparse))

    def row(self, place: int) -> RawRow:
        return f"{self.name}, row {place + 1}", lean(self.data[place], self.sparse)


def json_line(line: bytes, where: str) -> Mapping[str, Any] | UnusableRow:
    try:
        text = line.decode()
        return json_object(parsed(text.rstrip()), where)
    except UnicodeDecodeError as error:
        return UnusableRow(f"{where}: not UTF-8 text (byte {error.start + 1}); convert the file to UTF-8", "not_utf8")
    except BrokenJson as error:
        return UnusableRow(f"{where}: {error}: {text.strip()[:40]!r}", error.kind)


def json_object(value: Any, where: str) -> Mapping[str, Any] | UnusableRow:
    if isinstance(value, BrokenJson):
        return UnusableRow(f"{where}: {value}", value.kind)
    if not isinstance(value, dict):
        return UnusableRow(f"{where}: must be a JSON object {{column: value}}, not {value!r:.40}", "not_an_object")
    return value


def lean(columns: Mapping[str, Any], sparse: frozenset[str]) -> dict[str, Any]:
    """A row of Arrow, which gives each message and each tool, as nulls, the keys that others of its column have."""
    return {key: _without_nulls(value) if key in sparse else value for key, value in columns.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
