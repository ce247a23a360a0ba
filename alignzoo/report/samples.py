"""What the policies wrote for the same prompts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.common.folder import COMPLETIONS, result_step, rows
from alignzoo.runs.results import Run

PROMPTS = 6
LONGEST = 400  # characters shown of a prompt or completion


@dataclass(frozen=True)
class Sample:
    """A prompt, and by label what was written for it and how that was scored."""

    prompt: str
    answers: list[tuple[str, str, str]]


def side_by_side(runs: Sequence[Run], prompts: int = PROMPTS) -> tuple[int | None, list[Sample]]:
    """The lowest seed that all labels have, and the first prompts that all of its runs have answered at their end; before them
    what the reference wrote, where all have the same."""
    labels = sorted({run.label for run in runs})
    common = set.intersection(*({run.seed for run in runs if run.label == label} for label in labels))
    if not common:
        return None, []
    chosen = [run for run in runs if run.seed == min(common)]
    answers = {run.label: _last(run) for run in chosen}
    shared = [prompt for prompt in answers[labels[0]] if all(prompt in found for found in answers.values())]
    return min(common), [_sample(prompt, {label: answers[label][prompt] for label in labels}) for prompt in shared[:prompts]]


def _sample(prompt: str, rows: dict[str, dict[str, Any]]) -> Sample:
    answers = [(label, _cut(row["completion"]), _scores(row, "")) for label, row in rows.items()]
    written = {(row.get("reference"), _scores(row, "reference_")) for row in rows.values()}
    text, said = written.pop()
    same = not written and text is not None
    return Sample(_cut(prompt), [("reference", _cut(str(text)), said), *answers] if same else answers)


def _scores(row: dict[str, Any], prefix: str) -> str:
    """Such as "0.5", or where it was judged as well, "reward 0.5, gold 0.25"; what the reference has may be the gold alone."""
    found = {name: row.get(prefix + name) for name in ("reward", "gold")}
    said = [f"{name} {score:.3g}" for name, score in found.items() if score is not None]
    return ", ".join(said) if row.get("gold") is not None else "".join(said).removeprefix("reward ")


def _last(run: Run) -> dict[str, dict[str, Any]]:
    """{prompt: row} of what the run's result wrote."""
    written = rows(run.folder / COMPLETIONS)
    last = result_step(written, run.summary)
    return {row["prompt"]: row for row in written if row["step"] == last}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
