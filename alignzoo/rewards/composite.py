"""Rewards made of others: how their parts are written, made, set up, and kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions
from alignzoo.common import nested
from alignzoo.contracts import Context, Lesson, Metrics, Models, Reward, Role, Scores, Source, Terms
from alignzoo.errors import UserError


@dataclass(kw_only=True)
class Composite(Reward):
    """A reward of `parts`, each {kind: a reward's name, weight: its factor, 1 if not given, and that reward's own fields}.

    Parts may be composites themselves. A completion that one part can't score has no score; what one part fails on, the whole
    fails on, under the part's name. Each part is reported under its name, before weighting.
    """

    parts: dict[str, Any] = field(default_factory=dict, metadata={"help": "name: {kind, weight, and the reward's own fields}"})

    def __post_init__(self) -> None:
        self._rewards: dict[str, Reward] = {}
        self._factors = {name: _factor(f"reward.parts.{name}", part) for name, part in self.parts.items()}

    @abstractmethod
    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, (B,), and further parts to report, from the weighted values of the parts, each (B,); `valid` (B,) is False
        where a part has no score, and what stands there is not read."""

    def resolve(self, source: Source) -> Reward:
        if not self.parts:
            example = "{NAME: {kind: function, path: MODULE:FUNCTION}, ...}"
            raise UserError(f"reward={self._name()} has no parts: give reward.parts='{example}'")
        for name, part in self.parts.items():
            resolved = nested.made("reward", f"reward.parts.{name}", part, ("kind", "weight")).resolve(source)
            if resolved is None:
                raise UserError(f"reward.parts.{name}: there is no such reward here (kind task needs data that brings its own)")
            self._rewards[name] = resolved
        learnt = [role for reward in self._rewards.values() for role in sorted(reward.apart())]
        if len(learnt) > len(set(learnt)):
            raise UserError(f"reward={self._name()}: two of its parts train the same {max(learnt, key=learnt.count)}: keep one")
        return self

    def setup(self, context: Context) -> None:
        for reward in self._rewards.values():
            reward.setup(context)

    def __call__(self, c: Completions) -> Scores:
        scored = self._scored(c)
        valid = self._valid(scored, c)
        values = {name: self._factors[name] * self._whole(scores.total, c) for name, scores in scored.items()}
        total, more = self.combine(values, valid)
        return self._joined(total, scored, c, more)

    def _scored(self, c: Completions) -> dict[str, Scores]:
        return {name: reward(c) for name, reward in self._rewards.items()}

    def _valid(self, scored: Mapping[str, Scores], c: Completions) -> Tensor:
        valid = torch.ones(len(c), dtype=torch.bool, device=c.ids.device)
        for scores in scored.values():
            finite = torch.isfinite(self._whole(scores.total, c))
            valid = valid & scores.usable.to(valid.device) & finite.to(valid.device)
        return valid

    def _joined(
        self, total: Tensor, scored: Mapping[str, Scores], c: Completions, more: Mapping[str, Tensor] | None = None
    ) -> Scores:
        """The total with the parts of all, and what failed in any."""
        parts, failed = dict[str, Tensor](), dict[int, str]()
        for name, scores in scored.items():
            parts[name] = self._whole(scores.total, c)
            parts |= {f"{name}/{inner}": values for inner, values in scores.parts.items()}
            odd = (~torch.isfinite(parts[name]) & scores.usable).nonzero()[:, 0].tolist()
            wrong = {place: f"returned {parts[name][place].item()}" for place in odd} | scores.failed
            failed = {place: f"in its part {name} {why}" for place, why in wrong.items()} | failed
        return Scores(total=total, parts=parts | dict(more or {}), valid=self._valid(scored, c), failed=failed)

    def _whole(self, total: Tensor, c: Completions) -> Tensor:
        """(B,) of a total that may be by token."""
        return c.sum(total) if total.dim() == 2 else total

    def _name(self) -> str:
        points = entry_points(group="alignzoo.reward")
        return next((point.name for point in points if point.value.endswith(f":{type(self).__name__}")), type(self).__name__)

    # a part that learns keeps its roles, losses and state, its terms and metrics under its name

    def roles(self) -> Mapping[str, Role]:
        return {role: kind for reward in self._rewards.values() for role, kind in reward.roles().items()}

    def view(self) -> type[Batch] | None:
        views = {view for reward in self._rewards.values() if (view := reward.view())}
        if len(views) > 1:
            raise UserError(f"reward={self._name()}: its parts learn from different records of the data: choose one of them")
        return next(iter(views), None)

    def needs_labels(self) -> bool:
        return any(reward.needs_labels() for reward in self._rewards.values())

    def networks(self) -> Mapping[str, Any]:
        return {f"{name}/{own}": x for name, reward in self._rewards.items() for own, x in reward.networks().items()}

    def apart(self) -> frozenset[str]:
        return frozenset(role for reward in self._rewards.values() for role in reward.apart())

    def teaches(self) -> bool:
        return any(reward.teaches() for reward in self._rewards.values())

    def lessons(self, step: int) -> Iterator[Lesson]:
        for name, reward in self._rewards.items():
            for lesson in reward.lessons(step):
                yield replace(lesson, name=f"{name}/{lesson.name}" if lesson.name else name)

    def export(self, folder: Path) -> None:
        for name, reward in self._rewards.items():
            reward.export(folder / name)

    def loss(self, models: Models, batch: Any) -> tuple[Terms, Metrics]:
        terms, metrics = dict[str, Tensor](), dict[str, Tensor]()
        for name, reward in self._with_the_policy().items():
            own, measured = reward.loss(models, batch)
            terms |= _under(name, own if isinstance(own, dict) else {"loss": own})
            metrics |= _under(name, measured)
        return terms, metrics

    def weights(self, batch: Any) -> dict[str, Tensor]:
        weights = dict[str, Tensor]()
        for name, reward in self._with_the_policy().items():
            weights |= _under(name, reward.weights(batch))
        return weights

    def _with_the_policy(self) -> dict[str, Reward]:
        """The parts whose loss is of the policy's own batches."""
        return {name: reward for name, reward in self._rewards.items() if not reward.teaches()}

    def observe(self, c: Completions, scores: Scores) -> None:
        for name, reward in self._rewards.items():
            if name in scores.parts:
                reward.observe(c, _of(name, scores))

    def after_rollout(self, scores: Scores) -> None:
        for name, reward in self._rewards.items():
            if name in scores.parts:
                reward.after_rollout(_of(name, scores))

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, reward in self._rewards.items() if (state := reward.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, own in state.items():
            self._rewards[name].load_state_dict(own)


def _factor(key: str, part: Any) -> float:
    weight = part.get("weight", 1.0) if isinstance(part, Mapping) else None
    if not isinstance(weight, int | float) or "kind" not in part:
        raise UserError(f"{key}={part}: must be {{kind: NAME, weight: NUMBER, and that reward's own fields}}")
    return float(weight)


def _of(name: str, scores: Scores) -> Scores:
    """A part's share of the scores of all."""
    inner = {key.removeprefix(f"{name}/"): x for key, x in scores.parts.items() if key.startswith(f"{name}/")}
    return Scores(total=scores.parts[name], parts=inner, valid=scores.valid)


def _under(name: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{inner}": value for inner, value in values.items()}
