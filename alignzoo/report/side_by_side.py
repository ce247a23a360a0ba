"""What the policies wrote for the same prompts, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignzoo.runs.results import Run

PROMPTS = 6
LONGEST = 400  # characters shown of a prompt or completion


@dataclass(frozen=True)
class PromptAnswers:
    """A prompt, and by label what was written for it and how that was scored."""

    prompt: str
    answers: list[tuple[str, str, str]]


def side_by_side(runs: Sequence[Run], prompts: int = PROMPTS) -> tuple[int | None, list[PromptAnswers]]:
    """The lowest seed that all labels have, and the first prompts that all of its runs have answered at their end; before them
    what the reference wrote, where all have the same."""
    labels = sorted({run.label for run in runs})
    common = set.intersection(*({run.seed for run in runs if run.label == label} for label in labels))
    if not common:
        return None, []
    by_label = {run.label: {row["prompt"]: row for row in run.written} for run in runs if run.seed == min(common)}
    shared = [prompt for prompt in by_label[labels[0]] if all(prompt in answers for answers in by_label.values())]
    return min(common), [_answers(prompt, {label: by_label[label][prompt] for label in labels}) for prompt in shared[:prompts]]


def _answers(prompt: str, rows: Mapping[str, Mapping[str, object]]) -> PromptAnswers:
    answers = [(label, _cut(row["completion"]), _scores(row, "")) for label, row in rows.items()]
    references = {(row.get("reference"), _scores(row, "reference_")) for row in rows.values()}
    text, scores = references.pop()
    if text is not None and not references:  # all have the same
        answers.insert(0, ("reference", _cut(text), scores))
    return PromptAnswers(_cut(prompt), answers)


def _scores(row: Mapping[str, object], prefix: str) -> str:
    """Such as "0.5", or where it was judged as well, "reward 0.5, gold 0.25"; what the reference has may be the gold alone."""
    scores = {name: row.get(prefix + name) for name in ("reward", "gold")}
    texts = [f"{name} {score:.3g}" for name, score in scores.items() if isinstance(score, int | float)]
    return ", ".join(texts) if row.get("gold") is not None else "".join(texts).removeprefix("reward ")


def _cut(text: object) -> str:
    return str(text) if len(str(text)) <= LONGEST else str(text)[:LONGEST] + " …"
