"""`alignzoo label --stats`: who said how much, how far the raters agree, and whose completions they prefer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alignzoo.common.folder import objects
from alignzoo.data.raters import RATED, Vote, collected, compared, preferences, reported
from alignzoo.data.rows import canonical
from alignzoo.errors import UserError, printable
from alignzoo.statistics.agreement import agreement


def show(paths: Sequence[Path], console: Console | None = None) -> None:
    """Print tables. Raises UserError where the files hold no labels."""
    console = console or Console()
    votes = _votes(paths)
    facts = reported(votes)
    console.print(_table(["", ""], [[name.replace("_", " "), _text(value)] for name, value in facts.items()]))
    units, level = compared(votes)
    raters, rows = facts["names"], []
    for one, other in combinations(raters, 2):
        both = [{name: unit[name] for name in (one, other)} for unit in units if one in unit and other in unit]
        if both:
            found = agreement(both, level)
            rows.append([one, other, str(len(both)), *(_text(found.get(name)) for name in ("raw_agreement", "cohens_kappa"))])
    if len(raters) > 2 and rows:
        console.print(_table(["rater", "rater", "both", "raw agreement", "Cohen's kappa"], rows))
    if won := _won(votes):
        console.print(_table(["written by", "over", "votes", "preferred", "tied"], won))
    if rated := _rated(votes):
        console.print(_table(["written by", "votes", "mean rating"], rated))


def _votes(paths: Sequence[Path]) -> list[Vote]:
    rows = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file: give what alignzoo label made")
        for number, line in objects(path):
            if line is None:
                raise UserError(f"{path}, line {number}: not a JSON object")
            rows.append(canonical(line, f"{path}, line {number}", {}))
    votes, _ = collected(rows)
    if not votes:
        raise UserError(
            f"{', '.join(map(str, paths))}: no labels: give what alignzoo label made, or rows with votes or a rater"
        )
    return votes


def _won(votes: Sequence[Vote]) -> list[list[str]]:
    """For each two writers, how often the first of them was preferred."""
    won, tied, total = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for one, other, preferred in _duels(votes):
        pair, sign = ((one, other), preferred) if one <= other else ((other, one), -preferred)
        total[pair] += 1
        won[pair] += sign > 0
        tied[pair] += sign == 0
    return [[*pair, str(n), f"{won[pair] / n:.0%}", f"{tied[pair] / n:.0%}"] for pair, n in sorted(total.items())]


def _duels(votes: Sequence[Vote]) -> Iterator[tuple[str, str, float]]:
    """(writer, writer, 1 where the first is preferred, -1 where the second, 0 for a tie) of each vote."""
    for vote in votes:
        writers = vote.row.columns.get("written_by") or []
        if vote.shape is RATED or not writers:
            continue
        for (one, other), unit in zip(combinations(writers, 2), preferences(vote), strict=True):
            yield from ((one, other, said) for said in unit.values() if one != other)


def _rated(votes: Sequence[Vote]) -> list[list[str]]:
    """The mean rating of each writer."""
    found: dict[str, list[float]] = {}
    for vote in votes:
        if vote.shape is RATED and (writers := vote.row.columns.get("written_by")):
            found.setdefault(writers[0], []).extend(map(float, vote.ballots.values()))
    return [[name, str(len(said)), f"{sum(said) / len(said):.3g}"] for name, said in sorted(found.items())]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*head, box=None, pad_edge=False, header_style="bold", show_header=any(head))
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
