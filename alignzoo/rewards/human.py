"""`reward=human`: people are asked while the run waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.batch import Completions
from alignzoo.contracts import Context, Reward, Scores
from alignzoo.errors import require
from alignzoo.label.asking import Asker, mean
from alignzoo.label.items import Kind, Scale, item
from alignzoo.rewards.texts import scores, written


@dataclass(kw_only=True)
class Human(Reward):
    """The mean rating of people, for whom the run waits.

    Each rollout writes a request file and goes on when it is answered: with `alignzoo label REQUEST`, in its CSV, or by any
    program.

    Requests are blind and shuffled. What was answered once is never asked again: a run that was stopped while it waited goes on
    with the request that is open. A completion that all raters skip has no score.
    """

    folder: str | None = field(
        default=None, metadata={"help": "where requests and answers are; null: beside the run's folder, RUN.labels"}
    )
    low: float = field(default=1.0, metadata={"help": "the lowest rating"})
    high: float = field(default=5.0, metadata={"help": "the highest rating"})
    raters: int = field(default=1, metadata={"help": "how many people rate each completion"})
    timeout: float = field(
        default=0.0, metadata={"help": "seconds to wait; what has no answer then is handled by scoring.on_error; 0: no end"}
    )
    poll: float = field(default=1.0, metadata={"help": "seconds between two looks for answers"})
    evaluations: bool = field(
        default=False, metadata={"help": "ask about what evaluations sample as well; otherwise only known answers count there"}
    )

    def __post_init__(self) -> None:
        require(self.low < self.high, "reward.low", self.low, f"below reward.high={self.high:g}")
        require(self.raters >= 1, "reward.raters", self.raters, ">= 1")
        require(self.timeout >= 0, "reward.timeout", self.timeout, ">= 0")
        require(self.poll > 0, "reward.poll", self.poll, "> 0")

    def setup(self, context: Context) -> None:
        self._context = context
        self._asker = Asker(
            folder=Path(self.folder).expanduser() if self.folder else _beside(context),
            scale=Scale(self.low, self.high), raters=self.raters, timeout=self.timeout, poll=self.poll,
        )  # fmt: skip

    def __call__(self, c: Completions) -> Scores:
        items = [item(Kind.ratings, one.prompt, [one.text]) for one in written(c)]
        shared = self._context.shared
        asked = self.evaluations or shared is None or shared.noise.purpose != "evaluation"
        said = self._asker.ask(items, wait=asked)
        known = [len(answers) >= self.raters for answers in said]
        failed = {i: f"got no answer within {self.timeout:g} s" for i, answered in enumerate(known) if asked and not answered}
        return scores([mean(answers) if answered else None for answers, answered in zip(said, known, strict=True)], c, failed)


def _beside(context: Context) -> Path:
    """Not in the run's folder: what people did outlives a run that is begun anew."""
    if context.folder is None:
        return context.cache / "labels"
    return context.folder.with_name(f"{context.folder.name}.labels")
