"""Our records as the columns that TRL's collators take: token ids, so that nothing is tokenised twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignzoo.batch import Completions, Pairs, Rated
from alignzoo.contracts import UserError

Row = dict[str, Any]
MOST = 2**22  # items, after which the stream starts again: a run that ends by its budget may have no last step


def dataset(records: Callable[[int, int], Any], size: int, columns: Callable[[Any], list[Row]]) -> Any:
    """Item i is the record at position i of the run's stream of training records, made when it is asked for."""
    from datasets import Dataset

    def look_up(positions: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = [row for i in positions["position"] for row in columns(records(i, i + 1))]
        return {name: [row[name] for row in rows] for name in rows[0]}

    return Dataset.from_dict({"position": range(min(size, MOST))}).with_transform(look_up)


def demonstrations(c: Completions) -> list[Row]:
    """For SFT: ids of prompt and completion, labels where the policy wrote."""
    rows = []
    for prompt, ids, scored in _tokens(c):
        labels = [token if mark else -100 for token, mark in zip(ids, scored, strict=True)]
        rows.append({"input_ids": prompt + ids, "labels": [-100] * len(prompt) + labels})
    return rows


def pairs(batch: Pairs) -> list[Row]:
    """For DPO."""
    sides = zip(_tokens(_whole(batch.chosen)), _tokens(_whole(batch.rejected)), strict=True)
    return [{"prompt_ids": c[0], "chosen_ids": c[1], "rejected_ids": r[1]} for c, r in sides]


def compared(batch: Pairs, margin: float) -> list[Row]:
    """For reward models, with `margin` times the data's margins where it is not 0."""
    sides = zip(_tokens(batch.chosen), _tokens(batch.rejected), strict=True)
    rows: list[Row] = [{"chosen_ids": c[0] + c[1], "rejected_ids": r[0] + r[1]} for c, r in sides]
    if margin and batch.margin is None:
        raise UserError(
            f"algorithm.margin={margin} takes the pairs' margins, and the data has none: "
            "say which column holds them with ++data.columns.margin=NAME, or leave algorithm.margin at 0"
        )
    if not margin or batch.margin is None:
        return rows
    return [row | {"margin": margin * m} for row, m in zip(rows, batch.margin.tolist(), strict=True)]


def judged(batch: Rated, threshold: float) -> list[Row]:
    """For KTO: labels are whether a rating is above the threshold."""
    records = zip(_tokens(_whole(batch)), (batch.rating > threshold).tolist(), batch.row.tolist(), strict=True)
    return [{"prompt_ids": t[0], "completion_ids": t[1], "label": label, "row": row} for t, label, row in records]


def _tokens(c: Completions) -> list[tuple[list[int], list[int], list[bool]]]:
    """Each record's prompt ids, completion ids, and which of these are scored."""
    prompts = [ids[mask].tolist() for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    columns = zip(c.prompt_of.tolist(), c.ids, c.attended, c.scored, strict=True)
    return [(prompts[p], ids[mask].tolist(), scored[mask].tolist()) for p, ids, mask, scored in columns]


def _whole(c: Completions) -> Completions:
    """Raises UserError where part of a completion is not the policy's: TRL scores whole completions."""
    foreign = (c.attended & ~c.scored).any(1)
    if bool(foreign.any()):
        row = int(c.row[foreign][0])
        raise UserError(
            f"row {row}: its completion has tokens that the policy did not write (another turn, tool output), and this trainer "
            "of TRL scores whole completions: choose other data, or our own algorithm"
        )
    return c
