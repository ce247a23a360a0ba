"""`reward=http`: a scorer behind an address; and how servers are asked: JSON, with a time-out, again where that may help."""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from queue import Empty, Queue
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from alignzoo.contracts import Reward, Source
from alignzoo.errors import HIDDEN, UserError, require
from alignzoo.rewards.text_reward import Rating, TextReward, Written

PASSING = {408, 425, 429, 500, 502, 503, 504}  # what a server answers that may do better a moment later


class NoAnswer(Exception):
    """Nothing usable came back."""


class Stay(HTTPRedirectHandler):
    """Goes nowhere else: neither the token nor the texts are for another server."""

    def redirect_request(self, *_: object) -> None:
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
                while part := answer.read1():
                    if time.monotonic() >= deadline:
                        raise TimeoutError  # what came by now is a part of an answer
                    parts.append(part)
            answers.put(b"".join(parts))
        except Exception as error:
            answers.put(error)

    Thread(target=read, daemon=True).start()  # left alone where it is late: no end of the process waits for it
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


@dataclass(kw_only=True)
class Remote(TextReward):
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

    def post(self, url: str, message: Mapping[str, object]) -> Any:
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
            again = True
            try:
                return json.loads(_within(self.timeout, request))
            except HTTPError as error:
                why, again = f"answered {error.code} {error.reason}", error.code in PASSING
                error.close()
            except (HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)  # of an URLError, which is an OSError
                slow = isinstance(reason, TimeoutError)
                why = f"took longer than {self.timeout:g} s" if slow else f"can't be reached: {reason}"
            except ValueError:
                why, again = "answered with what is no JSON", False
            if not again:
                break
        raise NoAnswer(f"{url} {why}" + (f", asked {attempt + 1} times" if attempt else ""))


@dataclass(kw_only=True)
class Http(Remote):
    """A remote scorer. It gets POST {"prompts": [...], "completions": [...]} and answers {"scores": [...]}.

    One number a completion, null where it has none. `columns` of the data are sent beside, in {"columns": {NAME: [...]}}.
    """

    batch: int = field(default=64, metadata={"help": "completions of one request"})
    columns: list[str] = field(default_factory=list, metadata={"help": "data columns to send along"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch >= 1, "reward.batch", self.batch, ">= 1")

    def rate_all(self, completions: list[Written]) -> list[Rating]:
        ratings: list[Rating] = []
        for start in range(0, len(completions), self.batch):
            batch = completions[start : start + self.batch]
            try:
                ratings += self._numbers(batch)
            except NoAnswer as error:
                ratings += [f"got no score: {error}"] * len(batch)
        return ratings

    def _numbers(self, batch: list[Written]) -> list[float | None]:
        columns = {name: [completion.column(name, "reward.columns") for completion in batch] for name in self.columns}
        message = {
            "prompts": [completion.prompt for completion in batch],
            "completions": [completion.text for completion in batch],
        }
        answer = self.post(str(self.url), message | ({"columns": columns} if columns else {}))
        numbers = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(numbers, list) or len(numbers) != len(batch):
            raise NoAnswer(f'{self.url} must answer {{"scores": [...]}} with {len(batch)} of them, not {str(answer)[:60]}')
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int | float | None):
                raise NoAnswer(f"{self.url} answered {number!r:.60}: a score must be a number, or null")
        return [math.nan if number is not None and not math.isfinite(number) else number for number in numbers]
