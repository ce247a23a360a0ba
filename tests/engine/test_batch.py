"""Records: reductions over scored tokens, and what taking, stacking and blanking do to prompts and padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts

NAN = float("nan")


def record(**changes):
    """Three completions over two prompts: two scored tokens after an unscored one; a single scored token; nothing scored."""
    prompts = Prompts(
        ids=torch.tensor([[0, 4, 5], [6, 7, 8]]),
        attended=torch.tensor([[False, True, True], [True, True, True]]),
        row=torch.tensor([10, 11]),
        columns={"answer": ["four", "six"]},
    )
    columns = {
        "prompts": prompts,
        "prompt_of": torch.tensor([1, 0, 1]),
        "ids": torch.tensor([[20, 21, 22], [30, 0, 0], [40, 41, 0]]),
        "attended": torch.tensor([[True, True, True], [True, False, False], [True, True, False]]),
        "scored": torch.tensor([[False, True, True], [True, False, False], [False, False, False]]),
        "truncated": torch.tensor([False, True, False]),
        "row": torch.tensor([11, 10, 11]),
    }
    return Completions(**columns | changes)


def test_reductions_read_scored_tokens_alone():
    x = torch.tensor([[NAN, 2.0, 3.0], [5.0, NAN, 7.0], [1.0, 1.0, NAN]])
    assert record().sum(x).tolist() == [5.0, 5.0, 0.0]
    assert record().mean(x).tolist() == [2.5, 5.0, 0.0]
    assert record().length.tolist() == [2.0, 1.0, 0.0]
    assert record().counted.tolist() == [1.0, 1.0, 0.0]


def test_a_scalar_sits_on_the_last_scored_token():
    """Of row 2 nothing is scored, so its score sits nowhere; per-token values stay as they are."""
    c = record(scored=torch.tensor([[True, True, False], [True, False, False], [False, False, False]]))
    assert c.at_last(torch.tensor([7.0, 8.0, 9.0])).tolist() == [[0, 7, 0], [8, 0, 0], [0, 0, 0]]
    tokens = torch.arange(9.0).reshape(3, 3)
    assert c.at_last(tokens) is tokens


def test_take_keeps_the_prompts_in_use_and_trims_padding():
    c = record(logprobs=torch.arange(9.0).reshape(3, 3)).take([1])
    assert (c.prompts.ids.tolist(), c.prompts.columns, c.prompt_of.tolist()) == ([[4, 5]], {"answer": ["four"]}, [0])
    assert (c.ids.tolist(), c.logprobs.tolist(), c.row.tolist()) == ([[30]], [[3.0]], [10])
    back = record().take(torch.tensor([True, False, True]))
    assert (back.prompts.row.tolist(), back.prompt_of.tolist(), back.ids.shape) == ([11], [0, 0], (2, 3))
    assert len(record().take([])) == 0


def test_the_best_of_each_draw_by_hand():
    c = record().take([0, 0, 0, 1, 1, 2])  # rows 11 11 11 10 10 11
    scores = torch.tensor([1.0, 3.0, 3.0, -2.0, -1.0, 2.0])
    assert c.best(scores).tolist() == [4, 1]
    assert c.best(-scores).tolist() == [3, 0]
    assert c.best(scores, 3).tolist() == [4, 3, 1, 2, 5]
    assert c.best(scores, 2, torch.tensor([True, False, True, True, False, True])).tolist() == [3, 2, 5]
    assert c.best(scores, valid=torch.zeros(6, dtype=torch.bool)).tolist() == []
    assert c.take(c.best(scores)).row.tolist() == [10, 11]


def test_draws_are_one_record_a_row_each_over_its_own_prompt():
    """Rows 11 and 10 have several; a prompt that two rows share is there for each."""
    c = record(row=torch.tensor([11, 10, 9]))
    draws = c.draws()
    assert (draws.row.tolist(), draws.prompts.row.tolist(), draws.prompt_of.tolist()) == ([9, 10, 11], [9, 10, 11], [0, 1, 2])
    assert behind(draws) == [([6, 7, 8], [40, 41, 0]), ([4, 5], [30, 0, 0]), ([6, 7, 8], [20, 21, 22])]
    assert draws.prompts.columns == {"answer": ["six", "four", "six"]}
    first = record().draws()
    assert behind(first) == [([4, 5], [30, 0, 0]), ([6, 7, 8], [20, 21, 22])]


def test_cat_pads_and_points_at_the_right_prompts():
    both = Completions.cat([record().take([1]), record()])
    assert both.ids.tolist() == [[30, 0, 0], [20, 21, 22], [30, 0, 0], [40, 41, 0]]
    owners = both.prompts.row[both.prompt_of]
    assert (owners.tolist(), both.row.tolist()) == ([10, 11, 10, 11], [10, 11, 10, 11])
    assert both.prompts.columns["answer"] == ["four", "four", "six"]
    assert both.prompts.attended.tolist()[0] == [False, True, True]


def test_pairs_stack_over_one_copy_of_the_prompts():
    pairs = Pairs(chosen=record(), rejected=record(ids=torch.full((3, 3), 9)))
    both = pairs.both
    assert len(both.prompts) == 2 and both.ids[3:].unique().tolist() == [9]
    assert both.prompt_of.tolist() == [1, 0, 1, 1, 0, 1]
    assert pairs.counted.tolist() == [1.0, 1.0, 0.0]
    unscored = torch.zeros(3, 3, dtype=torch.bool)
    assert Pairs(chosen=record(), rejected=record(scored=unscored)).counted.tolist() == [0.0, 0.0, 0.0]


def written(prompts: Prompts, order: list[int], mark: int) -> Completions:
    """A completion of each prompt in that order: its row's number, then the side's mark. The prompts stay as they are."""
    row = prompts.row[order]
    ids, everywhere = torch.stack([row, torch.full_like(row, mark)], 1), torch.ones(len(order), 2, dtype=torch.bool)
    return Completions(
        prompts=prompts, prompt_of=torch.tensor(order), ids=ids, attended=everywhere, scored=everywhere,
        truncated=torch.zeros(len(order), dtype=torch.bool), row=row,
    )  # fmt: skip


def behind(c: Completions) -> list[tuple[list[int], list[int]]]:
    """Each completion with the prompt that it is read behind."""
    tokens = [ids[mask].tolist() for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    return [(tokens[p], ids.tolist()) for p, ids in zip(c.prompt_of.tolist(), c.ids, strict=True)]


@pytest.mark.parametrize("seed", range(8))
def test_both_reads_every_completion_behind_its_own_prompt_whatever_was_taken_of_each_side(seed: int) -> None:
    """Prompts in another order, of another width, with prompts that nothing refers to, or twice."""
    rng = torch.Generator().manual_seed(seed)
    widths = torch.randint(1, 5, (6,), generator=rng).tolist()
    attended = torch.tensor([[i >= 4 - n for i in range(4)] for n in widths])
    ids = torch.where(attended, torch.arange(6)[:, None] + 50, 99)  # what is padded reads like no token of any prompt
    prompts = Prompts(ids=ids, attended=attended, row=torch.arange(6) + 10, columns={"number": list(range(6))})
    rows = torch.randint(0, 6, (5,), generator=rng)

    def side(mark: int) -> Completions:
        order = torch.randperm(6, generator=rng)
        return written(prompts.take(order), list(range(6)), mark).take(torch.cat([(order == row).nonzero()[0] for row in rows]))

    chosen, rejected = side(1), side(2)
    shuffled = torch.randperm(len(rejected.prompts), generator=rng)
    apart = replace(rejected, prompts=rejected.prompts.take(shuffled), prompt_of=shuffled.argsort()[rejected.prompt_of])
    for other in (rejected, apart, Completions.cat([apart.take([0, 1]), apart.take([2, 3, 4])])):
        both = Pairs(chosen=chosen, rejected=other).both
        assert behind(both) == behind(chosen) + behind(other)
        assert len(both.prompts) == len(set(rows.tolist()))
        assert [both.prompts.columns["number"][i] for i in both.prompt_of.tolist()] == rows.tolist() * 2
        assert behind(Pairs(chosen=chosen, rejected=other).take([3, 0]).both) == [(behind(both))[i] for i in (3, 0, 8, 5)]


def test_both_keeps_the_prompts_that_both_sides_share_and_one_copy_of_equal_ones() -> None:
    pairs = Pairs(chosen=record(), rejected=record())
    shared = Pairs(chosen=pairs.chosen, rejected=replace(pairs.rejected, prompts=pairs.chosen.prompts))
    assert pairs.both.prompts is pairs.chosen.prompts and shared.both.prompts is pairs.chosen.prompts
    swapped = pairs.rejected.prompts.take([1, 0])
    assert behind(replace(pairs, rejected=replace(pairs.rejected, prompts=swapped)).both)[3:] == [
        ([4, 5], [20, 21, 22]), ([6, 7, 8], [30, 0, 0]), ([4, 5], [40, 41, 0])
    ]  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighed(Completions):
    weight: Tensor
    shown: Completions


def test_a_plugins_own_columns_follow():
    c = Weighed(**vars(record()), weight=torch.tensor([1.0, 2.0, 3.0]), shown=record())
    taken = Weighed.cat([c.take([2]), c.take([0])])
    assert (taken.weight.tolist(), taken.shown.ids[0].tolist()) == ([3.0, 1.0], [40, 41, 0])
    blank = c.blank()
    assert blank.counted.tolist() == [0, 0, 0] and not blank.shown.scored.any() and blank.attended.equal(c.attended)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictured(Prompts):
    """A plugin's prompts, with a tensor and a record of its own."""

    pixels: torch.Tensor
    caption: Prompts | None = None


