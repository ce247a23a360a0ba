"""`alignzoo label --stats`: who said how much, how far the raters agree, and whose completions they prefer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from rich.console import Console

from alignzoo.common.console import table
from alignzoo.common.folder import objects
from alignzoo.data.raters import RATINGS, Vote, collected, compared, preferences, reported
from alignzoo.data.rows import Row, canonical
from alignzoo.errors import UserError, printable
from alignzoo.statistics.agreement import agreement

Table = tuple[list[str], list[list[str]]]  # a head, or none, and rows


def show(paths: Sequence[Path]) -> None:
    """Print tables. Raises UserError where the files hold no labels."""
    rows = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file: give what alignzoo label made")
        for number, line in objects(path):
            if line is None:
                raise UserError(f"{path}, line {number}: not a JSON object")
            rows.append(canonical(line, f"{path}, line {number}", {}))
    shown = tables(rows)
    if not shown:
        raise UserError(
            f"{', '.join(map(str, paths))}: no labels: give what alignzoo label made, or rows with votes or a rater"
        )
    for head, cells in shown:
        rich_table = table(*(head or [""] * len(cells[0])), show_header=bool(head))
        for row in cells:
            rich_table.add_row(*map(printable, row))
        Console().print(rich_table)


def tables(rows: Sequence[Row]) -> list[Table]:
    """What there is to say of these rows; nothing where nobody voted on any."""
    votes, _ = collected(rows)
    if not votes:
        return []
    facts = reported(votes)
    units, level = compared(votes)
    by_two: list[list[object]] = []
    for pair in combinations(facts["names"], 2) if len(facts["names"]) > 2 else ():
        both = [{name: unit[name] for name in pair} for unit in units if all(name in unit for name in pair)]
        if both:
            measures = agreement(both, level)
            by_two.append([*pair, len(both), measures.get("raw_agreement"), measures.get("cohens_kappa")])
    every: list[tuple[list[str], Sequence[Sequence[object]]]] = [
        ([], [[name.replace("_", " "), value] for name, value in facts.items()]),
        (["rater", "rater", "both", "raw agreement", "Cohen's kappa"], by_two),
        (["written by", "over", "votes", "preferred", "tied"], _preferred(votes)),
        (["written by", "votes", "mean rating"], _rated(votes)),
    ]
    return [(head, [list(map(_text, row)) for row in cells]) for head, cells in every if cells]


def _preferred(votes: Sequence[Vote]) -> list[list[object]]:
    """For each two writers, how often the first of them was preferred."""
    signs: dict[tuple[str, str], list[float]] = defaultdict(list)  # 1 where the first is preferred, 0 for a tie, else -1
    for vote in votes:
        writers = vote.row.columns.get("written_by") or []
        if vote.kind == RATINGS or not writers:
            continue
        for (a, b), unit in zip(combinations(writers, 2), preferences(vote), strict=True):
            if a != b:
                signs[min(a, b), max(a, b)] += [sign if a < b else -sign for sign in unit.values()]
    return [
        [*pair, len(duels), f"{sum(sign > 0 for sign in duels) / len(duels):.0%}", f"{duels.count(0) / len(duels):.0%}"]
        for pair, duels in sorted(signs.items())
    ]


def _rated(votes: Sequence[Vote]) -> list[list[object]]:
    """The mean rating of each writer."""
    ratings: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        if vote.kind == RATINGS and (writers := vote.row.columns.get("written_by")):
            ratings[writers[0]] += map(float, vote.ballots.values())
    return [[name, len(several), f"{sum(several) / len(several):.3g}"] for name, several in sorted(ratings.items())]


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
