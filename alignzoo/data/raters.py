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
from itertools import combinations

from alignzoo.data.json_text import Report
from alignzoo.data.messages import Json, Text
from alignzoo.data.repeats import PAIRS, RANKINGS, RATINGS, subject
from alignzoo.data.rows import Row
from alignzoo.errors import UserError
from alignzoo.statistics.agreement import Level, Unit, agreement

VERDICTS = {PAIRS: "chosen", RANKINGS: "ranks", RATINGS: "label"}
VOTING = ("rater", "raters", "votes")


class Votes(Enum):
    """What becomes of several votes on the same."""

    majority = "majority"  # what most say, of ratings and ranks the mean; a tie is dropped and counted


@dataclass
class Vote:
    """Everything that was said of one thing, in terms of its first `row`; `kind` is as in `repeats.subject`."""

    row: Row
    kind: str
    ballots: dict[str, Json] = field(default_factory=dict)
    margins: list[float] = field(default_factory=list)  # of pairs: above 0 where the row's chosen is the better

    def texts(self) -> list[Text]:
        return list(self.row["completions"]) if self.kind == RANKINGS else [self.row["chosen"], self.row["rejected"]]


def settled(rows: list[Row]) -> tuple[list[Row], Report]:
    """The rows with their votes settled, and what to report of them; rows that nobody voted on stay as they are.

    Raises UserError where every vote is tied."""
    if not any(name in row.values for row in rows for name in VOTING):
        return rows, {}
    votes, unvoted = collected(rows)
    binary = _binary(votes)
    verdicts = [row for vote in votes if (row := _verdict(vote, binary))]
    tied = len(votes) - len(verdicts)
    if not verdicts and not unvoted:
        raise UserError(f"{rows[0].where.rsplit(',', 1)[0]}: all votes are tied: nothing to learn; ask more raters")
    return verdicts + unvoted, {"raters": reported(votes) | ({"ties_dropped": tied} if tied else {})}


def collected(rows: Sequence[Row]) -> tuple[list[Vote], list[Row]]:
    """The votes by what they are on, in the order in which it first came; and rows that hold nothing to vote on."""
    votes: dict[str, Vote] = {}
    unvoted = []
    for row in rows:
        kind, about = subject(row.values)
        if not kind or "prompt" not in row.values or not {VERDICTS[kind], "votes"} & row.values.keys():
            unvoted.append(_without_votes(row))
            continue
        vote = votes.setdefault(about, Vote(row, kind))
        for rater, ballot in _ballots(row, kind):
            vote.ballots[rater or f"row {len(vote.ballots)}"] = _as_in(vote.row, row, kind, ballot)
        if "margin" in row.values:
            vote.margins.append(float(row["margin"]) * (1 if row["chosen"] == vote.row["chosen"] else -1))
    return list(votes.values()), unvoted


def reported(votes: Sequence[Vote]) -> dict[str, Json]:
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
    if ratings := [vote.ballots for vote in votes if vote.kind == RATINGS]:
        level = Level.nominal if _binary(votes) else Level.interval
        return [{rater: float(rating) for rater, rating in ballots.items()} for ballots in ratings], level
    units: list[Unit] = []
    for vote in votes:
        hashes = [_hash([vote.row["prompt"], text]) for text in vote.texts()]
        for (first, second), unit in zip(combinations(hashes, 2), preferences(vote), strict=True):
            units.append({rater: preference if first < second else -preference for rater, preference in unit.items()})
    return units, Level.nominal


def preferences(vote: Vote) -> Iterator[Unit]:
    """Of each two completions: 1 for who prefers the first, -1 for the second, 0 for a tie."""
    if vote.kind == PAIRS:
        yield {rater: _sign(share - 0.5) for rater, share in vote.ballots.items()}
    else:
        for i, j in combinations(range(len(vote.texts())), 2):
            yield {rater: _sign(ranks[j] - ranks[i]) for rater, ranks in vote.ballots.items()}


def _hash(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _binary(votes: Sequence[Vote]) -> bool:
    """Whether all labels are yes or no."""
    return all(label in (0, 1) for vote in votes if vote.kind == RATINGS for label in vote.ballots.values())


def _verdict(vote: Vote, binary: bool) -> Row | None:
    """The row that comes of a vote, None where it is tied: of rankings by mean rank (Borda)."""
    ballots = list(vote.ballots.values())
    if vote.kind == RANKINGS:
        ranks = [sum(column) / len(ballots) for column in zip(*ballots, strict=True)]
        return _without_votes(vote.row, ranks=ranks) if len(set(ranks)) > 1 else None
    if vote.kind == RATINGS and not binary:
        return _without_votes(vote.row, label=sum(map(float, ballots)) / len(ballots))
    lead = sum(_sign(float(ballot) - 0.5) for ballot in ballots)
    if not lead:
        return None
    if vote.kind == RATINGS:
        return _without_votes(vote.row, label=int(lead > 0))
    margin = {"margin": _sign(lead) * sum(vote.margins) / len(vote.margins)} if vote.margins else {}
    chosen, rejected = vote.texts() if lead > 0 else reversed(vote.texts())
    return _without_votes(vote.row, chosen=chosen, rejected=rejected, **margin)


def _without_votes(row: Row, **verdict: Json) -> Row:
    """The row with a verdict in place of the votes."""
    kept = {name: value for name, value in row.values.items() if name not in VOTING}
    return replace(row, values=kept | verdict, columns=row.columns | verdict)


def _ballots(row: Row, kind: str) -> list[tuple[str | None, Json]]:
    """(rater, ballot) of one row; None: nobody is named."""
    if "votes" not in row.values:
        name = row.values.get("rater")
        return [(None if name is None else str(name), 1.0 if kind == PAIRS else row[VERDICTS[kind]])]
    votes = row["votes"]
    names = row.values.get("raters") or [f"rater {place}" for place in range(1, len(votes) + 1)]
    return [(str(name), vote) for name, vote in zip(names, votes, strict=True) if vote is not None]


def _as_in(first: Row, row: Row, kind: str, ballot: Json) -> Json:
    """A ballot of `row` in terms of `first`, which may hold the same completions in another order."""
    if kind == PAIRS:
        return ballot if row["chosen"] == first["chosen"] else 1 - ballot
    if kind == RANKINGS:
        return [ballot[row["completions"].index(completion)] for completion in first["completions"]]
    return ballot


def _sign(number: float) -> float:
    return float((number > 0) - (number < 0))
