"""A run's folder: the names in it, who holds it, rows of its JSON Lines, and what of it may be removed: files that alignzoo
wrote, by name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hmac
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignzoo.common.cache import keyed
from alignzoo.common.disk import sync, write_whole
from alignzoo.errors import UserError, tell

CONFIG = "config.yaml"
ORIGIN = "origin"  # of whom config.yaml is: an HMAC of it
ENVIRONMENT = "environment.json"
FINGERPRINT = "fingerprint.json"
METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
RELIABILITY = "reliability.json"
REFERENCE = {"reward": "reference.json", "gold": "reference_gold.json"}  # by judge
FRONTIER = "frontier.json"
SUMMARY = "summary.json"  # only of a finished run
CHECKPOINTS = "checkpoints"
MODEL = "model"
ADAPTER = "adapter"  # beside the model that it is merged into
ENCODER = "encoder.json"  # beside a model: how it reads text
TENSORBOARD = "tensorboard"
WEIGHTS = "weights-"  # and a step: what a full disk had room for, kept whatever comes after
LOCK = ".lock"
MANIFEST = "manifest.json"  # in a folder that is whole: its files, with size and hash
PARTIAL = ".partial-"  # before the name of a folder that is being written
FILES = (CONFIG, ORIGIN, ENVIRONMENT, FINGERPRINT, METRICS, COMPLETIONS, RELIABILITY, *REFERENCE.values(), FRONTIER, SUMMARY)
FIRST = (CONFIG, ORIGIN)  # before which nothing is written
NOBODYS = (LOCK, "lost+found")  # what lies in a folder that is free to take: the second, in every one that is a whole disk
Row = dict[str, Any]  # a JSON object
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # where a file system knows no locks

_held: set[Path] = set()  # of this process, which its own locks don't keep out


def result_step(rows: Sequence[Row], summary: Row) -> int:
    """Which evaluation's weights are a run's result: those of the last one among `rows`, or of the one early stopping kept."""
    kept = (summary.get("early_stop") or {}).get("weights_of_step")
    return max((row["step"] for row in rows), default=0) if kept is None else int(kept)


# --- whose it is ---


def strangers(folder: Path) -> list[str]:
    """What is in a folder that holds no run: none where one may begin, after an attempt that was killed before it had a config
    too."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())
    return [
        name for name in names if name not in NOBODYS and _being_written(name) not in FIRST and not _is_origin(folder / name)
    ]


def _is_origin(path: Path) -> bool:
    """Whether it is what `begun` writes before config.yaml, and no file of that name of somebody's own."""
    return path.name == ORIGIN and path.is_file() and bool(re.fullmatch(rb"[0-9a-f]{64}", path.read_bytes()))


def is_own(folder: Path, config: bytes) -> bool:
    """Whether a run of this user was begun in the folder, or one it is a copy of, with this config.yaml."""
    path = folder / ORIGIN
    return _is_origin(path) and hmac.compare_digest(path.read_bytes(), keyed(config).encode())