def pictured(*words: int) -> Pictured:
    """A prompt a number of tokens, whose pixels are that number."""
    width = max(words)
    attended = torch.tensor([[i >= width - n for i in range(width)] for n in words])
    plain = {"ids": attended.long() * torch.tensor(words)[:, None], "attended": attended, "row": torch.arange(len(words))}
    return Pictured(**plain, pixels=torch.tensor(words)[:, None, None].expand(-1, 2, 2), caption=Prompts(**plain))


def test_prompts_of_a_plugin_are_taken_and_joined_whole():
    taken = pictured(1, 3, 2).take([2])
    assert taken.ids.tolist() == [[2, 2]] and taken.row.tolist() == [2]
    assert taken.pixels.tolist() == [[[2, 2], [2, 2]]] and taken.caption.ids.tolist() == [[2, 2]]
    both = Pictured.cat([taken, pictured(3)])
    assert both.ids.tolist() == [[0, 2, 2], [3, 3, 3]] and both.attended.tolist() == [[False, True, True], [True] * 3]
    assert both.pixels[:, 0, 0].tolist() == [2, 3] and both.caption.ids.tolist() == [[0, 2, 2], [3, 3, 3]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contest(Batch):
    """A record that is neither prompts nor completions."""

    prompts: Pictured


@pytest.mark.parametrize("batch", [pictured(1, 2), Contest(prompts=pictured(1, 2))])
def test_a_record_is_counted_where_it_is(batch):
    assert batch.counted.tolist() == [1, 1]
    assert batch.to("meta").counted.device == torch.device("meta")
