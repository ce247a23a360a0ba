"""Asking a server: JSON over HTTP, with a time-out, and again where that may help."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass, field
from http.client import HTTPException
from queue import Empty, Queue
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from alignzoo.contracts import Reward, Source
from alignzoo.errors import HIDDEN, UserError, require

PASSING = {408, 425, 429, 500, 502, 503, 504}  # what a server answers that may do better a moment later


class NoAnswer(Exception):
    """Nothing usable came back."""


class Stay(HTTPRedirectHandler):
    """Goes nowhere else: neither the token nor the texts are for another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _within(seconds: float, request: Request) -> bytes:
    """The whole answer. Raises TimeoutError where it isn't there by then: the time-out of a socket is one of each byte, and a
    server that drips never meets it. Raises what `urlopen` does."""
    answers: Queue[bytes | Exception] = Queue()
    deadline = time.monotonic() + seconds

    def read() -> None:
        try:
            with build_opener(Stay).open(request, timeout=seconds) as answer:
                parts = []
                while (part := answer.read1()) and time.monotonic() < deadline:
                    parts.append(part)
            answers.put(b"".join(parts))
        except Exception as error:
            answers.put(error)

    Thread(target=read, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


@dataclass(kw_only=True)
class Remote(Reward):
    """A reward that a server gives."""

    url: str | None = field(default=None, metadata={"help": "address, http:// or https://"})
    timeout: float = field(default=30.0, metadata={"help": "seconds that an answer may take"})
    retries: int = field(default=2, metadata={"help": "how often it is asked again where none came, or the server was busy"})
    wait: float = field(default=0.5, metadata={"help": "seconds before asking again, doubled each time"})
    token: str | None = field(default=None, metadata={"help": "environment variable that holds a bearer token", "trust": True})

    def __post_init__(self) -> None:
        require(self.timeout > 0, "reward.timeout", self.timeout, "> 0")
        require(self.retries >= 0, "reward.retries", self.retries, ">= 0")
        require(self.wait >= 0, "reward.wait", self.wait, ">= 0")

    def resolve(self, source: Source) -> Reward:
        parts = urlsplit(self.url or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"reward.url={self.url}: give the server's address, such as http://localhost:8000/score")
        if HIDDEN in (parts.username, parts.password):
            raise UserError(
                f"reward.url={self.url}: the run's files don't hold its password: give reward.url again, "
                "or keep it in an environment variable, as http://NAME:${oc.env:PASSWORD}@HOST"
            )
        if self.token and parts.username:
            raise UserError(f"reward.token={self.token} and the name in reward.url={self.url}: a request has one of them")
        if self.token and self.token not in os.environ:
            raise UserError(f"reward.token={self.token}: there is no such environment variable")
        return self

    def post(self, url: str, message: dict[str, Any]) -> Any:
        """The answer to a JSON message. Raises NoAnswer, saying why."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {os.environ[self.token]}"
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        if login:
            headers["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
        request = Request(urlunsplit(parts._replace(netloc=host)), json.dumps(message).encode(), headers)
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                return json.loads(_within(self.timeout, request))
            except HTTPError as error:
                why, again = f"answered {error.code} {error.reason}", error.code in PASSING
                error.close()
            except TimeoutError:
                why, again = f"took longer than {self.timeout:g} s", True
            except (URLError, HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)
                slow = isinstance(reason, TimeoutError)
                why, again = f"took longer than {self.timeout:g} s" if slow else f"can't be reached: {reason}", True
            except ValueError:
                why, again = "answered with what is no JSON", False
            if not again:
                break
        raise NoAnswer(f"{url} {why}" + (f", asked {attempt + 1} times" if attempt else ""))
