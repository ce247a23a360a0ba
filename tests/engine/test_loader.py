"""Which records come when: orders, rollouts, minibatches, filler, positions to go on from."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from alignzoo.batch import Completions, Pairs, Prompts, Rankings
from alignzoo.common.account import tokens_in
from alignzoo.engine.loader import OfflineLoader, OnlineLoader, Order, Share
from alignzoo.settings import UserError
from alignzoo.testing.toys import ToyTable

ALONE = Share(0, 1)


def take(loader, count):
    batches = iter(loader)
    return [next(batches) for _ in range(count)]


def row_list(batches):
    return torch.cat([batch.row for batch in batches]).tolist()


def test_every_epoch_is_a_permutation_of_its_own():
    """Row numbers count on over epochs; modulo the size they are those of the table."""
    order = Order(ToyTable(Prompts, 7), seed=0)
    epochs = [order.records(7 * k, 7 * k + 7).row.tolist() for k in range(3)]
    for k, rows in enumerate(epochs):
        assert sorted(rows) == list(range(7 * k, 7 * k + 7))
    places = [tuple(row % 7 for row in rows) for rows in epochs]
    assert len(set(places)) == 3
    assert Order(ToyTable(Prompts, 7), seed=1).records(0, 7).row.tolist() != epochs[0]


def test_records_across_epochs_are_those_of_each():
    """Positions 5 to 16 of a table of 7: two of the first epoch, seven of the second, two of the third."""
    order = Order(ToyTable(Pairs, 7), seed=0)
    across = order.records(5, 16)
    parts = [order.records(a, b) for a, b in ((5, 7), (7, 14), (14, 16))]
    assert across.row.tolist() == row_list(parts)
    assert across.rejected.text == [text for part in parts for text in part.rejected.text]
    table = ToyTable(Pairs, 7).batch([row % 7 for row in across.row.tolist()])
    assert across.chosen.text == table.chosen.text


def test_no_rows_is_an_error():
    with pytest.raises(UserError, match="no rows"):
        Order(ToyTable(Prompts, 0), seed=0)


def test_offline_micro_batches_are_the_order_cut():
    order = Order(ToyTable(Completions, 10), seed=0)
    batches = take(OfflineLoader(order, batch=4, micro_batch=2, share=ALONE), 6)
    assert [len(batch) for batch in batches] == [2] * 6
    assert row_list(batches) == order.records(0, 12).row.tolist()


def test_offline_goes_on_from_its_state():
    order = Order(ToyTable(Completions, 10), seed=0)
    loader, later = (OfflineLoader(order, batch=4, micro_batch=2, share=ALONE) for _ in range(2))
    take(loader, 4)
    later.load_state_dict(loader.state_dict())
    assert row_list(take(later, 2)) == order.records(8, 12).row.tolist()


def test_ranks_share_a_step_in_order():
    """Two ranks together read what one process reads."""
    order = Order(ToyTable(Completions, 10), seed=0)
    ranks = [take(OfflineLoader(order, batch=4, micro_batch=2, share=Share(rank, 2)), 2) for rank in range(2)]
    together = [row_list([ranks[0][step], ranks[1][step]]) for step in range(2)]
    assert together == [order.records(0, 4).row.tolist(), order.records(4, 8).row.tolist()]


def lengths(batches):
    return [tokens_in(batch.take([i])) for batch in batches for i in range(len(batch))]


def test_by_length_sorts_a_step_and_changes_none_of_its_records():
    order = Order(ToyTable(Completions, 24), seed=0)
    steps = take(OfflineLoader(order, batch=12, micro_batch=4, share=ALONE, by_length=True), 6)
    for step, micro in ((0, steps[:3]), (1, steps[3:])):
        came = order.records(12 * step, 12 * step + 12)
        assert sorted(row_list(micro)) == sorted(came.row.tolist()) and row_list(micro) != came.row.tolist()
        assert [len(batch) for batch in micro] == [4, 4, 4]
        assert lengths(micro) == sorted(lengths([came]))


def test_by_length_keeps_the_records_of_a_row_together():
    order = Order(ToyTable(Rankings, 8), seed=0)
    for batch in take(OfflineLoader(order, batch=4, micro_batch=2, share=ALONE, by_length=True), 4):
        whole = [order.records(i, i + 1) for i in range(8)]
        assert len(batch) == sum(len(rows) for rows in whole if set(rows.row.tolist()) & set(batch.row.tolist()))


def test_by_length_sorts_a_minibatch_of_a_rollout():
    plain, arranged = (Rollouts(prompts=8, batch=8, micro_batch=2, by_length=by) for by in (False, True))
    before, after = (take(made, 4) for made in (plain, arranged))
    texts = [sorted(text for batch in batches for text in batch.text) for batches in (before, after)]
    assert texts[0] == texts[1] and lengths(before) != lengths(after)
    assert lengths(after) == sorted(lengths(before))


class Rollouts:
    """An online loader over a made-up `sample`, which notes its calls; `done` holds the rollouts it made."""

    def __init__(self, prompts=3, batch=4, passes=1, micro_batch=4, samples=2, by_length=False):
        self.calls, self.done, self.samples = [], [], samples
        self.loader = OnlineLoader(
            Order(ToyTable(Prompts, 10), seed=0), prompts, batch, micro_batch, passes, ALONE, 0,
            decode=lambda texts: [str(ids) for ids in texts], by_length=by_length,
        )  # fmt: skip

    def __iter__(self):
        return self.loader.batches(self.sample, self.done.append)

    def sample(self, index, prompts):
        self.calls.append((index, prompts.row.tolist()))
        rows = prompts.row.repeat_interleave(self.samples)
        made = ToyTable(Completions, 10).batch(list(range(len(rows))))
        prompt_of = torch.arange(len(prompts)).repeat_interleave(self.samples)
        return replace(made, prompts=prompts, prompt_of=prompt_of, row=rows)


def test_a_rollout_is_gone_through_in_passes_and_then_made_anew():
    """6 prompts x 2 samples in minibatches of 4, two passes: six minibatches a rollout, each pass in an order of its own."""
    made = Rollouts(prompts=6, passes=2)
    batches = take(made, 7)
    stream = Order(ToyTable(Prompts, 10), seed=0)
    assert made.calls == [(0, stream.records(0, 6).row.tolist()), (1, stream.records(6, 12).row.tolist())]
    passes = [
        [(row, text) for b in part for row, text in zip(b.row.tolist(), b.text, strict=True)]
        for part in (batches[:3], batches[3:6])
    ]
    every = list(zip(made.done[0].row.tolist(), made.done[0].text, strict=True))
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(every) and passes[0] != passes[1]
    assert len(made.done) == 2


def test_the_samples_of_a_prompt_stay_together():
    made = Rollouts(prompts=8, samples=4, batch=8, micro_batch=8)
    for batch in take(made, 4):
        assert len(batch.prompts) == 2
        assert batch.prompt_of.bincount().tolist() == [4, 4]


def test_a_minibatch_that_is_not_full_is_filled_with_weight_0():
    """Six records in minibatches of four: the second has two and two blank ones; every record counts once."""
    made = Rollouts()
    full, filled = take(made, 2)
    assert full.counted.tolist() == [1, 1, 1, 1]
    assert filled.counted.tolist() == [1, 1, 0, 0] and len(filled) == 4
    counted = row_list([full, filled.take(filled.counted.bool())])
    assert sorted(counted) == sorted(made.done[0].row.tolist())


def test_online_goes_on_in_the_middle_of_a_rollout():
    """The rollout is in the state: what comes next is the same, and nothing is sampled again."""
    made, again = Rollouts(prompts=4, passes=2), Rollouts(prompts=4, passes=2)
    take(made, 1)
    again.loader.load_state_dict(copy.deepcopy(made.loader.state_dict()))
    rest, resumed = take(made, 4), take(again, 4)
    assert [b.row.tolist() for b in rest] == [b.row.tolist() for b in resumed]
    assert [index for index, _ in made.calls] == [0, 1] and again.calls == made.calls[1:]


def test_a_dropped_rollout_is_replaced():
    made = Rollouts(passes=3)
    take(made, 1)
    made.loader.drop()
    take(made, 1)
    assert [index for index, _ in made.calls] == [0, 1]


def test_an_empty_rollout_is_skipped_but_not_for_ever():
    made = Rollouts()
    sample = made.sample
    made.sample = lambda index, prompts: sample(index, prompts).take([] if index < 2 else range(6))
    take(made, 1)
    assert [index for index, _ in made.calls] == [0, 1, 2] and len(made.done) == 1
    made.sample = lambda index, prompts: sample(index, prompts).take([])
    made.loader.drop()
    with pytest.raises(UserError, match="100 rollouts in a row kept no completion"):
        take(made, 1)
