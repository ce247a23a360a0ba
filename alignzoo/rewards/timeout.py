"""A time limit for code that has none of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alignzoo.errors import UserError


class Rung(BaseException):
    """No Exception, so that code which handles those does not go on."""


@contextmanager
def within(seconds: float, key: str) -> Iterator[None]:
    """Raises TimeoutError in what runs longer; 0: no limit. Python code is interrupted at once, a call into C when it returns.

    Raises UserError, naming the setting `key`, where there is no such timer: on Windows, and outside of the main thread.
    """
    if not seconds:
        yield
        return
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise UserError(f"{key}={seconds:g}: there is no timer here (Windows, or not the main thread); set it to 0")

    def ring(*_: Any) -> None:
        raise Rung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Rung as error:
        raise TimeoutError(f"it took longer than {seconds:g} s") from error
    finally:
        signal.signal(signal.SIGALRM, before)
