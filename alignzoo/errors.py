"""A user's mistake, and what its message is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """A user's mistake: what is wrong, the value, the remedy. The command line prints it without a traceback and exits with
    2.
    """


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise the one-line error of a setting out of range unless `holds`."""
    if not holds:
        raise UserError(f"{key}={value} is out of range: must be {expected}")


def nearest(name: str, options: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the likeliest of `options`, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(options), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
