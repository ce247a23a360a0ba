"""Labels as rows of the data set types: for a run's tables with the tokens that were sampled, for a file with the scores."""

from __future__ import annotations

from typing import Any

from alignzoo.batch import Batch, Completions, Pairs, Rankings, Rated
from alignzoo.data.encode import Tokens, Written
from alignzoo.data.rows import CANONICAL, Row
from alignzoo.data.views import RECIPES
from alignzoo.making.labels import Label
from alignzoo.making.samples import Sample
from alignzoo.settings import Made

COLUMNS = {
    Made.pairs: ("prompt", "chosen", "rejected"),
    Made.ratings: ("prompt", "completion", "label"),
    Made.rankings: ("prompt", "completions", "ranks"),
    Made.demonstrations: ("prompt", "completion"),
}
GIVEN: dict[type[Batch], Made] = {
    Pairs: Made.pairs, Rated: Made.ratings, Rankings: Made.rankings, Completions: Made.demonstrations,
}  # fmt: skip


def gives(kind: Made, view: type[Batch]) -> bool:
    """Whether rows of this kind have the view, or it can be derived from them; of a plugin's own view, its `collate` knows."""
    recipes = RECIPES.get(view)
    return recipes is None or any(recipe.fits(set(COLUMNS[kind])) for recipe in recipes)


def row(label: Label, prompt: Row, own_tokens: bool) -> Row:
    """The label as a row of the source that the prompt is of; `own_tokens`: made into tokens anew, for another vocabulary."""
    texts = [sample.text if own_tokens else _written(sample) for sample in label.samples]
    values = {"prompt": prompt["prompt"], **_values(label, texts)}
    return Row(
        where=f"draw {label.draw.number} of {prompt.where}",
        values=values,
        columns={**prompt.remaining, **values},
        remaining=prompt.remaining,
    )


def line(label: Label, prompt: Row, raters: int) -> dict[str, Any]:
    """The label as a row of a file, with the scores it comes from."""
    given = prompt["prompt"]
    chat = not isinstance(given, str)
    texts = [[{"role": "assistant", "content": s.text}] if chat else s.text for s in label.samples]
    values = {"prompt": given if chat else str(given), **_values(label, texts)}
    others = {name: value for name, value in prompt.remaining.items() if name not in CANONICAL}
    return {**values, **_scores(label), **({"rater": rater(label)} if raters > 1 else {}), "draw": label.draw.number, **others}


def rater(label: Label) -> str:
    return f"rater {label.rater + 1}"


def _values(label: Label, texts: list[Any]) -> dict[str, Any]:
    if len(texts) == 2 and not label.marks:
        return {"chosen": texts[0], "rejected": texts[1]}
    if len(texts) == 1:
        return {"completion": texts[0], **({"label": label.marks[0]} if label.marks else {})}
    return {"completions": texts, "ranks": label.marks}


def _scores(label: Label) -> dict[str, Any]:
    scores = [sample.score for sample in label.samples]
    if len(scores) == 2 and not label.marks:
        return {"score_chosen": scores[0], "score_rejected": scores[1]}
    return {"score": scores[0]} if len(scores) == 1 else {"scores": scores}


def _written(sample: Sample) -> Written:
    return Written.of(sample.text, Tokens(sample.ids, [True] * len(sample.ids), sample.truncated))
