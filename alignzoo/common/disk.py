"""Files in one piece, and a full disk, whoever reports it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch and safetensors wrap the system's error in their own, and torch keeps nothing of it
TOLD = (*(os.strerror(code) for code in CODES), "file write failed")


def write_whole(path: Path, text: str) -> None:
    """The file is there with all of the text, or as it was; of several processes that write it, one is the last."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether the error, or one it came from, says that nothing more could be written."""
    return any(getattr(e, "errno", None) in CODES or any(text in str(e) for text in TOLD) for e in chain(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
