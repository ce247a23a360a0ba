"""`reward=judge`: a language model is asked for a score or a verdict."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from alignzoo.batch import Completions
from alignzoo.common.words import whole
from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError, require
from alignzoo.rewards.answers import numbers_in
from alignzoo.rewards.remote import NoAnswer, Remote
from alignzoo.rewards.texts import Written, column, scores, written

TEMPLATE = """Rate the answer to the prompt from 1 (worst) to 10 (best). Reply with the number alone.

Prompt: {prompt}

Answer: {completion}"""
PLACE = re.compile(r"\{(\w+)\}")


@dataclass(kw_only=True)
class Judge(Remote):
    """A language model as judge, asked through an OpenAI-compatible address: POST URL/chat/completions, temperature 0.

    The score is the last number of its reply, or, with `verdicts`, the number of the verdict that comes last in it, in any
    case. A reply with neither counts as a failure (`scoring.on_error`).
    """

    model: str | None = field(default=None, metadata={"help": "the judge's name at that address"})
    template: str = field(
        default=TEMPLATE, metadata={"help": "the question; {prompt}, {completion}, or a data column's {NAME}"}
    )
    system: str | None = field(default=None, metadata={"help": "a system message before it"})
    verdicts: dict[str, float] = field(default_factory=dict, metadata={"help": "verdict: score, such as {good: 1, bad: 0}"})
    low: float | None = field(default=None, metadata={"help": "numbers below are no score but a failure"})
    high: float | None = field(default=None, metadata={"help": "numbers above are no score but a failure"})
    max_tokens: int = field(default=64, metadata={"help": "longest reply"})
    jobs: int = field(default=8, metadata={"help": "how many are asked at a time"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.jobs >= 1, "reward.jobs", self.jobs, ">= 1")
        require(self.max_tokens >= 1, "reward.max_tokens", self.max_tokens, ">= 1")
        if "completion" not in PLACE.findall(self.template):
            raise UserError("reward.template has no {completion}: the judge would not see what it is to judge")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise UserError(f"reward.low={self.low:g} is more than reward.high={self.high:g}")

    def resolve(self, source: Source) -> Reward:
        if not self.model:
            raise UserError("reward=judge needs the judge's name: give reward.model=NAME")
        return super().resolve(source)

    def __call__(self, c: Completions) -> Scores:
        texts, failed = written(c), dict[int, str]()
        questions = [self._question(one) for one in texts]

        def judged(i: int) -> float | None:
            try:
                return self._score(self._reply(questions[i]))
            except NoAnswer as error:
                failed[i] = f"got no score: {error}"
                return None

        with ThreadPoolExecutor(self.jobs) as pool:
            numbers = list(pool.map(judged, range(len(texts))))
        return scores(numbers, c, dict(sorted(failed.items())))

    def _question(self, one: Written) -> str:
        """The template filled in at one go, so that braces in a text are left alone."""
        own = {"prompt": one.prompt, "completion": one.text}

        def filled(name: str) -> str:
            return own[name] if name in own else str(column(one, name, "reward.template"))

        return PLACE.sub(lambda found: filled(found[1]), self.template)

    def _reply(self, question: str) -> str:
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, {"role": "user", "content": question}]
        message = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": self.max_tokens}
        answer = self.post(str(self.url).rstrip("/") + "/chat/completions", message)
        try:
            return str(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError) as error:
            raise NoAnswer(f"{self.url} gave no choices[0].message.content, but {str(answer)[:60]}") from error

    def _score(self, reply: str) -> float:
        if self.verdicts:
            return self._verdict(reply)
        numbers = [float(number.replace(",", "")) for number in numbers_in(reply)]
        if not numbers:
            raise NoAnswer(f"no number in the reply {reply[:60]!r}")
        if (self.low is not None and numbers[-1] < self.low) or (self.high is not None and numbers[-1] > self.high):
            raise NoAnswer(f"{numbers[-1]:g} is outside the scale from {self.low} to {self.high}")
        return numbers[-1]

    def _verdict(self, reply: str) -> float:
        found = whole(*self.verdicts).findall(reply)
        if not found:
            raise NoAnswer(f"none of {', '.join(self.verdicts)} in the reply {reply[:60]!r}")
        return {name.lower(): score for name, score in self.verdicts.items()}[found[-1].lower()]
