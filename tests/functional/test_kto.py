"""KTO on table policies: three records, each followed by another's completion."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.functional import kto_loss, mismatches
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, prompts
from alignzoo_plugins.kto.bco import BCO
from alignzoo_plugins.kto.kto import KTO, ReferencePoint
from alignzoo_plugins.kto.kto_trl import KTOTRL
from alignzoo_plugins.kto.mismatch import mismatched
from alignzoo_plugins.kto.unpaired import Judged, Unpaired

AGAIN = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], dtype=torch.float64).log()
UP, DOWN = math.log(1.5), math.log(0.75)  # log pi / ref of the token before once more, and of another


def models(table: Tensor = AGAIN) -> FakeModels:
    return FakeModels(TablePolicy(table), reference=TablePolicy(torch.zeros(3, 3, dtype=torch.float64)))


def records() -> Rated:
    """Prompts that end in 1, 2, 0, with completions 0, 2 and 1 1."""
    c = completions(prompts(1, 2, 0), [0, 1, 2], [[0], [2], [1, 1]])
    return Rated(**vars(c), rating=torch.tensor([1.0, 0.0, 1.0]))


def objective(algorithm: KTO, given: FakeModels, *batches: Rated) -> Tensor:
    return torch.cat([algorithm.loss(given, batch)[0] for batch in algorithm.prepare(given, list(batches))])


def test_every_prompt_gets_the_completion_of_the_record_before_it() -> None:
    found = mismatched(records(), models())
    assert [ids[mask].tolist() for ids, mask in zip(found.ids, found.scored, strict=True)] == [[1, 1], [0], [2]]
    assert found.prompts.ids[found.prompt_of, -1].tolist() == [1, 2, 0]


def test_the_reference_point_by_hand() -> None:
    """Prompt 1 with 1 1: 2 log 3/2; prompt 2 with 0 and prompt 0 with 2: log 3/4 each. Their mean is 0.078522."""
    (found,) = KTO().prepare(models(), [records()])
    assert found.reference_point.tolist() == pytest.approx([(2 * UP + 2 * DOWN) / 3] * 3, abs=1e-9)
    assert found.reference_point[0].item() == pytest.approx(0.078522, abs=1e-6)


def test_the_loss_by_hand() -> None:
    """h = log 3/4, log 3/2, log 3/4 + log 3/2 = -0.287682, 0.405465, 0.117783 against 0.078522, at beta 2:
    sigma(0.732408), 3 sigma(0.653886), sigma(-0.078522)."""
    found = objective(KTO(beta=2.0, undesirable_weight=3.0), models(), records())
    assert found.tolist() == pytest.approx([0.675334, 1.973657, 0.480380], abs=1e-5)


def test_the_reference_point_is_never_negative() -> None:
    """Where every token but the one before it was made likelier, the others' completions are unlikely."""
    never = (torch.tensor([[0.1, 0.45, 0.45], [0.45, 0.1, 0.45], [0.45, 0.45, 0.1]], dtype=torch.float64)).log()
    c = completions(prompts(0, 1), [0, 1], [[1], [0]])  # of each other: 0 after 0, 1 after 1
    (found,) = KTO().prepare(models(never), [Rated(**vars(c), rating=torch.ones(2))])
    assert found.reference_point.tolist() == [0.0, 0.0]


def test_micro_batches_and_order_change_nothing() -> None:
    whole = objective(KTO(), models(), records())
    parts = objective(KTO(), models(), records().take([0]), records().take([1, 2]))
    turned = objective(KTO(), models(), records().take([2, 0, 1]))
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(turned, whole[[2, 0, 1]])


def test_ranks_share_the_reference_point() -> None:
    """One rank holds records 0 and 1, the other 2: what either gathers is all of them."""
    whole = mismatched(records(), models())
    for rows in ([0, 1], [2]):
        given, asked = models(), list[Tensor]()
        prompt = records().prompts.ids
        answers = iter([torch.tensor([[1, 2], [2, 2]]), records().ids, records().scored, records().row, prompt])

        def gather(x: Tensor, asked: list[Tensor] = asked, answers: Iterator[Tensor] = answers) -> Tensor:
            asked.append(x)
            return next(answers)

        given.gather = gather  # type: ignore[method-assign]
        found = mismatched(records().take(rows), given)
        assert asked[1].shape == (len(rows), 2)  # padded to the widest of all ranks
        for place, row in enumerate(rows):
            assert found.ids[place][found.scored[place]].tolist() == whole.ids[row][whole.scored[row]].tolist()


def same(group: list[int], sources: list[int]) -> list[bool]:
    return [group[source] == own for source, own in zip(sources, group, strict=True)]


def test_mismatches_by_hand() -> None:
    """Neighbours of a prompt shift by two together; of A B A C the records are put together as A A B C; of
    three As and B and C, shifted by three, the first A would get an A, and gets B; one prompt alone has the record before."""
    assert mismatches(torch.tensor([7, 7, 2, 2, 5, 5])).tolist() == [4, 5, 0, 1, 2, 3]
    assert mismatches(torch.tensor([0, 1, 0, 2])).tolist() == [1, 0, 3, 2]
    assert mismatches(torch.tensor([4, 1, 3])).tolist() == [2, 0, 1]
    assert mismatches(torch.tensor([0, 0, 0, 1, 2])).tolist() == [3, 3, 4, 0, 1]
    assert mismatches(torch.tensor([6, 6, 6])).tolist() == [2, 0, 1] and mismatches(torch.tensor([6])).tolist() == [0]


