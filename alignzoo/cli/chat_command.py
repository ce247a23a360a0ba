"""The command `alignzoo chat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    about = "Talk to a run's policy; its reference answers beside it. /new begins another conversation, Ctrl-D ends."
    parser = argparse.ArgumentParser("alignzoo chat", description=about)
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="a finished run's folder")
    add("--system", help="a system message; none: the template's own, if it has one")
    add("--temperature", type=float, help="none: the run's own; 0 is greedy")
    add("--seed", type=int, default=0)
    add("--trust", action="store_true", help="also code that a run from elsewhere names")
    args = parser.parse_args(list(argv))
    from alignzoo.runs.chat import chat

    chat(args.run, _typed(), args.system, args.temperature, args.seed, args.trust)
    return 0


def _typed() -> Iterator[str]:
    """Lines of standard input, with a word before each where somebody types; bytes that are no text become U+FFFD."""
    while True:
        try:
            line = input("you: " if sys.stdin.isatty() else "")
        except EOFError:
            return
        yield line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
