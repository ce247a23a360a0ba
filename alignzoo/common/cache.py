"""What runs of one user share: a folder, and a key by which what they wrote is told from what came from elsewhere."""

from __future__ import annotations

import functools
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from filelock import FileLock

from alignzoo.common.disk import rename_damaged
from alignzoo.errors import tell

KEY, LENGTH = "key", 32  # bytes


def cache_folder() -> Path:
    """What runs share, such as a task's reference model: $ALIGNZOO_CACHE, else ~/.cache/alignzoo."""
    return Path(os.environ.get("ALIGNZOO_CACHE") or Path.home() / ".cache" / "alignzoo")


def keyed(content: bytes) -> str:
    """HMAC-SHA256 under the user's key, which nobody who lacks the key can compute or try values by; "" where no key can be
    kept, which is told."""
    try:
        return hmac.digest(_key(cache_folder() / KEY), content, "sha256").hex()
    except OSError as error:
        _tell_no_key(f"{error.filename or cache_folder()}: {error.strerror}")
        return ""


def _key(path: Path) -> bytes:
    """Made where there is none. One that was cut short could be guessed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_size != LENGTH:
        with FileLock(f"{path}.lock"):  # of several processes the first makes it
            if path.exists() and path.stat().st_size != LENGTH:
                rename_damaged(path, ValueError(f"it has not {LENGTH} bytes"))
            if not path.exists():
                handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{KEY}.")  # mode 0600
                with open(handle, "wb") as file:
                    file.write(secrets.token_bytes(LENGTH))
                    file.flush()
                    os.fsync(handle)
                os.replace(partial, path)
    return path.read_bytes()


@functools.cache
def _tell_no_key(why: str) -> None:
    tell(f"no key can be kept ({why}), so runs can't be known as yours: see trust=true")
