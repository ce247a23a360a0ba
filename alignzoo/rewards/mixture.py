"""`reward=sum`: several rewards at once, with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Context, Metrics, Models, Reward, Role, Scores, Source, Terms
from alignzoo.settings import UserError, nearest


@dataclass(kw_only=True)
class WeightedSum(Reward):
    """The sum of `parts`, each {kind: a reward's name, weight: its factor, 1 if not given, and that reward's own fields}.

        reward=sum reward.parts='{good: {kind: task}, long: {kind: function, weight: 0.1, path: alignzoo.rewards.text:length}}'

    Sums may be nested. One part scored by token makes the sum so; the others then score the last token. A completion that one
    part can't score has no score. Each part is reported under its name, before weighting.
    """

    parts: dict[str, Any] = field(default_factory=dict, metadata={"help": "name: {kind, weight, and the reward's own fields}"})

    def __post_init__(self) -> None:
        self._rewards: dict[str, Reward] = {}
        self._factors = {name: _factor(f"reward.parts.{name}", part) for name, part in self.parts.items()}

    def resolve(self, source: Source) -> Reward:
        if not self.parts:
            raise UserError("reward=sum has no parts: give reward.parts='{NAME: {kind: function, path: MODULE:FUNCTION}, ...}'")
        for name, part in self.parts.items():
            resolved = _made(f"reward.parts.{name}", part).resolve(source)
            if resolved is None:
                raise UserError(f"reward.parts.{name}: there is no such reward here (kind task needs data that brings its own)")
            self._rewards[name] = resolved
        return self

    def setup(self, context: Context) -> None:
        for reward in self._rewards.values():
            reward.setup(context)

    def __call__(self, c: Completions) -> Scores:
        scored = {name: reward(c) for name, reward in self._rewards.items()}
        by_token = any(scores.total.dim() == 2 for scores in scored.values())
        total, valid, parts = torch.zeros(()), torch.ones(len(c), dtype=torch.bool), dict[str, Tensor]()
        for name, scores in scored.items():
            known = torch.ones(len(c), dtype=torch.bool) if scores.valid is None else scores.valid.cpu()
            valid = valid & known
            term = c.at_last(scores.total) if by_token else scores.total
            total = total.to(term.device) + self._factors[name] * term
            parts[name] = c.sum(scores.total) if scores.total.dim() == 2 else scores.total
            parts |= {f"{name}/{inner}": values for inner, values in scores.parts.items()}
        return Scores(total=total, parts=parts, valid=valid.to(total.device))

    # a part that learns keeps its roles, losses and state, its terms and metrics under its name

    def roles(self) -> Mapping[str, Role]:
        return {role: kind for reward in self._rewards.values() for role, kind in reward.roles().items()}

    def loss(self, models: Models, batch: Any) -> tuple[Terms, Metrics]:
        terms, metrics = dict[str, Tensor](), dict[str, Tensor]()
        for name, reward in self._rewards.items():
            own, measured = reward.loss(models, batch)
            terms |= _under(name, own if isinstance(own, dict) else {"loss": own})
            metrics |= _under(name, measured)
        return terms, metrics

    def weights(self, batch: Any) -> dict[str, Tensor]:
        weights = dict[str, Tensor]()
        for name, reward in self._rewards.items():
            weights |= _under(name, reward.weights(batch))
        return weights

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


def _made(key: str, part: Mapping[str, Any]) -> Reward:
    """The reward of a part, its fields checked as those of the config group `reward` are."""
    points = {point.name: point for point in entry_points(group="alignzoo.reward")}
    kind = str(part["kind"])
    if kind not in points:
        raise UserError(f"{key}.kind={kind}: no such reward.{nearest(kind, points)} Available: {', '.join(sorted(points))}")
    own = {name: value for name, value in part.items() if name not in ("kind", "weight")}
    try:
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(points[kind].load()), own))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {str(error).splitlines()[0]}") from error
    assert isinstance(made, Reward)
    return made


def _under(name: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{inner}": value for inner, value in values.items()}
