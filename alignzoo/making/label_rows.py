"""Labels as rows of the data set types: for a run's tables with the tokens that were sampled, for a file with the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.batch import Batch, Completions, Pairs, Rankings, Rated, Triples
from alignzoo.data.encode import Tokens, TokenText
from alignzoo.data.rows import CANONICAL, Row
from alignzoo.data.views import RECIPES
from alignzoo.making.labels import Label
from alignzoo.settings import Made

COLUMNS = {
    Made.pairs: ("prompt", "chosen", "rejected"),
    Made.ratings: ("prompt", "completion", "label"),
    Made.rankings: ("prompt", "completions", "ranks"),
    Made.demonstrations: ("prompt", "completion"),
}
KIND_OF: dict[type[Batch], Made] = {
    Pairs: Made.pairs, Triples: Made.rankings, Rated: Made.ratings, Rankings: Made.rankings, Completions: Made.demonstrations,
}  # fmt: skip


def gives(kind: Made, view: type[Batch]) -> bool:
    """Whether rows of this kind have the view, or it can be derived from them; of a plugin's own view, its `collate` knows."""
    recipes = RECIPES.get(view)
    return recipes is None or any(recipe.fits(set(COLUMNS[kind])) for recipe in recipes)


def row(label: Label, prompt: Row, own_tokens: bool) -> Row:
    """The label as a row of the source that the prompt is of; `own_tokens`: made into tokens anew, for another vocabulary."""
    texts = [
        s.text if own_tokens else TokenText.of(s.text, Tokens(s.ids, [True] * len(s.ids), s.truncated)) for s in label.samples
    ]
    values = {"prompt": prompt["prompt"], **_values(label, texts)}
    columns = {**prompt.remaining, **values}
    return Row(where=f"draw {label.draw.number} of {prompt.where}", values=values, columns=columns, remaining=prompt.remaining)


def line(label: Label, prompt: Row, raters: int) -> dict[str, Any]:
    """The label as a row of a file, with the scores it comes from."""
    text = prompt["prompt"]
    chat = not isinstance(text, str)
    texts = [[{"role": "assistant", "content": s.text}] if chat else s.text for s in label.samples]
    values = {"prompt": text if chat else str(text), **_values(label, texts)}
    more = {name: value for name, value in prompt.remaining.items() if name not in CANONICAL}
    return {**values, **_scores(label), **({"rater": rater(label)} if raters > 1 else {}), "draw": label.draw.number, **more}


def rater(label: Label) -> str:
    return f"rater {label.rater + 1}"


def _values(label: Label, texts: Sequence[object]) -> dict[str, object]:
    if len(texts) == 2 and not label.marks:
        return {"chosen": texts[0], "rejected": texts[1]}
    if len(texts) == 1:
        return {"completion": texts[0], **({"label": label.marks[0]} if label.marks else {})}
    return {"completions": texts, "ranks": label.marks}


def _scores(label: Label) -> dict[str, object]:
    scores = [sample.score for sample in label.samples]
    if len(scores) == 2 and not label.marks:
        return {"score_chosen": scores[0], "score_rejected": scores[1]}
    return {"score": scores[0]} if len(scores) == 1 else {"scores": scores}
