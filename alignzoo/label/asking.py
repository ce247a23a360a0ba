"""Asking people while a program waits: a request on disk, and the answers as they come in."""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.common.disk import write_whole
from alignzoo.common.folder import line
from alignzoo.common.signals import caught
from alignzoo.errors import UserError, printable
from alignzoo.label import requests, spreadsheet
from alignzoo.label.items import Answer, Item, QuestionKind, Scale, Text, item
from alignzoo.label.journal import RaterAnswer, by_item, data_rows

QUIET = 30.0  # seconds at least between two lines that say how far it is


def _say(text: str) -> None:
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
    tell: Callable[[str], None] = _say

    def ratings(self, texts: Sequence[tuple[Text, Text]]) -> list[float | None]:
        """The mean rating of each (prompt, completion); None where all raters skipped it. Raises UserError after `timeout`."""
        items = [item(QuestionKind.ratings, prompt, [completion]) for prompt, completion in texts]
        return [mean(answers) for answers in self._all(items)]

    def preferences(self, pairs: Sequence[tuple[Text, Text, Text]]) -> list[float | None]:
        """For each (prompt, a, b), the share of the raters who prefer a, ties counted half; None where all skipped it, or where
        a is b. Raises UserError after `timeout`."""
        items = [item(QuestionKind.pairs, prompt, [a, b]) for prompt, a, b in pairs if a != b]
        answers = iter(zip(items, self._all(items), strict=True))
        return [None if a == b else _share_of(a, *next(answers)) for _, a, b in pairs]

    def ask(self, items: Sequence[Item], wait: bool = True) -> list[list[Answer]]:
        """Of each item, the answers there are, skips among them: of as many raters as are wanted, or, after `timeout` or
        without `wait`, of fewer. KeyboardInterrupt leaves the request open: asked the same, it goes on with it."""
        unique = list({question.id: question for question in items}.values())
        answers = by_item(self._answers())
        open_items = [question for question in unique if len(answers.get(question.id, ())) < self.raters]
        if wait and open_items:
            with caught(_stop):  # once it is written somebody may stop us
                request = self._request(unique, open_items)
                try:
                    self._wait(request, open_items)
                except KeyboardInterrupt:
                    self.tell(f"{request} stays open: answered meanwhile or later, it is not asked again")
                    raise
            every = self._answers()
            write_whole(self.folder / "labels.jsonl", b"".join(map(line, data_rows(every))))
            answers = by_item(every)
        return [[answer.answer for answer in answers.get(question.id, ())] for question in items]

    def _all(self, items: list[Item]) -> list[list[Answer]]:
        answers = self.ask(items)
        missing = sum(len(several) < self.raters for several in answers)
        if missing:
            raise UserError(
                f"{self.folder}: {missing} of {len(items)} were not answered within {self.timeout:g} s; asked again, it goes on"
            )
        return answers

    def _request(self, items: list[Item], open_items: list[Item]) -> Path:
        """The request for these items: the one that is open already, where they were asked about before."""
        digest = hashlib.sha256("".join(sorted(question.id for question in items)).encode()).hexdigest()[:8]
        self.folder.mkdir(parents=True, exist_ok=True)
        before = next(iter(self.folder.glob(f"{requests.PREFIX}*-{digest}.jsonl")), None)
        if before and {question.id for question in open_items} <= {question.id for question in requests.read(before).items}:
            return before
        number = 1 + len(requests.in_folder(self.folder))
        path = before or self.folder / f"{requests.PREFIX}{number:04d}-{digest}.jsonl"
        shuffled = sorted(open_items, key=lambda question: question.id)
        random.Random(digest).shuffle(shuffled)
        requests.write(path, requests.Questionnaire(shuffled, self.scale, self.raters))
        return path

    def _wait(self, request: Path, items: list[Item]) -> None:
        """Until all are answered, or for `timeout`; tells of mistakes at once, and how many are answered every now and then."""
        self.tell(
            f"{len(items)} completions wait for people: alignzoo label {request}\n"
            f"or on a page, with what is asked later: alignzoo label {self.folder} --serve\n"
            f"or fill in the column {spreadsheet.ANSWER[items[0].kind]} of {requests.table_of(request)}"
        )
        began = spoke = time.monotonic()
        reported, before = set[str](), -1
        while True:
            problems = list[str]()
            answers = by_item(requests.answers(request, problems.append))
            for problem in problems:
                if problem not in reported:
                    self.tell(f"{problem}\nit counts as no answer; waiting on")
            reported = set(problems)
            answered = sum(len(answers.get(question.id, ())) >= self.raters for question in items)
            if answered == len(items) or (answered != before and time.monotonic() - spoke >= QUIET):
                self.tell(f"{request.name}: {answered} of {len(items)} answered")
                spoke, before = time.monotonic(), answered
            if answered == len(items) or (self.timeout and time.monotonic() - began >= self.timeout):
                return
            time.sleep(self.poll)

    def _answers(self) -> list[RaterAnswer]:
        """All that was ever answered in this folder; the last of a rater on the same item stands."""
        every = [answer for path in requests.in_folder(self.folder) for answer in requests.answers(path, lambda problem: None)]
        return list({(answer.item.id, answer.rater): answer for answer in every}.values())


def mean(answers: Sequence[Answer]) -> float | None:
    """Of the ratings among the answers; None where there are none."""
    ratings = [answer for answer in answers if isinstance(answer, int | float)]
    return sum(ratings) / len(ratings) if ratings else None


def _share_of(text: Text, question: Item, answers: Sequence[Answer]) -> float | None:
    """Of the raters of a pair, those who prefer this text of it."""
    share = mean([(1 + ranks[1] - ranks[0]) / 2 for ranks in answers if isinstance(ranks, list)])
    return share if share is None or question.completions[0] == text else 1 - share


def _stop(number: int) -> None:
    """At once: a run only looks at signals after an optimizer step."""
    raise KeyboardInterrupt
