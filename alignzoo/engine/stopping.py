"""Ending a run early, on a metric of evaluation, with the weights that were best."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.errors import UserError, nearest
from alignzoo.settings import Better, EarlyStop

KEPT = ("step", "since", "reason", "metrics", "weights")
LOWER = ("perplexity", "kl", "loss", "log_loss", "repetition", "calibration_error")  # better, where `mode` leaves it open


class Stopping:
    """Looks at each evaluation, and keeps the weights of the best one: of the last one within the limit, where there is no
    patience. `reason` says why the run should end."""

    def __init__(self, settings: EarlyStop) -> None:
        self.settings = settings
        self.metric = (settings.metric or "").removeprefix("eval/")
        lower = self.metric.split("/")[0] in LOWER if settings.mode is Better.auto else settings.mode is Better.min
        self.sign = -1.0 if lower else 1.0
        self.step, self.since, self.reason = -1, 0, ""
        self.metrics: dict[str, float] = {}  # of the evaluation whose weights are kept
        self.weights: dict[str, Tensor] = {}

    @property
    def active(self) -> bool:
        return bool(self.metric)

    def look(self, step: int, found: Mapping[str, float], module: nn.Module) -> bool:
        """Whether the run should end, as evaluation `found` (eval/NAME) after `step` has it. Raises UserError for a metric that
        the run doesn't have, and for a limit that was passed before training."""
        if not self.active or self.reason:
            return bool(self.reason)
        value = self._value(found)
        if self._passed(value):
            if self.step < 0:
                raise UserError(
                    f"early_stop.limit={self.settings.limit:g} is passed at step {step} already: {self._said(value)}"
                )
            self.reason = f"{self._said(value)} passed the limit of {self.settings.limit:g}"
            return True
        best = self.metrics.get(f"eval/{self.metric}")
        if best is None or not self.settings.patience or self.sign * (value - best) > 0:
            self.step, self.since, self.metrics = step, 0, dict(found)
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

    def tell(self) -> dict[str, Any]:
        """What summary.json says of it."""
        said = {"metric": self.metric, "reason": self.reason or None, "weights_of_step": self.step}
        return said | {"value": self.metrics.get(f"eval/{self.metric}")}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in KEPT} if self.active else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in state:
            setattr(self, name, state[name])

    def _value(self, found: Mapping[str, float]) -> float:
        names = [name.removeprefix("eval/") for name in found]
        if f"eval/{self.metric}" not in found:
            raise UserError(
                f"early_stop.metric={self.settings.metric}: evaluation has no such metric.{nearest(self.metric, names)} "
                f"There are {', '.join(sorted(names))}"
            )
        value = found[f"eval/{self.metric}"]
        if not math.isfinite(value):
            raise UserError(f"early_stop.metric={self.settings.metric} is {value}: it can't say when to stop")
        return value

    def _passed(self, value: float) -> bool:
        return self.settings.limit is not None and self.sign * (value - self.settings.limit) < 0

    def _said(self, value: float) -> str:
        return f"{self.metric} {value:.4g}"


def announce(stopping: Stopping, step: int) -> None:
    """On the terminal, when it happens."""
    kept = f"the weights are those of step {stopping.step}"
    print(f"alignzoo: stopped at step {step}: {stopping.reason}; {kept}", file=sys.stderr, flush=True)


def _learnt(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
