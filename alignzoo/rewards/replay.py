"""Completions of the policy that a reward goes on learning from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alignzoo.batch import Completions


@dataclass
class Replay:
    """The latest rollout, and of those before it the latest `size` completions. Tokens alone: no text, no columns."""

    size: int
    latest: Completions | None = None
    earlier: Completions | None = None

    def add(self, c: Completions) -> None:
        """A new rollout; completions of which nothing was sampled are left out."""
        kept = bare(c).take(c.counted > 0)
        if not len(kept):
            return
        if self.size and self.latest is not None:
            both = self.latest if self.earlier is None else Completions.cat([self.earlier, self.latest])
            self.earlier = both.take(range(max(0, len(both) - self.size), len(both)))
        self.latest = kept

    def draw(self, count: int, share: float, rng: np.random.Generator) -> Completions:
        """`count` completions, `share` of them earlier ones where there are any; each once, if there are enough."""
        assert self.latest is not None, "nothing was added yet"
        old = round(share * count) if self.earlier is not None else 0
        parts = [_some(self.latest, count - old, rng)]
        if old and self.earlier is not None:
            parts.append(_some(self.earlier, old, rng))
        return Completions.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self.latest, "earlier": self.earlier}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.latest, self.earlier = state["latest"], state["earlier"]


def bare(c: Completions) -> Completions:
    """Without text and columns, of which the rows of a table may have others than those of a rollout."""
    return replace(c, prompts=replace(c.prompts, columns={}, decode=None))


def _some(c: Completions, count: int, rng: np.random.Generator) -> Completions:
    rows = rng.choice(len(c), size=count, replace=count > len(c))
    return c.take(rows.tolist())
