"""From rows with canonical columns to what an algorithm asks for: given, derived, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.data.formats import OTHER_NAMES
from alignzoo.data.messages import is_conversation
from alignzoo.data.rows import Row, Text
from alignzoo.errors import UserError


@dataclass(frozen=True)
class Example:
    """A prompt with the completions a view puts together, and a number for each: the rating or rank; or a pair's margin."""

    row: Row
    completions: list[Text] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)

    @property
    def prompt(self) -> Text:
        prompt: Text = self.row["prompt"]
        return prompt


@dataclass(frozen=True)
class Recipe:
    """How a view is had from the columns in `needs`, unless a column `unless` gives them another meaning; `name` if derived;
    `single` where each row is one example."""

    needs: tuple[str, ...]
    make: Callable[[Row], Iterable[Example]]
    name: str = ""
    unless: str = ""
    single: bool = True

    def fits(self, available: set[str]) -> bool:
        return available.issuperset(self.needs) and self.unless not in available


def _of(*columns: str, mark: str = "") -> Callable[[Row], list[Example]]:
    """Completions as these columns have them, with the number in another."""
    return lambda row: [Example(row, [row[name] for name in columns], [float(row[mark])] if mark else [])]


def _ranked(row: Row) -> list[tuple[float, Text]]:
    """Completions with ranks 0, 1, 2 ..., best first; equal ranks stay equal."""
    levels = sorted(set(row["ranks"]))
    pairs = zip(row["ranks"], row["completions"], strict=True)
    return sorted(((float(levels.index(rank)), completion) for rank, completion in pairs), key=lambda pair: pair[0])


def _desirable(row: Row) -> list[Example]:
    return [Example(row, [row["completion"]])] if row["label"] > 0 else []


def _best(row: Row) -> list[Example]:
    return [Example(row, [completion]) for rank, completion in _ranked(row) if rank == 0]


def _pairs_of_ranking(row: Row) -> list[Example]:
    return [Example(row, [a, b]) for (first, a), (second, b) in combinations(_ranked(row), 2) if first < second and a != b]


def _triple_of_ranking(row: Row) -> list[Example]:
    """The second and the last are compared, or, where they are equally good, the best and the last."""
    ranked = _ranked(row)
    better = ranked[0] if len(ranked) < 3 or ranked[1][0] == ranked[-1][0] else ranked[1]
    (_, best), (highest, chosen), (lowest, rejected) = ranked[0], better, ranked[-1]
    return [Example(row, [chosen, rejected, best])] if highest < lowest and chosen != rejected else []


def _rated_pair(row: Row) -> list[Example]:
    return [Example(row, [row["chosen"]], [1.0]), Example(row, [row["rejected"]], [0.0])]


def _ranking(row: Row) -> list[Example]:
    ranked = _ranked(row)
    return [Example(row, [completion for _, completion in ranked], [rank for rank, _ in ranked])]


def _ranked_pair(row: Row) -> list[Example]:
    return [Example(row, [row["chosen"], row["rejected"]], [0.0, 1.0])]


PAIR = ("prompt", "chosen", "rejected")
RANKING = ("prompt", "completions", "ranks")
RATED = ("prompt", "completion", "label")

RECIPES: dict[type[Batch], list[Recipe]] = {
    Prompts: [Recipe(("prompt",), _of())],
    Completions: [
        Recipe(("prompt", "completion"), _of("completion"), unless="label"),
        Recipe(RATED, _desirable, "demonstrations of the completions with a label above 0", single=False),
        Recipe(PAIR, _of("chosen"), "demonstrations of the chosen"),
        Recipe(RANKING, _best, "demonstrations of the best ranked", single=False),
    ],
    Pairs: [
        Recipe(PAIR, _of("chosen", "rejected"), unless="margin"),
        Recipe((*PAIR, "margin"), _of("chosen", "rejected", mark="margin")),
        Recipe(RANKING, _pairs_of_ranking, "pairs of each two completions of different rank", single=False),
    ],
    Triples: [
        Recipe((*PAIR, "completion"), _of("chosen", "rejected", "completion")),
        Recipe(PAIR, _of("chosen", "rejected", "chosen"), "the chosen as demonstrations too"),
        Recipe(
            RANKING, _triple_of_ranking, "the best ranked as demonstration, the second chosen, the last rejected", single=False
        ),
    ],
    Rated: [
        Recipe(RATED, _of("completion", mark="label")),
        Recipe(PAIR, _rated_pair, "the chosen rated 1, the rejected 0", single=False),
    ],
    Rankings: [Recipe(RANKING, _ranking), Recipe(PAIR, _ranked_pair, "rankings of two")],
}

