"""Rewards made of others: how their parts are written, made, set up, combined, and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from alignzoo.batch import Batch, Completions
from alignzoo.common import nested
from alignzoo.contracts import Context, LearningReward, Lesson, Metrics, Models, Reward, Role, Scores, Source, Terms, learning
from alignzoo.errors import UserError
from alignzoo.rewards.checked import check_shape

State = dict[str, Any]  # of a reward, as a checkpoint has it
T = TypeVar("T")


@dataclass(kw_only=True)
class Composite(LearningReward):
    """A reward of `parts`, each {kind: a reward's name, weight: its factor, 1 if not given, and that reward's own fields}.

    Parts may be composites themselves. A completion that one part can't score has no score; what one part fails on, the whole
    fails on, under the part's name. Each part is reported under its name, before weighting. A part that learns keeps its roles,
    losses and state, its terms and metrics under its name.
    """

    parts: dict[str, Any] = field(default_factory=dict, metadata={"help": "name: {kind, weight, and the reward's own fields}"})

    def __post_init__(self) -> None:
        self._rewards: dict[str, Reward] = {}
        self._factors = {name: _factor(f"reward.parts.{name}", part) for name, part in self.parts.items()}

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, (B,), and further parts to report, from the weighted values (K, B) of the K parts in their order; `valid`
        (B,) is False where a part has no score, and what stands there is not read. Without a subclass's own: the sum."""
        return values.sum(0), {}

    def total(self, scored: Mapping[str, Scores], valid: Tensor, c: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, (B,) or (B, T), of what each part has scored, and further parts to report."""
        return self.combine(torch.stack([self._factors[name] * scores.summed(c) for name, scores in scored.items()]), valid)

    def __call__(self, c: Completions) -> Scores:
        scored = {name: _scored(name, reward, c) for name, reward in self._rewards.items()}
        parts, failed, valid = dict[str, Tensor](), dict[int, str](), torch.ones(len(c), dtype=torch.bool, device=c.ids.device)
        for name, scores in scored.items():
            total = scores.summed(c)
            finite = torch.isfinite(total)
            odd = (scores.usable & ~finite).nonzero()[:, 0].tolist()
            reasons = {place: f"returned {total[place].item()}" for place in odd} | scores.failed
            failed = {place: f"in its part {name} {why}" for place, why in reasons.items()} | failed
            valid = valid & (scores.usable & finite).to(valid.device)
            parts |= {name: total} | _under(name, scores.parts)
        total, more = self.total(scored, valid, c)
        return Scores(total=total, parts=parts | more, valid=valid, failed=failed)

    def resolve(self, source: Source) -> Reward:
        if not self.parts:
            example = "{NAME: {kind: function, path: MODULE:FUNCTION}, ...}"
            raise UserError(f"reward={self._name()} has no parts: give reward.parts='{example}'")
        for name, part in self.parts.items():
            resolved = nested.plugin_of("reward", f"reward.parts.{name}", part, ("kind", "weight")).resolve(source)
            if resolved is None:
                raise UserError(f"reward.parts.{name}: there is no such reward here (kind task needs data that brings its own)")
            self._rewards[name] = resolved
        trained = [role for reward in self._rewards.values() for role in sorted(learning(reward).apart())]
        if len(trained) > len(set(trained)):
            raise UserError(
                f"reward={self._name()}: two of its parts train the same {max(trained, key=trained.count)}: keep one"
            )
        return self

    def setup(self, context: Context) -> None:
        for reward in self._rewards.values():
            reward.setup(context)

    def _name(self) -> str:
        points = entry_points(group="alignzoo.reward")
        return next((point.name for point in points if point.value.endswith(f":{type(self).__name__}")), type(self).__name__)

    def _learners(self, member: str, *arguments: object) -> dict[str, Any]:
        """What each part's own `member` says, by the part's name."""
        return {name: getattr(learning(reward), member)(*arguments) for name, reward in self._rewards.items()}

    def roles(self) -> Mapping[str, Role]:
        return {role: kind for roles in self._learners("roles").values() for role, kind in roles.items()}

    def view(self) -> type[Batch] | None:
        views = set(self._learners("view").values()) - {None}
        if len(views) > 1:
            raise UserError(f"reward={self._name()}: its parts learn from different records of the data: choose one of them")
        return next(iter(views), None)

    def needs_labels(self) -> bool:
        return any(self._learners("needs_labels").values())

    def networks(self) -> Mapping[str, nn.Module]:
        return _merged(self._learners("networks"))

    def apart(self) -> frozenset[str]:
        return frozenset[str]().union(*self._learners("apart").values())

    def teaches(self) -> bool:
        return any(self._learners("teaches").values())

    def lessons(self, step: int) -> Iterator[Lesson]:
        for name, lessons in self._learners("lessons", step).items():
            for lesson in lessons:
                yield replace(lesson, name=f"{name}/{lesson.name}" if lesson.name else name)

    def export(self, folder: Path) -> None:
        for name, reward in self._rewards.items():
            learning(reward).export(folder / name)

    def loss(self, models: Models, batch: Batch) -> tuple[Terms, Metrics]:
        """Of the parts that learn from the policy's own batches; lessons have learners of their own."""
        learnt = {name: part.loss(models, batch) for name, part in self._with_the_policy().items()}
        terms = {name: term if isinstance(term, dict) else {"loss": term} for name, (term, _) in learnt.items()}
        return _merged(terms), _merged({name: metrics for name, (_, metrics) in learnt.items()})

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return _merged({name: part.weights(batch) for name, part in self._with_the_policy().items()})

    def _with_the_policy(self) -> dict[str, LearningReward]:
        return {name: learning(reward) for name, reward in self._rewards.items() if not learning(reward).teaches()}

    def observe(self, c: Completions, scores: Scores) -> None:
        for name, reward in self._rewards.items():
            if name in scores.parts:
                learning(reward).observe(c, _of_part(name, scores))

    def after_rollout(self, scores: Scores) -> None:
        for name, reward in self._rewards.items():
            if name in scores.parts:
                reward.after_rollout(_of_part(name, scores))

    def state_dict(self) -> State:
        return {name: state for name, reward in self._rewards.items() if (state := reward.state_dict())}

    def load_state_dict(self, state: State) -> None:
        for name, part in state.items():
            self._rewards[name].load_state_dict(part)


def _factor(key: str, part: object) -> float:
    weight = part.get("weight", 1.0) if isinstance(part, Mapping) and "kind" in part else None
    if not isinstance(weight, int | float):
        raise UserError(f"{key}={part}: must be {{kind: NAME, weight: NUMBER, and that reward's own fields}}")
    return float(weight)


def _scored(name: str, reward: Reward, c: Completions) -> Scores:
    """Raises UserError for scores of another shape, which could else become that of the total unnoticed."""
    try:
        scores = reward(c)
    except Exception as error:
        error.add_note(f"in its part {name}")
        raise
    check_shape(name, scores, c)
    return scores


def _of_part(name: str, scores: Scores) -> Scores:
    """A part's share of the scores of all."""
    inner = {key.removeprefix(f"{name}/"): x for key, x in scores.parts.items() if key.startswith(f"{name}/")}
    return Scores(total=scores.parts[name], parts=inner, valid=scores.valid)


def _under(name: str, values: Mapping[str, T]) -> dict[str, T]:
    return {f"{name}/{inner}": value for inner, value in values.items()}


def _merged(by_part: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    return {key: value for name, values in by_part.items() for key, value in _under(name, values).items()}
