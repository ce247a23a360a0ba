"""What a person types, key by key."""

from __future__ import annotations

import codecs
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

END = ""  # there is no more to read


class Keys(Protocol):
    def read(self) -> str:
        """The next key, or END."""


class Typed:
    """The keys of standard input: of a terminal one by one as they are pressed, else of a file or pipe."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.terminal = os.isatty(self.descriptor)

    def read(self) -> str:
        while True:
            byte = os.read(self.descriptor, 1)
            if not byte or byte == b"\x04":
                return END
            if byte == b"\x1b" and self.terminal:
                self._drop_sequence()
            elif key := self.decoder.decode(byte):
                return key

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the terminal hands over keys at once and shows none of them; Ctrl-C interrupts as ever."""
        if not self.terminal:
            yield
            return
        import termios
        import tty

        before = termios.tcgetattr(self.descriptor)
        tty.setcbreak(self.descriptor)
        try:
            yield
        finally:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, before)

    def _drop_sequence(self) -> None:
        """An arrow or function key is an escape and more: none of it is an answer."""
        while select.select([self.descriptor], [], [], 0.02)[0]:
            if os.read(self.descriptor, 1).isalpha():
                return
