"""Ending a run early, on a metric of evaluation, with the weights that were best."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alignzoo.common.metric_table import lower_is_better
from alignzoo.errors import UserError, nearest
from alignzoo.settings import Better, EarlyStop

KEPT = ("step", "since", "reason", "metrics", "weights")


class Stopping:
    """Looks at each evaluation, and keeps the weights of the best one: of the last one within the limit, where there is no
    patience. `reason` says why the run should end."""

    def __init__(self, settings: EarlyStop) -> None:
        self.settings = settings
        self.metric = (settings.metric or "").removeprefix("eval/")
        lower = lower_is_better(self.metric) if settings.mode is Better.auto else settings.mode is Better.min
        self.sign = -1.0 if lower else 1.0
        self.step, self.since, self.reason = -1, 0, ""
        self.metrics: dict[str, float] = {}  # of the evaluation whose weights are kept
        self.weights: dict[str, Tensor] = {}

    @property
    def active(self) -> bool:
        return bool(self.metric)

    def look(self, step: int, metrics: Mapping[str, float], module: nn.Module) -> bool:
        """Whether the run should end, as the metrics of evaluation (eval/NAME) after `step` have it. Raises UserError for a
        metric that the run doesn't have, and for a limit that was passed before training."""
        if not self.active or self.reason:
            return bool(self.reason)
        value, limit = self._value(metrics), self.settings.limit
        if limit is not None and self.sign * (value - limit) < 0:
            if self.step < 0:
                raise UserError(f"early_stop.limit={limit:g} is passed at step {step} already: {self.metric} {value:.4g}")
            self.reason = f"{self.metric} {value:.4g} passed the limit of {limit:g}"
            return True
        best = self.metrics.get(f"eval/{self.metric}")
        if best is None or not self.settings.patience or self.sign * (value - best) > 0:
            self.step, self.since, self.metrics = step, 0, dict(metrics)
            self.weights = {name: p.detach().cpu().clone() for name, p in _learnt(module).items()}
        else:
            self.since += 1
        if self.settings.patience and self.since >= self.settings.patience:
            times = "evaluation" if self.since == 1 else f"{self.since} evaluations"
            self.reason = f"{self.metric} was not better than {best:.4g} for {times}"
        return bool(self.reason)

    def restore(self, module: nn.Module) -> None:
        """Give the module the weights that were kept."""
        with torch.no_grad():
            for name, p in _learnt(module).items():
                p.copy_(self.weights[name])

    def tell(self) -> dict[str, object]:
        """What summary.json says of it."""
        return {
            "metric": self.metric, "reason": self.reason or None, "weights_of_step": self.step,
            "value": self.metrics.get(f"eval/{self.metric}"),
        }  # fmt: skip

    def state_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in KEPT} if self.active else {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        vars(self).update(state)

    def _value(self, metrics: Mapping[str, float]) -> float:
        names = [name.removeprefix("eval/") for name in metrics]
        if self.metric not in names:
            raise UserError(
                f"early_stop.metric={self.settings.metric}: evaluation has no such metric.{nearest(self.metric, names)} "
                f"There are {', '.join(sorted(names))}"
            )
        value = metrics[f"eval/{self.metric}"]
        if not math.isfinite(value):
            raise UserError(f"early_stop.metric={self.settings.metric} is {value}: it can't say when to stop")
        return value


def _learnt(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
