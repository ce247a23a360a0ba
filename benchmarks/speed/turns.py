"""Two programs that take turns: each waits until it is told to go on, so that only one of them ever computes.

A/B/B/A, block by block: what slows the machine down for seconds slows both down. Each says over a pipe when it has finished a
block, and goes on when a line arrives on its standard input, after its last block too: what it does then is no part of a block.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

PIPE = "ALIGNZOO_SPEED_PIPE"


class Turns:
    """A program's side. Without the pipe nobody is waited for."""

    def __init__(self) -> None:
        self.pipe = int(os.environ.get(PIPE, -1))

    def say(self) -> None:
        """The block, or the set-up, is done."""
        if self.pipe >= 0:
            os.write(self.pipe, b".")

    def wait(self) -> None:
        """Until it is this program's turn again."""
        if self.pipe >= 0 and not sys.stdin.readline():
            raise SystemExit("the other program has failed")


class Player:
    """A program as it is seen from outside. Raises RuntimeError, with the end of what it printed, when it ends too early."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], printed: Path) -> None:
        self.read, write = os.pipe()
        self.printed = printed
        with printed.open("wb") as out:
            self.process = subprocess.Popen(
                command, env={**environment, PIPE: str(write)}, pass_fds=[write], stdin=subprocess.PIPE, stdout=out,
                stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        os.close(write)
        assert self.process.stdin is not None
        self.told = self.process.stdin

    def done(self) -> None:
        """Wait until it says that it has set itself up, or done its block."""
        if not os.read(self.read, 1):
            self.process.wait()
            raise self._failed()

    def block(self) -> None:
        """One block of steps."""
        self._go_on()
        self.done()

    def end(self) -> None:
        """Let it write what it has found; raises RuntimeError where it fails."""
        self._go_on()
        if self.process.wait():
            raise self._failed()

    def _go_on(self) -> None:
        with suppress(BrokenPipeError):  # it has ended, which the callers tell
            self.told.write("\n")
            self.told.flush()

    def _failed(self) -> RuntimeError:
        return RuntimeError(self.printed.read_text(errors="replace")[-3000:])

    def close(self) -> None:
        """It may be closed already."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with suppress(BrokenPipeError):
            self.told.close()
        if self.read >= 0:
            os.close(self.read)
            self.read = -1


def alternate(commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], blocks: int) -> list[str]:
    """Run two programs, `blocks` blocks each, in the order A, B, B, A, A, B, ...; returns who went when."""
    first, second = commands
    order = [name for turn in range(blocks) for name in ((first, second) if turn % 2 == 0 else (second, first))]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        players: dict[str, Player] = {}
        for name, command in commands.items():
            players[name] = Player(command, environment, Path(scratch) / name)
            stack.callback(players[name].close)
            players[name].done()
        for name in order:
            players[name].block()
        for player in players.values():
            player.end()
    return order
