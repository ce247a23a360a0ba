"""Signals that ask a process to end in its own time: Ctrl-C, SIGTERM, and SIGHUP, which a closed terminal sends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def caught(handler: Callable[[int], None]) -> Iterator[None]:
    """Inside, the number of such a signal goes to `handler`, where this is the main thread (elsewhere Python allows no
    handlers). SIGHUP stays ignored where `nohup` has it so."""
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # nobody can read on, and writing to a terminal that is gone would be an error
            with open(os.devnull, "w") as nowhere:
                for terminal in terminals:
                    os.dup2(nowhere.fileno(), terminal)
        handler(number)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    try:
        before = {number: signal.signal(number, handle) for number in wanted}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
