"""`alignzoo label --serve`: the page on a port, until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from alignzoo.errors import UserError
from alignzoo.label.access import HERE, tokens
from alignzoo.label.work import Work

EVERYWHERE = ("0.0.0.0", "::")


def serve(
    works: Callable[[], Sequence[Work]], raters: Sequence[str], kept: Path, address: tuple[str, int], say: Callable[[str], None]
) -> None:
    """Tells each rater's link, and the owner's, and answers until it is interrupted; `kept` is the file of their tokens.

    Raises UserError where the port is taken, and where a package is missing.
    """
    try:
        import uvicorn

        from alignzoo.label.page import Page
    except ModuleNotFoundError as error:
        raise UserError(f"--serve needs {error.name}, which isn't installed: pip install 'alignzoo[serve]'") from error

    with _listening(*address) as port:
        known = tokens(kept, raters)
        host = socket.gethostname() if address[0] in EVERYWHERE else f"[{address[0]}]" if ":" in address[0] else address[0]
        for token, name in known.items():
            say(f"{name or 'how far they are, for you'}: http://{host}:{port.getsockname()[1]}/?token={token}")
        here = address[0] in HERE
        if not here:
            say("whoever reads the network between reads links and answers: it is not encrypted")
        say("Ctrl-C ends it; links stay as they are, and what was answered is kept")
        settings = uvicorn.Config(
            Page(works, known, here).app, log_level="warning", access_log=False, lifespan="off", ws="none", http="h11",
            loop="asyncio", proxy_headers=False, server_header=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[port])


def _listening(host: str, number: int) -> socket.socket:
    """Raises UserError, with what to do, where it can't be had."""
    try:
        return socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is taken" if error.errno == errno.EADDRINUSE else "is not for everybody"
            raise UserError(f"--port {number} {why}: give another, or --port 0 for one that is free") from None
        raise UserError(f"--host {host}: not an address of this machine ({error.strerror})") from None
