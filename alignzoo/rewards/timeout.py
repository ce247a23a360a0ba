"""A time limit for code that has none of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from alignzoo.errors import UserError

T = TypeVar("T")
AGAIN = 0.05  # seconds after which what handled the first interruption is interrupted once more
MOST = 200  # interruptions


class Rung(BaseException):
    """No Exception, so that code which handles those does not go on."""


def within(seconds: float, key: str, call: Callable[[], T]) -> T:
    """What `call` returns. Raises TimeoutError where that takes longer; 0: no limit. Python code is interrupted at once, and
    again where it handles that, as a bare `except:` does; a call into C when it returns. Code that handles every interruption
    ends the process, with exit code 2.

    Raises UserError, naming the setting `key`, where there is no such timer: on Windows, and outside of the main thread.
    """
    if not seconds:
        return call()
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise UserError(f"{key}={seconds:g}: there is no timer here (Windows, or not the main thread); set it to 0")
    rings, armed = 0, True

    def ring(*_: Any) -> None:
        nonlocal rings
        if not armed:  # what rang while the call was ending
            return
        rings += 1
        if rings > MOST:
            print(
                f"alignzoo: {key}={seconds:g} is over, and what runs handles every interruption: ended",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)
        raise Rung

    before = signal.signal(signal.SIGALRM, ring)
    cause: BaseException | None = None
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        try:
            result = call()
        finally:
            armed = False
    except (Rung, Exception) as error:
        if not rings:
            raise
        cause = error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if rings:  # also where it handled that, and returned
        raise TimeoutError(f"it took longer than {seconds:g} s") from cause
    return result
