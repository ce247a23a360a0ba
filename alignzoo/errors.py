"""A user's mistake, and what its message is made of."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable
from unicodedata import category

PASSWORD = re.compile(r"(https?://(?:[^\s/?#:@]*:)?)([^\s/?#]+)@", re.IGNORECASE)
HIDDEN = "***"
LONGEST = 300  # letters of what another library says


class UserError(Exception):
    """A user's mistake: what is wrong, the value, the remedy. The command line prints it without a traceback and exits with
    2. As text it is `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Text of others for a terminal: what would steer that is shown, not obeyed, and passwords in addresses are hidden."""
    return "".join(
        c if c.isprintable() or c in "\n\t" or category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in masked(text)
    )


def tell(text: str) -> None:
    """One line to who watches, beside what a command prints."""
    print(printable(f"alignzoo: {text}"), file=sys.stderr, flush=True)


def masked(text: str) -> str:
    """With *** for each password, or token, of an HTTP address."""
    return PASSWORD.sub(lambda address: address[0] if "${" in address[2] else f"{address[1]}{HIDDEN}@", text)


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Raise the one-line error of a setting out of range unless `holds`."""
    if not holds:
        raise UserError(f"{key}={value} is out of range: must be {expected}")


def first_line(error: BaseException) -> str:
    """What an error says first, and where that announces a list, the list's first line."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])[:LONGEST]


def nearest(name: str, options: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the likeliest of `options`, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(options), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
