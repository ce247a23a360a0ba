"""What the reference writes for the prompts of evaluation, to be held beside what the policy writes."""

from __future__ import annotations

from dataclasses import dataclass, field

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Reward, Scores, learning
from alignzoo.models.roles import RoleNetworks, Score
from alignzoo.settings import Sampling


@dataclass
class ReferenceSide:
    """The reference's completion of each prompt, written once and kept with the judge's scores. They are the same after a
    restart. A judge that changes while the run goes on is asked again every time."""

    name: str  # of the judge: gold or reward
    judge: Score
    changes: bool
    sampling: Sampling
    written: dict[tuple[int, ...], Completions] = field(default_factory=dict)
    judged: dict[tuple[int, ...], Scores] = field(default_factory=dict)

    def __call__(self, models: RoleNetworks, prompts: Prompts) -> dict[str, list[object]]:
        """By name of a column in completions.jsonl, one entry a prompt; None where the judge has no score."""
        key = tuple(prompts.row.tolist())
        if key not in self.written:
            with models.shared.noise.during("evaluation", 0):
                self.written[key] = models.reference.generate(prompts, self.sampling)
        c = self.written[key]
        if self.changes or key not in self.judged:
            self.judged[key] = self.judge(c)
        return {"reference": [*c.text], f"reference_{self.name}": [*self.judged[key].numbers(c)]}


def changes(judge: Reward) -> bool:
    """Whether it may score the same completion otherwise later."""
    return bool(learning(judge).roles()) or _holds(judge.state_dict())


def _holds(state: object) -> bool:
    """Whether there is anything in a state but empty mappings."""
    return any(map(_holds, state.values())) if isinstance(state, dict) else True
