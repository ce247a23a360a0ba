"""`reward=refreshed`: a reward model that keeps up with the policy, by labels of what the policy writes now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from alignzoo.batch import Batch, Completions, Pairs, Rated
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, LearningReward, Lesson, Metrics, Models, Scores, Search, Source, Table, Terms
from alignzoo.data.files import JsonLines
from alignzoo.errors import UserError, require
from alignzoo.functional.preference import bradley_terry_loss
from alignzoo.functional.scores import rating_squared_error
from alignzoo.models.vocabulary import decoder
from alignzoo.rewards.composite import State
from alignzoo.rewards.model import RewardModel, ScoreLevel
from alignzoo.rewards.training_records import drawn, joined, last, pairs, whole_draws, with_text
from alignzoo.settings import Dtype
from alignzoo.statistics.calibration import correlation

MOST = 8192  # records of earlier refreshes that are kept


class RefreshLoss(Enum):
    bradley_terry = "bradley_terry"  # of each two completions of a prompt whose labels differ
    regression = "regression"  # (score - label)^2


@dataclass(kw_only=True)
class Refreshed(RewardModel, LearningReward):
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
    objective: RefreshLoss = field(
        default=RefreshLoss.bradley_terry, metadata={"help": "bradley_terry: on pairs by label; regression: on the labels"}
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
        require(
            self.level is ScoreLevel.sequence, "reward.level", self.level.value, "sequence: a refresh is of whole completions"
        )
        self._recent: Completions | None = None  # the latest rollout, without text
        self._earlier: Batch | None = None  # the records of earlier refreshes
        self._original: Table | None = None  # those of `data`
        self._refreshes, self._labels = 0, 0

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
            view: type[Batch] = Pairs if self.objective is RefreshLoss.bradley_terry else Rated
            self._original = JsonLines(path=self.data, heldout=0.0).tables(view, context).train

    def networks(self) -> Mapping[str, nn.Module]:
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
        c = self._labelled(self._recent)
        if c is None:
            return
        scores = self(with_text(c, self._decode)).total.cpu()
        agreement = correlation(scores.double().numpy(), c.rating.double().numpy())
        metrics = {"labels": float(len(c)), "gold": float(c.rating.mean()), "gold_correlation": agreement}
        fresh: Batch = pairs(c) if self.objective is RefreshLoss.bradley_terry else c
        if len(fresh):
            for number in range(self.updates):
                batch = self._batch(fresh, generator(self._context.seed, "refresh", self._refreshes, number))
                yield Lesson(learner=self, batch=batch, learning_rate=self.learning_rate, metrics=metrics if not number else {})
            kept = [fresh] if self._earlier is None else [self._earlier, fresh]
            self._earlier = last(joined(kept), MOST)
        self._refreshes += 1

    def _labelled(self, rollout: Completions) -> Rated | None:
        """Completions of the rollout with their labels, whole prompts first come; None where there is nothing to ask, or no
        label may be asked for any more."""
        assert self._context.label is not None, "the run has a judge"
        left = self.most_labels - self._labels if self.most_labels else len(rollout)
        count = min(self.labels or len(rollout), left, len(rollout))
        if count <= 0:
            return None
        c = whole_draws(rollout, count, generator(self._context.seed, "labels", self._refreshes))
        scores = self._context.label(with_text(c, self._decode).to(self._context.device)).to("cpu")
        self._labels += int(scores.usable.sum())
        rated = Rated(**vars(c), rating=scores.summed(c).float())
        return rated.take(scores.usable) if scores.usable.any() else None

    def _batch(self, fresh: Batch, rng: np.random.Generator) -> Batch:
        """The records of one update: fresh ones, and replayed ones where there are any."""
        sizes = [len(self._original) if self._original else 0, len(self._earlier) if self._earlier is not None else 0]
        old = round(self.replay * self.records) if sum(sizes) else 0
        parts = [drawn(fresh, self.records - old, rng)]
        rows = rng.integers(max(1, sum(sizes)), size=old)
        original = rows[rows < sizes[0]].tolist()
        earlier = (rows[rows >= sizes[0]] - sizes[0]).tolist()
        if original and self._original is not None:
            parts.append(self._original.batch(original))
        if earlier and self._earlier is not None:
            parts.append(self._earlier.take(earlier))
        return joined(parts)

    # --- what it learns ---

    def loss(self, models: Models, batch: Batch) -> tuple[Terms, Metrics]:
        if isinstance(batch, Pairs):
            chosen, rejected = self._read(batch.both).chunk(2)
            return bradley_terry_loss(chosen, rejected), {"accuracy": ((chosen - rejected).sign() + 1) / 2}
        assert isinstance(batch, Rated)
        scores = self._read(batch)
        return rating_squared_error(scores, batch.rating.to(scores.device)), {}

    def _read(self, c: Completions) -> Tensor:
        """(B,): the model's scores, with gradient; of text longer than its context, those of its beginning."""
        rows = self._rows(with_text(c, self._decode))
        return self._sequence([row[: self._longest] for row in rows])

    def state_dict(self) -> State:
        return {"recent": self._recent, "earlier": self._earlier, "refreshes": self._refreshes, "asked": self._labels}

    def load_state_dict(self, state: State) -> None:
        self._recent, self._earlier = state["recent"], state["earlier"]
        self._refreshes, self._labels = state["refreshes"], state["asked"]
