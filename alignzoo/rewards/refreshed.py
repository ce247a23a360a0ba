"""`reward=refreshed`: a reward model that keeps up with the policy, by labels of what the policy writes now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Rated
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Lesson, Metrics, Models, Scores, Search, Source, Table, Terms
from alignzoo.data.files import JsonLines
from alignzoo.errors import UserError, require
from alignzoo.functional.preference import bradley_terry_loss
from alignzoo.functional.scores import rating_squared_error
from alignzoo.models.vocabulary import decoder
from alignzoo.rewards import labelled
from alignzoo.rewards.model import Level, RewardModel
from alignzoo.settings import Dtype


class Objective(Enum):
    bradley_terry = "bradley_terry"  # of each two completions of a prompt whose labels differ
    regression = "regression"  # (score - label)^2


@dataclass(kw_only=True)
class Refreshed(RewardModel):
    """The reward model at `path`, trained further on labels of the latest rollout, every so many steps of the policy.

    `gold` gives the labels: another reward, a file of ratings (gold=ratings), or people. Each refresh is `updates` steps on the
    Bradley-Terry loss (Ouyang et al. 2022, eq. 1; of such rounds Bai et al. 2022, Training a helpful and harmless assistant,
    section 4.5) or the squared error; a share of its records is replayed from `data`, what it was trained on, and from earlier
    refreshes.
    """

    every: int = field(default=50, metadata={"help": "steps of the policy between refreshes"})
    updates: int = field(default=20, metadata={"help": "of the reward model in a refresh"})
    learning_rate: float = field(
        default=1e-4, metadata={"help": "of the reward model, constant", "search": Search(1e-5, 1e-3, log=True)}
    )
    records: int = field(default=32, metadata={"help": "pairs, or ratings, of one update"})
    objective: Objective = field(
        default=Objective.bradley_terry, metadata={"help": "bradley_terry: on pairs by label; regression: on the labels"}
    )
    labels: int = field(default=0, metadata={"help": "completions labelled in a refresh, at most; 0: the whole rollout"})
    most_labels: int = field(default=0, metadata={"help": "labels of a run, after which nothing is refreshed; 0: any number"})
    data: str | None = field(
        default=None, metadata={"help": "a .jsonl file of pairs or ratings that it was trained on, to be replayed"}
    )
    replay: float = field(
        default=0.5, metadata={"help": "share of an update's records from `data` and earlier refreshes, where there are any"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("every", "updates", "records"):
            require(getattr(self, name) >= 1, f"reward.{name}", getattr(self, name), ">= 1")
        for name in ("labels", "most_labels"):
            require(getattr(self, name) >= 0, f"reward.{name}", getattr(self, name), ">= 0")
        require(self.learning_rate > 0, "reward.learning_rate", self.learning_rate, "> 0")
        require(0 <= self.replay < 1, "reward.replay", self.replay, "in [0, 1)")
        exact = self.dtype in (Dtype.float32, Dtype.float64)
        require(exact, "reward.dtype", self.dtype.value, "float32 or float64: small steps are lost in the others")
        require(self.level is Level.sequence, "reward.level", self.level.value, "sequence: a refresh is of whole completions")
        self._recent: Completions | None = None  # the latest rollout, without text
        self._earlier: Any = None  # the records of earlier refreshes
        self._original: Table | None = None  # those of `data`
        self._refreshes, self._asked = 0, 0

    @property
    def _kind(self) -> type[Batch]:
        return Pairs if self.objective is Objective.bradley_terry else Rated

    def resolve(self, source: Source) -> RewardModel:
        if not self.path:
            raise UserError("reward=refreshed starts from a reward model: give reward.path=PATH")
        if self.data and not Path(self.data).expanduser().is_file():
            raise UserError(f"reward.data={self.data}: no such file")
        super().resolve(source)
        return self

    def needs_labels(self) -> bool:
        return True

    def setup(self, context: Context) -> None:
        super().setup(context)
        if self._model.config.num_labels != 1:
            raise UserError(f"reward.path={self.path} has {self._model.config.num_labels} labels: a refresh trains one score")
        self._model.requires_grad_(True)
        self._context, self._decode = context, decoder(context.tokenizer)
        if self.data:
            self._original = JsonLines(path=self.data, heldout=0.0).tables(self._kind, context).train

    def networks(self) -> Mapping[str, Any]:
        return {"reward_model": self._model}

    def export(self, folder: Path) -> None:
        """As `reward=model reward.path=RUN/model/reward_model` reads it."""
        self._model.save_pretrained(folder / "reward_model")
        self._tokenizer.save_pretrained(folder / "reward_model")

    # --- a refresh ---

    def observe(self, c: Completions, scores: Scores) -> None:
        self._recent = c

    def lessons(self, step: int) -> Iterator[Lesson]:
        if step % self.every or self._recent is None:
            return
        c = self._labelled()
        if c is None:
            return
        scores = self(labelled.spoken(c, self._decode)).total.cpu()
        agreement = labelled.correlation(scores, c.rating)
        metrics = {"labels": float(len(c)), "gold": float(c.rating.mean()), "gold_correlation": agreement}
        fresh: Any = labelled.pairs(c) if self.objective is Objective.bradley_terry else c
        if len(fresh):
            for number in range(self.updates):
                batch = self._batch(fresh, generator(self._context.seed, "refresh", self._refreshes, number))
                yield Lesson(learner=self, batch=batch, learning_rate=self.learning_rate, metrics=metrics if not number else {})
            self._earlier = labelled.latest(fresh if self._earlier is None else labelled.joined([self._earlier, fresh]))
        self._refreshes += 1

    def _labelled(self) -> Rated | None:
        """Completions of the latest rollout with their labels, whole prompts first come; None where there is nothing to ask, or
        no label may be asked for any more."""
        assert self._recent is not None and self._context.label is not None, "the run has a judge"
        left = self.most_labels - self._asked if self.most_labels else len(self._recent)
        count = min(self.labels or len(self._recent), left, len(self._recent))
        if count <= 0:
            return None
        asked = labelled.some(self._recent, count, generator(self._context.seed, "labels", self._refreshes))
        scores = self._context.label(labelled.spoken(asked, self._decode).to(self._context.device))
        usable, total = scores.usable.cpu(), scores.total.cpu()
        self._asked += int(usable.sum())
        rated = Rated(**vars(asked), rating=(total if total.dim() == 1 else asked.sum(total)).float())
        return rated.take(usable) if usable.any() else None

    def _batch(self, fresh: Any, rng: np.random.Generator) -> Any:
        """The records of one update: fresh ones, and replayed ones where there are any."""
        sizes = [len(self._original) if self._original else 0, len(self._earlier) if self._earlier is not None else 0]
        old = round(self.replay * self.records) if sum(sizes) else 0
        parts = [fresh.take(rng.choice(len(fresh), self.records - old, replace=len(fresh) < self.records - old).tolist())]
        rows = rng.integers(max(1, sum(sizes)), size=old)
        original = rows[rows < sizes[0]].tolist()
        earlier = (rows[rows >= sizes[0]] - sizes[0]).tolist()
        if original and self._original is not None:
            parts.append(self._original.batch(original))
        if earlier:
            parts.append(self._earlier.take(earlier))
        return labelled.joined(parts)

    # --- what it learns ---

    def loss(self, models: Models, batch: Any) -> tuple[Terms, Metrics]:
        if isinstance(batch, Pairs):
            chosen, rejected = self._read(batch.both).chunk(2)
            return bradley_terry_loss(chosen, rejected), {"accuracy": ((chosen - rejected).sign() + 1) / 2}
        scores = self._read(batch)
        return rating_squared_error(scores, batch.rating.to(scores.device)), {}

    def _read(self, c: Completions) -> Tensor:
        """(B,): the model's scores, with gradient; of text longer than its context, those of its beginning."""
        spoken = labelled.spoken(c, self._decode)
        ids = self._tokens(spoken) if self._reads_tokens else self._encoded(spoken)
        return self._sequence([row[: self._longest] for row in ids])

    def state_dict(self) -> dict[str, Any]:
        return {"recent": self._recent, "earlier": self._earlier, "refreshes": self._refreshes, "asked": self._asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._recent, self._earlier = state["recent"], state["earlier"]
        self._refreshes, self._asked = state["refreshes"], state["asked"]