@pytest.mark.parametrize("seed", range(20))
def test_no_completion_is_mismatched_with_its_own_prompt_where_another_is_there(seed: int) -> None:
    """And each is used once unless one prompt has more than half."""
    rng = torch.Generator().manual_seed(seed)
    group = torch.randint(0, 2 + seed // 2, (2 + seed,), generator=rng)
    found = mismatches(group).tolist()
    if len(group.unique()) > 1:
        assert not any(same(group.tolist(), found))
    if group.bincount().max() * 2 <= len(group):
        assert sorted(found) == list(range(len(group)))


def test_both_sides_of_a_pair_are_mismatched_with_another_prompts() -> None:
    """40 pairs as 80 ratings, a step of 64 of them: 37.5 % had a completion of their own prompt."""
    rng = torch.Generator().manual_seed(0)
    row = torch.randperm(80, generator=rng)[:64]
    pair = row // 2
    of = replace(prompts(*range(40)), row=torch.arange(40))
    c = completions(of, pair.tolist(), [[int(p), int(r)] for p, r in zip(pair, row, strict=True)])
    found = mismatched(replace(c, row=row), models())
    assert not (found.ids[:, 0] == pair).any()
    assert sorted(found.ids[:, 1].tolist()) == sorted(row.tolist())


def test_what_the_policy_did_not_write_stays_with_its_prompt() -> None:
    c = completions(prompts(1, 2), [0, 1], [[2, 0], [1, 1]], [[0, 1], [1, 1]])
    found = mismatched(c, models())
    assert [ids[mask].tolist() for ids, mask in zip(found.ids, found.attended, strict=True)] == [[2, 1, 1], [0]]
    assert found.scored.tolist() == [[False, True, True], [True, False, False]]


def test_records_without_tokens_take_no_part() -> None:
    c = completions(prompts(1, 2, 0, 0), [0, 1, 2, 3], [[0], [2], [1, 1], [1]], [[1], [1], [1, 1], [0]])
    (found,) = KTO().prepare(models(), [Rated(**vars(c), rating=torch.ones(4))])
    assert found.reference_point[0].item() == pytest.approx(0.078522, abs=1e-6)
    blank = records().blank()
    assert KTO().prepare(models(), [blank])[0].reference_point.tolist() == [0.0, 0.0, 0.0]


def test_ratings_above_the_threshold_are_desirable() -> None:
    scored = replace(records(), rating=torch.tensor([7.0, 3.0, 5.0]))
    found = objective(KTO(threshold=4.0), models(), scored)
    torch.testing.assert_close(found, objective(KTO(), models(), records()))


@pytest.mark.parametrize("kind", [KTO, KTOTRL, BCO])
def test_labels_of_one_side_are_told(kind: type[Unpaired]) -> None:
    """Of all batches together; a rating equal to the threshold is undesirable."""
    context: Any = None
    good, bad = (replace(records(), rating=torch.full((3,), rating)) for rating in (0.75, 0.5))
    assert kind().check_data(iter([good, bad]), context) == ""
    told = kind().check_data([good, good], context)
    assert told.startswith("all completions are desirable: their ratings, 0.75 to 0.75, are above algorithm.threshold=0.5")
    told = kind().check_data([bad], context)
    assert told.startswith("all completions are undesirable: their ratings, 0.5 to 0.5, are not above algorithm.threshold=0.5")


def test_accuracy_is_the_share_on_its_side_of_the_reference_point() -> None:
    """h - z: -0.37 (desirable), 0.33 (undesirable), 0.04 (desirable)."""
    algorithm = KTO(beta=2.0)
    (judged,) = algorithm.prepare(models(), [records()])
    _, metrics = algorithm.loss(models(), judged)
    assert metrics["rewards/accuracy"].tolist() == [0.0, 0.0, 1.0]
    assert metrics["reference_point"][0].item() == pytest.approx(0.157044, abs=1e-6)


def test_the_gradient_saturates_on_both_sides() -> None:
    """dL / dh = - w beta sigma'(beta (h - z)) where desirable: largest at z, the same at equal distances from it."""
    ratio = torch.tensor([-3.0, 0.5, 4.0], dtype=torch.float64, requires_grad=True)
    kto_loss(ratio, torch.tensor([True] * 3), torch.tensor(0.5), 1.0).sum().backward()
    slope = [-s * (1 - s) for s in (1 / (1 + math.exp(3.5)), 0.5, 1 / (1 + math.exp(-3.5)))]
    assert ratio.grad is not None
    assert ratio.grad.tolist() == pytest.approx(slope, abs=1e-9)


def test_no_gradient_flows_through_the_reference_point() -> None:
    point = torch.tensor(0.3, requires_grad=True)
    ratio = torch.tensor([1.0], requires_grad=True)
    kto_loss(ratio, torch.tensor([True]), point, 1.0).sum().backward()
    assert point.grad is None


@pytest.mark.parametrize("setting", ["beta", "desirable_weight", "undesirable_weight"])
def test_kto_refuses_what_is_not_positive(setting: str) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{setting}=0"):
        KTO(**{setting: 0.0})


def test_without_a_reference_point_nothing_more_is_computed() -> None:
    (found,) = KTO(reference_point=ReferencePoint.zero).prepare(FakeModels(None), [records()])  # type: ignore[arg-type]
    assert isinstance(found, Judged)
    assert found.reference_point.tolist() == [0.0, 0.0, 0.0]
