"""Asking people while a program waits: a request on disk, and the answers as they come in."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.common.disk import write_whole
from alignzoo.common.signals import caught
from alignzoo.errors import UserError, printable
from alignzoo.label import requests, tables
from alignzoo.label.items import Answer, Item, Kind, Scale, Text, item
from alignzoo.label.journal import Given, data_rows

QUIET = 30.0  # seconds at least between two lines that say how far it is


def _told(text: str) -> None:
    print(printable(f"alignzoo: {text}"), file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Asker:
    """Asks people about completions and waits until they have answered.

    `folder` keeps every request and its answers; what was ever answered there is not asked again. Of each item, answers of
    `raters` people are wanted. `timeout` seconds are waited at most, 0: without end; answers are looked for every `poll`.
    """

    folder: Path
    scale: Scale = field(default_factory=Scale)
    raters: int = 1
    timeout: float = 0.0
    poll: float = 1.0
    tell: Callable[[str], None] = _told

    def ratings(self, texts: Sequence[tuple[Text, Text]]) -> list[float | None]:
        """The mean rating of each (prompt, completion); None where all raters skipped it. Raises UserError after `timeout`."""
        items = [item(Kind.ratings, prompt, [completion]) for prompt, completion in texts]
        return [mean(said) for said in self._all(items)]

    def preferences(self, pairs: Sequence[tuple[Text, Text, Text]]) -> list[float | None]:
        """For each (prompt, a, b), the share of the raters who prefer a, ties counted half; None where all skipped it, or where
        a is b. Raises UserError after `timeout`."""
        items = [item(Kind.pairs, prompt, [a, b]) for prompt, a, b in pairs]
        said = self._all([one for one, (_, a, b) in zip(items, pairs, strict=True) if a != b])
        answers = iter(said)
        return [
            None if a == b else _share(next(answers), one.completions[0] == a)
            for one, (_, a, b) in zip(items, pairs, strict=True)
        ]

    def ask(self, items: Sequence[Item], wait: bool = True) -> list[list[Answer]]:
        """Of each item, the answers there are, skips among them: of as many raters as are wanted, or, after `timeout` or
        without `wait`, of fewer. KeyboardInterrupt leaves the request open: asked the same, it goes on with it."""
        unique = list({one.id: one for one in items}.values())
        answers = self._answers(unique)
        if wait and (open_items := [one for one in unique if len(answers.get(one.id, ())) < self.raters]):
            with caught(_stop):  # once it is written somebody may stop us
                request = self._request(unique, open_items)
                try:
                    self._wait(request, open_items)
                except KeyboardInterrupt:
                    self.tell(f"{request} stays open: answered meanwhile or later, it is not asked again")
                    raise
            self._write_rows()
            answers = self._answers(unique)
        return [answers.get(one.id, []) for one in items]

    def _all(self, items: list[Item]) -> list[list[Answer]]:
        answers = self.ask(items)
        missing = sum(len(said) < self.raters for said in answers)
        if missing:
            raise UserError(
                f"{self.folder}: {missing} of {len(items)} were not answered within {self.timeout:g} s; asked again, it goes on"
            )
        return answers

    def _request(self, items: list[Item], open_items: list[Item]) -> Path:
        """The request for these items: the one that is open already, where they were asked about before."""
        digest = hashlib.sha256("".join(sorted(one.id for one in items)).encode()).hexdigest()[:8]
        self.folder.mkdir(parents=True, exist_ok=True)
        known = next(iter(self.folder.glob(f"{requests.PREFIX}*-{digest}.jsonl")), None)
        if known and {one.id for one in open_items} <= {one.id for one in requests.read(known).items}:
            return known
        number = 1 + sum(1 for _ in requests.found(self.folder))
        path = known or self.folder / f"{requests.PREFIX}{number:04d}-{digest}.jsonl"
        shuffled = sorted(open_items, key=lambda one: one.id)
        random.Random(digest).shuffle(shuffled)
        requests.write(path, requests.Request(shuffled, self.scale, self.raters))
        return path

    def _wait(self, request: Path, items: list[Item]) -> None:
        self.tell(
            f"{len(items)} completions wait for people: alignzoo label {request}\n"
            f"or fill in the column {tables.ANSWER[items[0].kind]} of {requests.table_of(request)}"
        )
        began, seen, news = time.monotonic(), None, _News(self.tell, request.name, len(items))
        while True:
            if (now := requests.stamp(request)) != seen:
                seen, problems = now, list[str]()
                raters = _raters(requests.answers(request, problems.append))
                answered = sum(len(raters.get(one.id, ())) >= self.raters for one in items)
                news(answered, problems)
                if answered == len(items):
                    return
            if self.timeout and time.monotonic() - began >= self.timeout:
                return
            time.sleep(self.poll)

    def _answers(self, items: list[Item]) -> dict[str, list[Answer]]:
        """By item, what was ever said of it in this folder."""
        wanted = {one.id for one in items}
        said: dict[tuple[str, str], Answer] = {}
        for request in requests.found(self.folder):
            for one in requests.answers(request, lambda problem: None):
                if one.item.id in wanted:
                    said[one.item.id, one.rater] = one.answer
        by_item: dict[str, list[Answer]] = {}
        for (name, _), answer in said.items():
            by_item.setdefault(name, []).append(answer)
        return by_item

    def _write_rows(self) -> None:
        """All that was answered, as a data source reads it."""
        given = [one for request in requests.found(self.folder) for one in requests.answers(request, lambda problem: None)]
        write_whole(
            self.folder / "labels.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in data_rows(given))
        )


def mean(answers: Sequence[Answer]) -> float | None:
    """Of the ratings among the answers; None where there are none."""
    ratings: list[Any] = [answer for answer in answers if answer is not None]
    return sum(ratings) / len(ratings) if ratings else None


def _share(answers: Sequence[Answer], as_asked: bool) -> float | None:
    """Of the raters, those who prefer the first, or, where it isn't `as_asked`, the second."""
    votes = [(1 + ranks[1] - ranks[0]) / 2 for ranks in answers if isinstance(ranks, list)]
    share = mean(votes)
    return share if share is None or as_asked else 1 - share


class _News:
    """Tells what has changed: mistakes at once, and how many are answered every now and then."""

    def __init__(self, tell: Callable[[str], None], name: str, total: int) -> None:
        self.tell, self.name, self.total = tell, name, total
        self.known, self.said = set[str](), time.monotonic()

    def __call__(self, answered: int, problems: Sequence[str]) -> None:
        for problem in problems:
            if problem not in self.known:
                self.tell(f"{problem}\nit counts as no answer; waiting on")
        self.known = set(problems)
        if answered == self.total or time.monotonic() - self.said >= QUIET:
            self.tell(f"{self.name}: {answered} of {self.total} answered")
            self.said = time.monotonic()


def _raters(given: Sequence[Given]) -> dict[str, set[str]]:
    """Who has answered, by item."""
    raters: dict[str, set[str]] = {}
    for one in given:
        raters.setdefault(one.item.id, set()).add(one.rater)
    return raters


def _stop(number: int) -> None:
    """At once: a run only looks at signals after an optimizer step."""
    raise KeyboardInterrupt
