"""What one program is to do, as a file between processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import OURS, SIDES, WARM_UP
from benchmarks.speed import job
from benchmarks.speed.kinds import KINDS, Kind


@dataclass(frozen=True, kw_only=True)
class Job(job.Job):
    """`about` goes into every line. `rollouts`: a file of what alignzoo samples while it warms up, which TRL is given then."""

    side: str
    batch: int
    precision: str
    rollouts: str
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return replace(KINDS[self.algorithm], batch=self.batch, model="model")

    def ours(self) -> list[str]:
        """Overrides of alignzoo's run."""
        precision = {"autocast": ["trainer.bf16=true"], "bfloat16": ["model.dtype=bfloat16"]}.get(self.precision, [])
        return [*self.kind.overrides(Path(self.folder), self.steps, self.new_tokens), *precision]

    def theirs(self, cuda: bool) -> dict[str, Any]:
        """What the config of TRL's trainer says beside what `benchmarks.speed.theirs` has it say."""
        weights = "bfloat16" if self.precision == "bfloat16" else "float32"
        settings = {"use_cpu": not cuda, "bf16": self.precision == "autocast", "model_init_kwargs": {"dtype": weights}}
        return settings | SIDES[self.side]

    def settings(self, cuda: bool) -> Any:
        return self.ours() if self.side == OURS else self.theirs(cuda)

    @property
    def replayed(self) -> int:
        """Steps whose completions TRL is given."""
        return WARM_UP if self.kind.samples else 0
