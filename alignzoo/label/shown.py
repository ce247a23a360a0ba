"""Texts as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text as Styled

from alignzoo.data.readable import readable
from alignzoo.errors import printable
from alignzoo.label.items import Item, Text


class Screen:
    """Shows one item at a time: its prompt, and its completions by number, in the order `places`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def show(self, about: Item, places: Sequence[int], head: str, keys: str) -> None:
        self.console.clear()
        parts: list[Any] = [Styled(head, style="dim"), _panel(about.prompt, "prompt", "dim")]
        several = len(places) > 1
        parts += [_panel(about.completions[place], str(n) if several else "completion") for n, place in enumerate(places, 1)]
        self.console.print(Group(*parts, Styled(keys)))

    def typing(self, text: str) -> None:
        """The line that is being typed, so far."""
        if self.console.is_terminal:
            self.console.file.write(f"\r\x1b[K{printable(text)}")
            self.console.file.flush()

    def say(self, text: str) -> None:
        self.console.print(Styled(printable(text)), soft_wrap=True)


def _panel(text: Text, title: str, style: str = "") -> Panel:
    return Panel(Styled(printable(readable(text))), title=title, title_align="left", border_style=style or "none")
