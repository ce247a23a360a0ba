"""`reward=judge`: a language model is asked for a score or a verdict."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from alignzoo.common.words import whole
from alignzoo.contracts import Reward, Source
from alignzoo.errors import UserError, require
from alignzoo.rewards.answers import numbers_in
from alignzoo.rewards.remote import NoAnswer, Remote
from alignzoo.rewards.text_reward import Rating, Written

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

    def rate_all(self, completions: list[Written]) -> list[Rating]:
        questions = [self._question(completion) for completion in completions]
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self._judged, questions))

    def _judged(self, question: str) -> Rating:
        try:
            return self._score(self._reply(question))
        except NoAnswer as error:
            return f"got no score: {error}"

    def _question(self, completion: Written) -> str:
        """The template filled in at one go, so that braces in a text are left alone."""
        texts = {"prompt": completion.prompt, "completion": completion.text}
        columns = set(PLACE.findall(self.template)) - set(texts)
        texts |= {name: str(completion.column(name, "reward.template")) for name in columns}
        return PLACE.sub(lambda place: texts[place[1]], self.template)

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
        numbers = numbers_in(reply)
        if not numbers:
            raise NoAnswer(f"no number in the reply {reply[:60]!r}")
        last = float(numbers[-1].replace(",", ""))
        if (self.low is not None and last < self.low) or (self.high is not None and last > self.high):
            raise NoAnswer(f"{last:g} is outside the scale from {self.low} to {self.high}")
        return last

    def _verdict(self, reply: str) -> float:
        spoken = whole(*self.verdicts).findall(reply)
        if not spoken:
            raise NoAnswer(f"none of {', '.join(self.verdicts)} in the reply {reply[:60]!r}")
        return {name.lower(): score for name, score in self.verdicts.items()}[spoken[-1].lower()]
