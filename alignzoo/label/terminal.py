"""A rater's terminal: what is shown, and what is typed, key by key."""

from __future__ import annotations

import codecs
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.panel import Panel
from rich.text import Text as Styled

from alignzoo.data.readable import readable
from alignzoo.errors import printable
from alignzoo.label.items import Item, Text

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


class Screen:
    """Shows one item at a time: its prompt, and its completions by number, in the order `places`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def show(self, about: Item, places: Sequence[int], head: str, keys: str) -> None:
        names = [str(number) for number in range(1, len(places) + 1)] if len(places) > 1 else ["completion"]
        completions = [_panel(about.completions[place], name) for place, name in zip(places, names, strict=True)]
        self.console.clear()
        self.console.print(Styled(head, style="dim"), _panel(about.prompt, "prompt", "dim"), *completions, Styled(keys))

    def typing(self, text: str) -> None:
        """The line that is being typed, so far."""
        if self.console.is_terminal:
            self.console.file.write(f"\r\x1b[K{printable(text)}")
            self.console.file.flush()

    def say(self, text: str) -> None:
        self.console.print(Styled(printable(text)), soft_wrap=True)


def _panel(text: Text, title: str, style: str = "none") -> Panel:
    return Panel(Styled(printable(readable(text))), title=title, title_align="left", border_style=style)
