"""Forks of this process, and which part of what `make torture` tries every run of the tests tries."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.limits import HANG


def forked(told: Callable[[], str]) -> str:
    """What the function returns in a fork, or that it died or hung."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writer, "wb") as file:
                file.write(told().encode("utf-8", "backslashreplace") + b".")
        finally:
            os._exit(0)
    os.close(writer)
    said = b""
    while select.select([reader], [], [], HANG)[0]:
        part = os.read(reader, 65536)
        if not part:
            break
        said += part
    else:
        os.kill(child, signal.SIGKILL)
        said = b"it hung"
    os.close(reader)
    os.waitpid(child, 0)
    return said[:-1].decode() if said.endswith(b".") else f"the child died: {said.decode()}"


def spread(every: Sequence[Any], count: int) -> list[Any]:
    """All of them, as parameters; all but `count`, evenly spread, are for `make torture`."""
    kept = {len(every) * number // count for number in range(count)}
    return [pytest.param(one, marks=() if place in kept else pytest.mark.torture) for place, one in enumerate(every)]
