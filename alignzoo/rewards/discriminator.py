"""`reward=discriminator`: how much a completion looks like a demonstration, learnt while the policy learns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from alignzoo.batch import Batch, Completions, Prompts, token_lists
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Kind, LearningReward, Lesson, Metrics, Models, Role, Scores, Search, Table, Terms
from alignzoo.errors import require
from alignzoo.functional.adversarial import airl_reward, discriminator_loss, gail_reward, seqgan_reward
from alignzoo.rewards.composite import State
from alignzoo.rewards.training_records import Replay, bare

CHUNK = 1024  # rows of the data read at once, when its prompts are looked through


class Form(Enum):
    airl = "airl"  # log D - log(1 - D)
    gail = "gail"  # -log(1 - D)
    seqgan = "seqgan"  # D


FORMS = {Form.airl: airl_reward, Form.gail: gail_reward, Form.seqgan: seqgan_reward}


@dataclass(frozen=True, eq=False, kw_only=True)
class Contest(Batch):
    """As many demonstrations as samples, and nothing in common row by row but, where that can be had, the prompt."""

    demonstrations: Completions
    samples: Completions


@dataclass(kw_only=True)
class Discriminator(LearningReward):
    """A discriminator D of the data's demonstrations and the policy's own completions, trained while the policy learns to pass.

    D's logit is a head, zero at first, on a copy of the starting policy, or on the language model at roles.discriminator=PATH.
    The reward is log D - log(1 - D) (`airl`, Fu et al. 2018), -log(1 - D) (`gail`, Ho and Ermon 2016) or D (`seqgan`, Yu et al.
    2017), of a whole completion. D learns after the policy's steps: `updates` for each, which may be a fraction, and `warmup`
    more after the first. Its penalty is R1, gradient_penalty / 2 times the squared gradient by the embeddings of demonstrations
    (Mescheder et al. 2018, eq. 9). No gradient reaches the policy.
    """

    form: Form = field(default=Form.airl, metadata={"help": "airl: log D - log(1 - D); gail: -log(1 - D); seqgan: D"})
    learning_rate: float = field(
        default=1e-3, metadata={"help": "of the discriminator, constant", "search": Search(1e-4, 1e-2, log=True)}
    )
    updates: float = field(
        default=1.0,
        metadata={"help": "of the discriminator for each step of the policy", "search": Search(0.25, 4.0, log=True)},
    )
    warmup: int = field(default=0, metadata={"help": "more updates after the first step of the policy"})
    batch: int = field(default=64, metadata={"help": "demonstrations, and as many samples, of one update"})
    label_smoothing: float = field(
        default=0.0, metadata={"help": "how far from 1 the label of demonstrations is", "search": Search(0.0, 0.3)}
    )
    gradient_penalty: float = field(
        default=0.0,
        metadata={"help": "weight of the R1 penalty; 0: none", "search": Search(options=(0.0, 0.1, 1.0))},
    )
    replay: int = field(default=0, metadata={"help": "completions of earlier rollouts that are kept, the latest; 0: none"})
    replay_share: float = field(default=0.25, metadata={"help": "of an update's samples, those from earlier rollouts"})
    paired: bool = field(
        default=True, metadata={"help": "demonstrations of the samples' own prompts, where there are any; else of any prompts"}
    )

    def __post_init__(self) -> None:
        self._replay, self._updates = Replay(self.replay), 0
        require(self.learning_rate > 0, "reward.learning_rate", self.learning_rate, "> 0")
        require(self.updates > 0, "reward.updates", self.updates, "> 0")
        require(self.batch >= 1, "reward.batch", self.batch, ">= 1")
        require(0 <= self.label_smoothing < 0.5, "reward.label_smoothing", self.label_smoothing, "in [0, 0.5)")
        require(0 <= self.replay_share < 1, "reward.replay_share", self.replay_share, "in [0, 1)")
        for name in ("warmup", "gradient_penalty", "replay"):
            require(getattr(self, name) >= 0, f"reward.{name}", getattr(self, name), ">= 0")

    def view(self) -> type[Batch]:
        return Completions

    def roles(self) -> Mapping[str, Role]:
        return {"discriminator": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def setup(self, context: Context) -> None:
        assert context.records is not None, "it has a view"
        self._models, self._demonstrations, self._seed = context.models, Demonstrations(context.records), context.seed

    def __call__(self, c: Completions) -> Scores:
        assert self._models is not None, "it is asked when models are there"
        return Scores(total=FORMS[self.form](self._models.discriminator.scores(c)).detach())

    # --- what it learns ---

    def observe(self, c: Completions, scores: Scores) -> None:
        self._replay.add(c)

    def lessons(self, step: int) -> Iterator[Lesson]:
        due = self.warmup + int(self.updates * step + 1e-9)  # what rounding takes from 0.29 x 100 is no update
        while self._updates < due and self._replay.latest is not None:
            rng = generator(self._seed, "discriminator", self._updates)
            samples = self._replay.draw(self.batch, self.replay_share, rng)
            demonstrations = self._demonstrations.draw(samples, self.paired, rng)
            contest = Contest(demonstrations=demonstrations, samples=samples)
            self._updates += 1
            yield Lesson(learner=self, batch=contest, learning_rate=self.learning_rate)

    def loss(self, models: Models, batch: Contest) -> tuple[Terms, Metrics]:
        real, fake = (models.discriminator.scores(side) for side in (batch.demonstrations, batch.samples))
        terms = dict(zip(("demonstrations", "samples"), discriminator_loss(real, fake, self.label_smoothing), strict=True))
        metrics = {
            "accuracy_demonstrations": (real > 0).float(),
            "accuracy_samples": (fake < 0).float(),
            "logit_demonstrations": real,
            "logit_samples": fake,
        }
        if self.gradient_penalty:
            terms["penalty"] = self.gradient_penalty / 2 * models.discriminator.sensitivity(batch.demonstrations)
            metrics["penalty"] = terms["penalty"]
        return terms, metrics

    def state_dict(self) -> State:
        return {"updates": self._updates, "replay": self._replay.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._updates = state["updates"]
        self._replay.load_state_dict(state["replay"])


class Demonstrations:
    """The data's demonstrations, of given prompts or of any."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: dict[tuple[int, ...], list[int]] = defaultdict(list)  # of each prompt, once they are needed

    def draw(self, like: Completions, paired: bool, rng: np.random.Generator) -> Completions:
        """As many as there are completions in `like`: of the same prompts, where `paired` and there are any."""
        chosen = rng.integers(len(self.table), size=len(like)).tolist()
        if paired:
            if not self._rows:
                self._look_through()
            rows_of = [self._rows.get(key, []) for key in keys(like.prompts)]
            places = zip(chosen, (rows_of[i] for i in like.prompt_of.tolist()), rng.random(len(like)), strict=True)
            chosen = [rows[int(u * len(rows))] if rows else row for row, rows, u in places]
        return bare(self._read(chosen))

    def _look_through(self) -> None:
        for start in range(0, len(self.table), CHUNK):
            batch = self._read(range(start, min(start + CHUNK, len(self.table))))
            prompts = keys(batch.prompts)
            for place, prompt in enumerate(batch.prompt_of.tolist()):
                self._rows[prompts[prompt]].append(start + place)

    def _read(self, rows: Sequence[int]) -> Completions:
        batch = self.table.batch(rows)
        assert isinstance(batch, Completions)
        return batch


def keys(prompts: Prompts) -> list[tuple[int, ...]]:
    return list(map(tuple, token_lists(prompts.ids, prompts.attended)))