COMPARING = (Pairs, Triples, Rankings)
REMEDIES: dict[type[Batch], str] = {
    Prompts: "prompts",
    Completions: "demonstrations: prompt and completion, or messages, or text",
    Pairs: "pairs: prompt, chosen and rejected, or prompt, completions and ranks",
    Triples: "pairs and demonstrations: prompt, chosen, rejected and completion, or what gives pairs",
    Rated: "rated completions: prompt, completion and label, or prompt, chosen and rejected",
    Rankings: "rankings: prompt, completions and ranks, or prompt, chosen and rejected",
}


def recipe(view: type[Batch], rows: Sequence[Row]) -> Recipe:
    """How these rows become `view`. Raises UserError where their columns can't."""
    available = _columns(rows)
    if view is Prompts and not any(row.values.get("prompt") for row in rows):
        available.discard("prompt")
    if fitting := _fitting(view, available):
        return fitting
    unanswered = next((row for row in rows if conversation_column(row)), None)
    if unanswered and any(set(candidate.needs) - available == {"completion"} for candidate in RECIPES[view]):
        raise UserError(f"{no_answer(unanswered)}\nchoose other data, or an algorithm that learns from prompts")
    missing = [name for name in RECIPES[view][0].needs if name not in available]
    raise UserError(
        f"the algorithm learns from {REMEDIES[view]}; {rows[0].where} has the columns {', '.join(rows[0].columns)}\n"
        f"say which are which with data.columns, such as ++data.columns.{missing[-1]}=NAME, "
        "or choose other data or another algorithm"
    )


def conversation_column(row: Row) -> str | None:
    """The column that the row's messages are from, where they are one whole conversation."""
    names = ("messages", *OTHER_NAMES["messages"], "text")
    return next((name for name in names if row.columns.get(name) and is_conversation(row.columns[name])), None)


def no_answer(row: Row) -> str:
    return f"{row.where}: no answer of an assistant in {conversation_column(row)!r}"


def _columns(rows: Sequence[Row]) -> set[str]:
    """The columns that any of the rows has a value in."""
    return set[str]().union(*(row.values for row in rows))


def _fitting(view: type[Batch], available: set[str]) -> Recipe | None:
    return next((candidate for candidate in RECIPES[view] if candidate.fits(available)), None)


def needed(view: type[Batch], rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns that each of the rows must have a value in, going by those that any has; none where they can't be `view`."""
    available = _columns(rows)
    if fitting := view in RECIPES and _fitting(view, available):
        return fitting.needs
    return RATED if view in COMPARING and available.issuperset(RATED) else ()


def compared_within_prompts(view: type[Batch], rows: Sequence[Row]) -> bool:
    return view in COMPARING and needed(view, rows) == RATED


def together(view: type[Batch], rows: list[Row]) -> list[Row]:
    """Where the view compares completions, and the rows rate one each: a ranking of those of each prompt, by rating. Prompts
    whose completions are all rated alike are left out; rows of which none can be compared stay."""
    if not compared_within_prompts(view, rows):
        return rows
    prompts: dict[str, list[Row]] = {}
    for row in rows:
        prompts.setdefault(row.key, []).append(row)
    return [_ranked_by_rating(several) for several in prompts.values() if len({row["label"] for row in several}) > 1] or rows


def _ranked_by_rating(rows: list[Row]) -> Row:
    completions, ranks = [row["completion"] for row in rows], [-float(row["label"]) for row in rows]
    return replace(rows[0], values={"prompt": rows[0]["prompt"], "completions": completions, "ranks": ranks})


def examples(rows: Sequence[Row], chosen: Recipe) -> list[Example]:
    """Every row through the recipe. Raises UserError naming the row that lacks a column."""
    return [example for row in rows for example in chosen.make(row)]


def derived(view: type[Batch], chosen: Recipe, rows: Sequence[Row]) -> str | None:
    """A note for the report where the view is not what the rows hold: which way it was derived."""
    if view is Prompts and _columns(rows) != {"prompt"}:
        return "the prompts alone, each once"
    return chosen.name or None
