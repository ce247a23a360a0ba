"""A user's mistake, and what its message is made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any
from unicodedata import category

PASSWORD = re.compile(r"(https?://(?:[^\s/?#:@]*:)?)([^\s/?#]+)@", re.IGNORECASE)
HIDDEN = "***"


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


def masked(text: str) -> str:
    """With *** for each password, or token, of an HTTP address."""
    return PASSWORD.sub(lambda found: found[0] if "${" in found[2] else f"{found[1]}{HIDDEN}@", text)


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise the one-line error of a setting out of range unless `holds`."""
    if not holds:
        raise UserError(f"{key}={value} is out of range: must be {expected}")


def nearest(name: str, options: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the likeliest of `options`, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(options), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
