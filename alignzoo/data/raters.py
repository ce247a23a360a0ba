"""Rows that several people labelled, settled: one row for each pair, completion or ranking, by majority or mean.

A row may hold all votes on it in `votes`, with the names of who cast them in `raters`; or there may be a row for each rater,
whose name is in `rater`. Votes on a pair are 1 for the chosen, 0 for the rejected, 0.5 for a tie; votes on a completion are
labels or ratings; votes on a ranking are lists of ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from itertools import combinations
from typing import Any

from alignzoo.data.rows import Row, Text, whole
from alignzoo.errors import UserError
from alignzoo.statistics.agreement import Level, Unit, agreement

PAIR, RATED, RANKED = ("prompt", "chosen", "rejected"), ("prompt", "completion"), ("prompt", "completions")
VOTING = ("rater", "raters", "votes")
MOST = 20  # rows that one vote may become


class Votes(Enum):
    """What becomes of several votes on the same."""

    majority = "majority"  # what most say, of ratings the mean; a tie is dropped and counted
    shares = "shares"  # each side as often as it has votes: label smoothing by the share that disagrees


@dataclass
class Vote:
    """Everything that was said of one thing, in terms of its first `row`."""

    row: Row
    shape: tuple[str, ...]
    ballots: dict[str, Any] = field(default_factory=dict)
    margins: list[float] = field(default_factory=list)  # of pairs: above 0 where the row's chosen is the better


def settled(rows: list[Row], how: Votes) -> tuple[list[Row], dict[str, Any]]:
    """The rows with their votes settled, and what to report of them; rows that nobody voted on stay as they are.

    Raises UserError where every vote is tied."""
    if not any(name in row.values for row in rows for name in VOTING):
        return rows, {}
    votes, others = collected(rows)
    binary = _binary(votes)
    made = [(vote, _settled(vote, how, binary)) for vote in votes]
    tied = sum(not kept for _, kept in made)
    found = {"raters": reported(votes) | ({"ties_dropped": tied} if tied else {})}
    kept = [row for _, several in made for row in several] + others
    if not kept:
        raise UserError(
            f"{rows[0].where.rsplit(',', 1)[0]}: all votes are tied: nothing to learn; more raters, or data.votes=shares"
        )
    return kept, found


def collected(rows: Sequence[Row]) -> tuple[list[Vote], list[Row]]:
    """The votes by what they are on, in the order in which it first came; and rows that hold nothing to vote on."""
    votes: dict[str, Vote] = {}
    others = []
    for row in rows:
        shape = next((shape for shape in (PAIR, RANKED, RATED) if all(name in row.values for name in shape)), None)
        if shape is None or (shape is not PAIR and _verdict(shape) not in row.values and "votes" not in row.values):
            others.append(_plain(row, {}))
            continue
        vote = votes.setdefault(_key(row, shape), Vote(row, shape))
        for rater, ballot in _ballots(row, shape):
            vote.ballots[rater or f"row {len(vote.ballots)}"] = _as_in(vote.row, row, shape, ballot)
        if "margin" in row.values:
            vote.margins.append(float(row["margin"]) * (1 if row["chosen"] == vote.row["chosen"] else -1))
    return list(votes.values()), others


def reported(votes: Sequence[Vote]) -> dict[str, Any]:
    """How many rated how much, and how far they agree."""
    names = {rater for vote in votes for rater in vote.ballots}
    counts = {
        "names": sorted(names),
        "votes": sum(len(vote.ballots) for vote in votes),
        "rated": len(votes),
        "rated_by_several": sum(len(vote.ballots) > 1 for vote in votes),
    }
    return counts | agreement(*compared(votes))


def compared(votes: Sequence[Vote]) -> tuple[list[Unit], Level]:
    """What raters are compared on: labels as they are; of pairs and rankings, which of each two is preferred.

    The first of two is then the one whose hash is lower: were it the chosen one, chance would seem to agree with everybody.
    """
    if any(vote.shape is RATED for vote in votes):
        level = Level.nominal if _binary(votes) else Level.interval
        return [{rater: float(said) for rater, said in vote.ballots.items()} for vote in votes if vote.shape is RATED], level
    found: list[Unit] = []
    for vote in votes:
        for (one, other), unit in zip(combinations(_texts(vote), 2), preferences(vote), strict=True):
            sign = 1 if _hash([vote.row["prompt"], one]) < _hash([vote.row["prompt"], other]) else -1
            found.append({rater: sign * said for rater, said in unit.items()})
    return found, Level.nominal


def preferences(vote: Vote) -> Iterator[Unit]:
    """Of each two completions: 1 for who prefers the first, -1 for the second, 0 for a tie."""
    if vote.shape is PAIR:
        yield {rater: _sign(said - 0.5) for rater, said in vote.ballots.items()}
    else:
        for i, j in combinations(range(len(_texts(vote))), 2):
            yield {rater: _sign(ranks[j] - ranks[i]) for rater, ranks in vote.ballots.items()}


def _texts(vote: Vote) -> list[Text]:
    return list(vote.row["completions"]) if vote.shape is RANKED else [vote.row["chosen"], vote.row["rejected"]]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _binary(votes: Sequence[Vote]) -> bool:
    """Whether all labels are yes or no."""
    return all(said in (0, 1) for vote in votes if vote.shape is RATED for said in vote.ballots.values())


def _settled(vote: Vote, how: Votes, binary: bool) -> list[Row]:
    """The rows that come of a vote: one, or with shares as many as votes need, or none where it is tied."""
    said = list(vote.ballots.values())
    if vote.shape is RANKED:
        return _rankings(vote, said, how)
    if vote.shape is RATED and not binary:
        return [_plain(vote.row, {"label": sum(map(float, said)) / len(said)})]
    for_it = Fraction(sum(map(float, said)) / len(said)).limit_denominator(MOST)
    if how is Votes.shares:
        sides = [True] * for_it.numerator + [False] * (for_it.denominator - for_it.numerator)
    else:
        lead = sum(_sign(float(ballot) - 0.5) for ballot in said)
        sides = [lead > 0] if lead else []
    return [_sided(vote, side) for side in sides]


def _rankings(vote: Vote, said: Sequence[Sequence[float]], how: Votes) -> list[Row]:
    """By mean rank (Borda); with shares, every ranking."""
    several = said if how is Votes.shares else [[sum(ranks) / len(said) for ranks in zip(*said, strict=True)]]
    return [_plain(vote.row, {"ranks": list(ranks)}) for ranks in several if len(set(ranks)) > 1]


def _sided(vote: Vote, side: bool) -> Row:
    """The row with the label of that side."""
    if vote.shape is RATED:
        return _plain(vote.row, {"label": int(side)})
    chosen, rejected = vote.row["chosen"], vote.row["rejected"]
    values: dict[str, Any] = {"chosen": chosen, "rejected": rejected} if side else {"chosen": rejected, "rejected": chosen}
    if vote.margins:
        values["margin"] = (1 if side else -1) * sum(vote.margins) / len(vote.margins)
    return _plain(vote.row, values)


def _plain(row: Row, values: dict[str, Any]) -> Row:
    """With these values in place of the votes."""
    kept = {name: value for name, value in row.values.items() if name not in VOTING}
    return replace(row, values=kept | values, columns={**row.columns, **values})


def _ballots(row: Row, shape: tuple[str, ...]) -> list[tuple[str | None, Any]]:
    """(rater, ballot) of one row; None: nobody is named."""
    if "votes" not in row.values:
        own, name = 1.0 if shape is PAIR else row[_verdict(shape)], row.values.get("rater")
        return [(None if name is None else str(name), own)]
    votes = row["votes"]
    names = row.values.get("raters") or [f"rater {place}" for place in range(1, len(votes) + 1)]
    return [(str(name), vote) for name, vote in zip(names, votes, strict=True) if vote is not None]


def _as_in(first: Row, row: Row, shape: tuple[str, ...], ballot: Any) -> Any:
    """A ballot of `row` in terms of `first`, which may hold the same completions in another order."""
    if shape is PAIR:
        return ballot if row["chosen"] == first["chosen"] else 1 - ballot
    if shape is RANKED:
        places = [row["completions"].index(completion) for completion in first["completions"]]
        return [ballot[place] for place in places]
    return ballot


def _key(row: Row, shape: tuple[str, ...]) -> str:
    texts = row["completions"] if shape is RANKED else [row[name] for name in shape[1:]]
    listed = texts if shape is RATED else sorted(texts, key=lambda text: json.dumps(text, sort_keys=True))
    return json.dumps([shape, whole(row["prompt"]), listed], sort_keys=True, default=str)


def _verdict(shape: tuple[str, ...]) -> str:
    return "ranks" if shape is RANKED else "label"


def _sign(number: float) -> float:
    return float((number > 0) - (number < 0))
