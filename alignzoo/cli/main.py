"""The command line: alignzoo train | make | bench | report | compare | sample | chat | label | list | card | plugin | doctor.

Exit codes: 0 done, 2 a user's mistake (one to five lines, no traceback), 130 interrupted after saving.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from alignzoo import __version__
from alignzoo.common import disk
from alignzoo.config import catalogue
from alignzoo.errors import UserError, nearest, tell

INTERRUPTED = 130
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# what takes the rest of the line and returns the exit code; imported when it is called
COMMANDS = {
    "train": "alignzoo.cli.train_command:main", "make": "alignzoo.cli.make:main", "bench": "alignzoo.bench.bench:main",
    "report": "alignzoo.report.report:main", "compare": "alignzoo.cli.compare_command:main",
    "sample": "alignzoo.cli.sample_command:main", "chat": "alignzoo.cli.chat_command:main",
    "label": "alignzoo.label.command:main", "list": "alignzoo.cli.plugin:options", "card": "alignzoo.cli.plugin:card",
    "plugin": "alignzoo.cli.plugin:main", "doctor": "alignzoo.cli.doctor:main",
}  # fmt: skip
PATIENCE = 20.0  # seconds after which a rank other than the first tells its own mistake: on a busy machine they drift apart


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if logging.lastResort:  # what shows warnings where nobody has set up logging
        logging.lastResort.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        return complain(str(error))
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has gone; Python's flush at exit must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if disk.is_full(error):
            return complain(f"{disk.what_is_full(error)}. Free some space; what was saved before is unharmed")
        if isinstance(error, OSError) and error.errno in disk.CLOSED:
            return complain(f"{error.filename} can't be read or written: {error.strerror}. Choose another place")
        raise


def _dispatch(argv: list[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help"):
        catalogue.show_help()
    elif command == "--version":
        print(f"alignzoo {__version__}")
    elif command in COMMANDS or command == "--shell-completion":
        module, _, function = COMMANDS.get(command, "alignzoo.cli.completion:main").partition(":")
        return int(getattr(import_module(module), function)(rest))
    else:
        raise UserError(f"no command {command!r}.{nearest(command, COMMANDS)} Commands: {', '.join(COMMANDS)}")
    return 0


def complain(message: str) -> int:
    """Tells a user's mistake, of several processes once, and returns the exit code."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(PATIENCE)  # where the first rank has the same to say, torchrun ends this one meanwhile
    tell(message)
    return 2
