"""Who may answer on the page: a token a rater, kept beside the answers, so that an address outlives the server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from alignzoo.common.disk import sync
from alignzoo.common.folder import line, objects

HERE = ("127.0.0.1", "localhost", "::1")  # names that nobody else reaches
OWNER = ""  # whose token shows how far it is, and answers nothing


def tokens(path: Path, raters: Sequence[str]) -> dict[str, str]:
    """{token: rater} of these and of the OWNER, those new to the file added to it; nobody else on this machine reads it."""
    kept = {str(row["rater"]): str(row["token"]) for _, row in objects(path) if row and row.keys() >= {"rater", "token"}}
    fresh = {name: secrets.token_urlsafe(16) for name in (OWNER, *raters) if name not in kept}
    if fresh:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
            file.write(b"\n" + b"".join(line({"rater": name, "token": token}) for name, token in fresh.items()))
        sync(path)
    return {token: name for name, token in (kept | fresh).items() if name in (OWNER, *raters)}
