"""What the policies wrote for the same prompts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.evaluation.results import Run, lines

PROMPTS = 6
LONGEST = 400  # characters shown of a prompt or completion


@dataclass(frozen=True)
class Sample:
    """A prompt, and by label what was written for it and its reward."""

    prompt: str
    answers: list[tuple[str, str, float | None]]


def side_by_side(runs: Sequence[Run], prompts: int = PROMPTS) -> tuple[int | None, list[Sample]]:
    """The lowest seed that all labels have, and the first prompts that all of its runs have answered at their end."""
    labels = sorted({run.label for run in runs})
    common = set.intersection(*({run.seed for run in runs if run.label == label} for label in labels))
    if not common:
        return None, []
    chosen = [run for run in runs if run.seed == min(common)]
    answers = {run.label: _last(run) for run in chosen}
    shared = [prompt for prompt in answers[labels[0]] if all(prompt in found for found in answers.values())]
    return min(common), [
        Sample(
            _cut(prompt),
            [(label, _cut(row["completion"]), row.get("reward")) for label in labels for row in [answers[label][prompt]]],
        )
        for prompt in shared[:prompts]
    ]


def _last(run: Run) -> dict[str, dict[str, Any]]:
    """{prompt: row} of the last evaluation."""
    rows = lines(run.folder / "completions.jsonl")
    last = max((row["step"] for row in rows), default=0)
    return {row["prompt"]: row for row in rows if row["step"] == last}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