@contextlib.contextmanager
def held(folder: Path, option: str) -> Iterator[None]:
    """The folder is there, and nobody else's until the end: its lock goes with the process, however that ends. Folders made
    for it are gone again where nothing was put into them.

    Raises UserError where another process has it, naming that, and where it can't be made; `option` is what the user gave.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    path, lock = folder.resolve() / LOCK, -1
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(path, option)
        except OSError as error:
            reason = "a file is there" if folder.is_file() else error.strerror
            raise UserError(f"{option}: can't write there ({reason}): choose another folder with run_dir=FOLDER") from None
        _held.add(path)
        yield
    finally:
        if lock >= 0:
            _held.discard(path)
            path.unlink(missing_ok=True)
            os.close(lock)
        for created in absent:
            with contextlib.suppress(OSError):
                created.rmdir()


def _locked(path: Path, option: str) -> int:
    """The lock file, open and locked, with the number of this process in it."""
    refused = "{} is in use by {}: wait for it, stop it, or choose another folder with run_dir=FOLDER"
    if path in _held:  # opening the file and closing it would give the lock up
        raise UserError(refused.format(option, f"process {os.getpid()}, this one"))
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which what this process forks would go on holding
        except (BlockingIOError, PermissionError):
            holder = os.read(lock, 200).decode(errors="replace") or "another process"
            os.close(lock)
            raise UserError(refused.format(option, holder)) from None
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                os.close(lock)
                raise
            tell(f"{path.parent} can't be locked ({error.strerror}): start no second process there")
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            break
        os.close(lock)  # who held it has removed it meanwhile: lock the next one
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return lock


@contextlib.contextmanager
def begun(folder: Path, config: str) -> Iterator[None]:
    """Before anything else is there, config.yaml tells the next attempt whose folder this is; what one without a checkpoint
    left is removed. Where what is done inside fails, a folder that was empty is empty again."""
    fresh = not (folder / CONFIG).exists()
    _clear(folder)
    if origin := keyed(config.encode()):
        write_whole(folder / ORIGIN, origin)
    write_whole(folder / CONFIG, config)
    try:
        yield
    except BaseException:
        if fresh:
            _forget(folder)
        raise


def rewrite(folder: Path, config: str) -> None:
    """config.yaml of a run that goes on, in other words. It stays whose it was."""
    if is_own(folder, (folder / CONFIG).read_bytes()) and (origin := keyed(config.encode())):
        write_whole(folder / ORIGIN, origin)
    write_whole(folder / CONFIG, config)


# --- what may be removed ---


def _forget(folder: Path) -> None:
    """Removes what has only begun; config.yaml last, without which nobody knows whose the rest is."""
    _clear(folder)
    for name in (CHECKPOINTS, TENSORBOARD):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()
    for name in FIRST:
        (folder / name).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    sweep(folder)
    for name in FILES:
        if name not in FIRST:
            (folder / name).unlink(missing_ok=True)
    for path in (folder / TENSORBOARD).glob("events.out.tfevents.*"):
        path.unlink()
    for name in (MODEL, ADAPTER):
        remove_sealed(folder / name)


def sweep(folder: Path) -> None:
    """Removes what was being written when a process ended."""
    for pattern in (f"{PARTIAL}{MODEL}", f"{PARTIAL}{ADAPTER}", f"{PARTIAL}{WEIGHTS}*", f"{CHECKPOINTS}/{PARTIAL}*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*"):
        if _being_written(path.name) in FILES:
            path.unlink()


def _being_written(name: str) -> str:
    """Of which file this is the name while `write_whole` writes it; "" for any other name."""
    stem, _, process = name.rpartition(".")
    return stem[1:] if stem.startswith(".") and process.isdigit() else ""


def remove_sealed(folder: Path) -> None:
    """The files that the manifest names, the manifest last; and folders that are empty then. What somebody else has put there,
    or a link leads to, or has another size by now, stays."""
    try:
        entries = {str(name): int(size) for name, (size, _) in json.loads((folder / MANIFEST).read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return
    for path, size in ((folder / name, size) for name, size in entries.items()):
        within = path.parent.resolve().is_relative_to(folder.resolve())
        if within and path.is_file() and not path.is_symlink() and path.stat().st_size == size:
            path.unlink()
    (folder / MANIFEST).unlink()
    for path in [*sorted(filter(Path.is_dir, folder.rglob("*")), reverse=True), folder]:
        with contextlib.suppress(OSError):
            path.rmdir()


def set_aside(folder: Path) -> Path:
    """Gives the folder a name under which nobody looks for it."""
    names = (folder.with_name(f"{folder.name}.aside{number or ''}") for number in itertools.count())
    return folder.rename(next(path for path in names if not path.exists()))


# --- what is in its files ---


def read(path: Path) -> Any:
    """The JSON of a file that is written in one piece. Raises UserError where it isn't whole."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): put it back from a copy, or remove it") from None


def read_if_whole(path: Path) -> Row | None:
    """The JSON object in a file; None where there is no file, or none that can be read."""
    try:
        return _object(path.read_bytes())
    except OSError:
        return None


class Lines:
    """One JSON object a line, each with its `step`. Only the main process writes."""

    def __init__(self, path: Path, active: bool) -> None:
        self.path, self.active = path, active

    def write(self, row: Row) -> None:
        if self.active:
            with self.path.open("ab") as file:
                file.write(line(row))

    def sync(self) -> int:
        """On disk before a checkpoint of the same step is; how many bytes that are."""
        if not (self.active and self.path.exists()):
            return 0
        sync(self.path)
        return self.path.stat().st_size

    def cut(self, step: int, size: int = 0) -> None:
        """Drop rows later than `step`, and a last line that a crash left unfinished. Tells where there is less than the `size`
        bytes that were on disk at that step."""
        if not self.active:
            return
        if (left := self.path.stat().st_size if self.path.exists() else 0) < size:
            lost = f"{left} of {size} bytes that were there at step {step}: lines are lost, the run goes on"
            tell(f"{self.path} has only {lost}")
        if left:
            lines = self.path.read_bytes().split(b"\n")
            write_whole(self.path, b"".join(text + b"\n" for text in lines if _step(text) <= step))


def _step(text: bytes) -> float:
    row = _object(text)
    step = row.get("step") if row else None
    return float("inf") if step is None else float(step)


def line(row: Row) -> bytes:
    r"""A row of JSON Lines. Text stays readable, but half a surrogate pair, which UTF-8 can't hold, is its JSON escape."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def rows(path: Path) -> list[Row]:
    """The rows of a JSON Lines file; none where there is no file. A last line that a crash tore is left out, which is said.
    Raises UserError for any other line that is no JSON object."""
    numbered = objects(path)
    if numbered and numbered[-1][1] is None:
        _say_torn(path)
        numbered.pop()
    for number, row in numbered:
        if row is None:
            raise UserError(f"{path}, line {number}: damaged, no JSON object: put it back from a copy, or remove the line")
    return [row for _, row in numbered if row is not None]


def objects(path: Path) -> list[tuple[int, Row | None]]:
    """(number, object) of each line that isn't blank; None for what is no JSON object. Only a newline ends a line: text may
    hold what `splitlines` takes for an end, such as U+2028."""
    return objects_in(path.read_bytes() if path.exists() else b"")


def objects_in(data: bytes) -> list[tuple[int, Row | None]]:
    """The same of bytes that begin where a line does."""
    return [(number, _object(text)) for number, text in enumerate(data.split(b"\n"), 1) if text.strip()]


def _object(text: bytes) -> Row | None:
    try:
        content = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


@functools.cache
def _say_torn(path: Path) -> None:
    tell(f"{path}: its last line was torn when the run was stopped, and is left out")
