"""Files in one piece, files that are somebody else's, and a full disk, whoever reports it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from alignzoo.errors import UserError, first_line, nearest, tell

CLOSED = (  # a place that isn't as the user thinks
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP,
)  # fmt: skip
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch and safetensors wrap the system's error in their own, and torch keeps nothing of it
TOLD = (*(os.strerror(code) for code in CODES), "file write failed")


class DiskFull(UserError):
    """Nothing more could be written."""


def write_whole(path: Path, content: str | bytes) -> None:
    """The file is there, on disk, with all of the content, or as it was; of several processes that write it, one is the
    last."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """A file's content, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def existing(path: str, key: str) -> Path:
    """The path of a setting. Raises UserError, naming the nearest file, if nothing is there."""
    expanded = Path(path).expanduser()
    if expanded.exists():
        return expanded
    siblings = [p.name for p in expanded.parent.iterdir()] if expanded.parent.is_dir() else []
    raise UserError(f"{key}={path} does not exist.{nearest(expanded.name, siblings)}")


def keep_existing(option: str, path: Path, overwrite: bool, consent: str = "--overwrite") -> None:
    """Raises UserError, naming the file that `option` would write over, unless that is wanted; `consent` is how to say so."""
    if path.exists() and not overwrite:
        remedy = f", or write over it with {consent}" if consent else ""
        raise UserError(f"{option}: {path} exists: choose another name{remedy}")
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder: give a file's name in it")


def check_file(option: str, path: Path, overwrite: bool) -> None:
    """Raises UserError, before any work, where a command could not write this file or would write over one."""
    keep_existing(option, path, overwrite)
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option}: there is no folder {path.parent}: make it, or choose another")


def rename_damaged(path: Path, why: BaseException) -> None:
    """A file of a cache that can't be read is renamed, so that it is made again, and that is told in one line."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except FileNotFoundError:  # another process was first
        return
    tell(f"{path} is damaged ({first_line(why)}): it is {aside.name} now, and made again")


def is_full(error: BaseException) -> bool:
    """Whether the error, or one it came from, says that nothing more could be written."""
    return any(
        isinstance(e, DiskFull) or getattr(e, "errno", None) in CODES or any(text in str(e) for text in TOLD)
        for e in chain(error)
    )


def what_is_full(error: BaseException) -> str:
    """That the disk is full, and what had no room, as far as the error says it."""
    for e in chain(error):
        if isinstance(e, DiskFull):
            return str(e)
        if name := getattr(e, "filename", None):
            return f"the disk is full: {name} could not be written"
    return f"the disk is full: {first_line(error)}"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
