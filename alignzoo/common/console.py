"""Text and tables for people, in one style: nothing of it is markup, and where no terminal is, lines are long."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table

WIDE = 200  # letters of a line in a file or pipe


def table(
    *columns: str, right: Collection[str] = (), whole: Collection[str] = (), wide: str | None = None, show_header: bool = True
) -> Table:
    """An empty table; the columns named in `right` are aligned there, those in `whole` are never folded, and `wide` takes
    what room is left."""
    empty = Table(box=None, pad_edge=False, header_style="bold", show_header=show_header)
    for name in columns:
        justify: JustifyMethod = "right" if name in right else "left"
        empty.add_column(name, justify=justify, no_wrap=name in whole, overflow="fold", ratio=1 if name == wide else None)
    return empty


def show(*texts: RenderableType, soft_wrap: bool = False) -> None:
    """On standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(*texts, markup=False, highlight=False, soft_wrap=soft_wrap)
