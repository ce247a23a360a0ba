"""Where pi_ref comes from: the config group `reference`."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import torch
from filelock import FileLock
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.common import fingerprint
from alignzoo.common.disk import rename_damaged
from alignzoo.contracts import Context, Reference
from alignzoo.errors import UserError
from alignzoo.models import modules
from alignzoo.models.computation import computation, weights
from alignzoo.models.networks import AdapterOffNetwork, PolicyNetwork, Shared

ALL = frozenset({"logprobs", "tokens", "generate"})


@dataclass(kw_only=True)
class Copy(Reference):
    """A frozen copy of the policy as it was at the start."""

    offers: ClassVar[frozenset[str]] = ALL

    def build(self, context: Context) -> PolicyNetwork:
        return PolicyNetwork(modules.frozen(_policy(context)), context.shared, frozen=True)


@dataclass(kw_only=True)
class AdapterOff(Reference):
    """The policy with its PEFT adapter switched off: no second model in memory. Needs peft=lora."""

    offers: ClassVar[frozenset[str]] = ALL
    needs_adapter: ClassVar[bool] = True
    moves: ClassVar[bool] = False

    def build(self, context: Context) -> PolicyNetwork:
        module = _policy(context)
        return AdapterOffNetwork(module, context.shared, frozen=True)


@dataclass(kw_only=True)
class Cached(Reference):
    """Log-probs kept on disk by network and token ids, computed once and shared by runs: sweeps pay for the reference once."""

    offers: ClassVar[frozenset[str]] = frozenset({"logprobs"})
    moves: ClassVar[bool] = False
    path: str | None = field(default=None, metadata={"help": "the cache file; none: reference.sqlite in the cache folder"})

    def build(self, context: Context) -> PolicyNetwork:
        path = Path(self.path).expanduser() if self.path else context.cache / "reference.sqlite"
        return CachedNetwork(modules.frozen(_policy(context)), context.shared, _Store(path))


@dataclass(kw_only=True)
class NoReference(Reference):
    """No reference model: for algorithms and settings that need none."""

    offers: ClassVar[frozenset[str]] = frozenset()

    def build(self, context: Context) -> None:
        return None


class CachedNetwork(PolicyNetwork):
    """A frozen policy whose log-probs are looked up first. Only what training asks for is kept: samples drawn in evaluation
    never return.
    """

    def __init__(self, module: nn.Module, shared: Shared, store: _Store) -> None:
        super().__init__(module, shared, frozen=True)
        self.store = store
        self.identity = fingerprint.of_json([weights(module), computation(module), shared.forward.value])

    def view(self, frozen: bool) -> Self:
        return self

    def logprobs(self, c: Completions) -> Tensor:
        if self.shared.noise.purpose.startswith("eval"):
            return super().logprobs(c)
        keys = self._keys(c)
        rows = self.store.get(keys, c.scored.sum(1).tolist())
        missing = [i for i, row in enumerate(rows) if row is None]
        if missing:
            part = c.take(missing)
            computed = super().logprobs(part)
            for i, logprobs, mask in zip(missing, computed, part.scored, strict=True):
                rows[i] = logprobs[mask].double().cpu()
            self.store.put((keys[i], row) for i in missing if (row := rows[i]) is not None)
        dtype = next(self.module.parameters()).dtype
        values = torch.cat([row for row in rows if row is not None]) if len(c) else torch.empty(0)
        dtype = dtype if dtype == torch.float64 else torch.float32
        out = torch.zeros(c.ids.shape, dtype=dtype, device=c.ids.device)
        return out.masked_scatter(c.scored, values.to(out))

    def _keys(self, c: Completions) -> list[bytes]:
        """One key a record: the network, the distribution and the token ids."""
        support = b"" if self.shared.support is None else self.shared.support.cpu().numpy().tobytes()
        salt = f"{self.identity}:{self.shared.temperature}".encode() + support
        prompts = [ids[mask].tolist() for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
        columns = zip(c.prompt_of.tolist(), c.ids, c.attended, c.scored, strict=True)
        return [
            hashlib.sha256(salt + repr((prompts[p], ids[a].tolist(), s[a].tolist())).encode()).digest()
            for p, ids, a, s in columns
        ]


class _Store:
    """Vectors of float64 by key, in one SQLite file that several runs may use at once. What is damaged is as if not there: a
    file is set aside, a vector written again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with self._whole():
            self._connect()

    def get(self, keys: list[bytes], lengths: list[int]) -> list[Tensor | None]:
        query, blobs = "SELECT value FROM logprobs WHERE key = ?", [None] * len(keys)
        with self._whole():
            blobs = [(self.connection.execute(query, (key,)).fetchone() or [None])[0] for key in keys]
        return [_vector(blob, length) for blob, length in zip(blobs, lengths, strict=True)]

    def put(self, rows: Iterable[tuple[bytes, Tensor]]) -> None:
        values = [(key, _blob(vector)) for key, vector in rows]
        with self._whole(), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO logprobs VALUES (?, ?)", values)

    def _connect(self) -> None:
        self.connection = sqlite3.connect(self.path, timeout=60)
        self.connection.execute("CREATE TABLE IF NOT EXISTS logprobs (key BLOB PRIMARY KEY, value BLOB)")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What finds the file damaged inside ends there, with a new file in its place."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise UserError(
                    f"reference=cached: {self.path} can't be written ({error}): give a file, as reference.path=FILE"
                ) from None
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            with FileLock(f"{self.path}.lock"):  # of several processes the first sets it aside
                self.connection.close()
                if _damaged(self.path):
                    rename_damaged(self.path, error)
                self._connect()


def _damaged(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            return connection.execute("PRAGMA quick_check").fetchone() != ("ok",)
    except sqlite3.DatabaseError:
        return True


def _blob(vector: Tensor) -> bytes:
    content = vector.numpy().tobytes()
    return zlib.crc32(content).to_bytes(4) + content


def _vector(blob: bytes | None, length: int) -> Tensor | None:
    """None where there is none of so many values with its checksum."""
    if blob is None or len(blob) != 4 + 8 * length or zlib.crc32(blob[4:]).to_bytes(4) != blob[:4]:
        return None
    return torch.frombuffer(bytearray(blob[4:]), dtype=torch.float64) if length else torch.empty(0, dtype=torch.float64)


def _policy(context: Context) -> nn.Module:
    policy: nn.Module | None = context.policy
    assert policy is not None, "references are built after the policy"
    return policy
