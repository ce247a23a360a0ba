"""The exact task's judge that errs, and its sparse reward: measured against what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.common.noise import Noise
from alignzoo.contracts import UserError
from alignzoo.data.exact.annotator import Annotator
from alignzoo.data.exact.grammar import rewards, sparse
from alignzoo.data.exact.optimum import StringTree, completion_logprobs, measures, optimal_policy
from alignzoo.data.exact.source import Exact
from alignzoo.data.exact.task_tables import draw

Make = Callable[..., Any]
ROWS = 40_000
EVEN = torch.full((2, 4), 0.25, dtype=torch.float64).log()
LADDER = torch.tensor([[-3.0, -1.0, 1.0, 3.0]], dtype=torch.float64).expand(2, 4)


def drawn(view: type[Batch], judge: Annotator, ladder: torch.Tensor = LADDER) -> Any:
    return draw(view, ROWS, [7], EVEN, EVEN, ladder, judge)


def close_to(share: float, count: int = ROWS) -> Any:
    """Within five standard errors of a share of `count`."""
    return pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / count))


@pytest.mark.parametrize("flips", [0.0, 0.1, 0.4])
def test_labels_are_turned_as_often_as_asked(flips: float) -> None:
    """Beside a judge without errors: the same completions, the label the other one in so many rows."""
    for view, turned in (
        (Pairs, lambda a, b: (a.numbers == b.numbers.flip(1)).all(1)),
        (Rated, lambda a, b: (a.marks != b.marks).all(1)),
        (Rankings, lambda a, b: (a.marks + b.marks == 3).all(1)),
    ):
        true, found = drawn(view, Annotator()), drawn(view, Annotator(flips=flips))
        assert torch.equal(true.numbers.sort(1).values, found.numbers.sort(1).values)
        assert float(turned(true, found).double().mean()) == close_to(flips), view


def test_noise_in_the_labels_of_pairs() -> None:
    """P(a over b) = E sigma(r_a - r_b + e), e normal of variance 2 s^2, here by quadrature."""
    found = drawn(Pairs, Annotator(noise=3.0)).numbers
    nodes = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    errors = 3.0 * math.sqrt(2) * torch.special.ndtri(nodes)
    for a, b in ((3, 0), (2, 1)):
        both = ((found == torch.tensor([a, b])) | (found == torch.tensor([b, a]))).all(1)
        expected = float((LADDER[0, a] - LADDER[0, b] + errors).sigmoid().mean())
        assert float((found[both][:, 0] == a).double().mean()) == close_to(expected, int(both.sum()))


def test_noise_in_ratings_and_rankings() -> None:
    """Where all rewards are equal and large, only the error can make a rating 0; where it is huge, ranks are even."""
    high = torch.full((2, 4), 6.0, dtype=torch.float64)
    assert float(drawn(Rated, Annotator(), high).marks.mean()) > 0.99
    expected = float((6.0 + 6.0 * torch.special.ndtri((torch.arange(99_999) + 1) / 1e5)).sigmoid().mean())
    assert float(drawn(Rated, Annotator(noise=6.0), high).marks.mean()) == close_to(expected)
    marked = drawn(Rankings, Annotator(noise=1e6))
    first = marked.numbers.gather(1, marked.marks.argmin(1, keepdim=True))
    assert float((first == 0).double().mean()) == close_to(0.25)


def scored(judge: Annotator, rows: torch.Tensor, noise: Noise) -> torch.Tensor:
    return judge.scores(torch.full((len(rows),), 2.0), rows, noise)


def test_noise_in_scores_is_normal_and_anew_each_time() -> None:
    """Mean 2, standard deviation 1.5, a standard normal's share within one of them; a second call differs."""
    rows, noise = torch.arange(ROWS) // 4, Noise(0)
    with noise.during("rollout", 3):
        first, second = (scored(Annotator(noise=1.5), rows, noise) for _ in range(2))
    for found in (first, second):
        assert float(found.mean()) == pytest.approx(2.0, abs=5 * 1.5 / math.sqrt(ROWS))
        assert float(found.std()) == pytest.approx(1.5, abs=5 * 1.5 / math.sqrt(2 * ROWS))
        assert float(((found - 2).abs() < 1.5).double().mean()) == close_to(0.6827)
    for a, b in ((first, second), (first[0::4], first[1::4])):
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) == pytest.approx(0, abs=5 / math.sqrt(len(a)))


def test_scores_change_sign_as_often_as_asked() -> None:
    noise = Noise(0)
    with noise.during("rollout", 0):
        found = scored(Annotator(flips=0.4), torch.arange(ROWS) // 2, noise)
    assert set(found.tolist()) == {2.0, -2.0}
    assert float((found < 0).double().mean()) == close_to(0.4)


def test_flips_and_noise_have_nothing_to_do_with_each_other() -> None:
    """E = (1 - 2 p) r; if the lowest errors were those turned round, it would be 1.2 more."""
    noise = Noise(0)
    with noise.during("rollout", 0):
        found = scored(Annotator(flips=0.4, noise=1.5), torch.arange(ROWS) // 2, noise)
    assert float(found.mean()) == pytest.approx(0.4, abs=5 * math.sqrt((4 + 1.5**2) / ROWS))


def test_scores_depend_on_seed_step_and_row_alone() -> None:
    """Not on what else is in the batch: the half that a second rank would see has the same errors."""
    rows = torch.tensor([5, 5, 9, 9, 9, 2])

    def at(seed: int, step: int, which: torch.Tensor) -> list[float]:
        noise = Noise(seed)
        with noise.during("rollout", step):
            return scored(Annotator(noise=1.0), which, noise).tolist()

    whole = at(0, 4, rows)
    assert at(0, 4, rows) == whole
    assert at(0, 4, rows[2:5]) == whole[2:5]
    assert at(0, 4, rows[:2]) == whole[:2]
    assert at(0, 4, torch.tensor([9, 2, 9, 9, 5, 5])) == [whole[i] for i in (2, 5, 3, 4, 0, 1)]
    assert len({*whole, *at(1, 4, rows), *at(0, 5, rows)}) == 18


def test_training_sees_errors_and_evaluation_does_not(make_task: Make) -> None:
    task = make_task(reward_noise=2.0, label_flips=0.3)
    source, noise = task.source, task.context.shared.noise
    numbers = torch.arange(source.tree.completions)
    prompts, zero = source.language.prompts(torch.tensor([1]), torch.tensor([1])), torch.zeros_like(numbers)
    c = Completions(prompts=prompts, prompt_of=zero, row=zero, **source.language.completions(numbers))
    true = source.rewards[1].float()
    with noise.during("evaluation", 0):
        torch.testing.assert_close(source.reward()(c).total, true)
    with noise.during("rollout", 0):
        assert float((source.reward()(c).total - true).abs().min()) > 1e-6
    plain = make_task()
    assert torch.equal(plain.source.rewards, source.rewards)
    assert torch.equal(plain.source.optimum, source.optimum)
    assert plain.source.evaluate(task_models(plain)) == source.evaluate(task_models(task))


def task_models(task: Any) -> Any:
    return type("Models", (), {"policy": task.policy})()


def test_heldout_labels_are_true(make_task: Make) -> None:
    """Loss and accuracy on held-out pairs are part of evaluation."""
    true, erring = (make_task(view=Pairs, label_flips=flips).tables for flips in (0.0, 0.5))
    rows = range(64)
    assert erring.heldout.batch(rows).chosen.text == true.heldout.batch(rows).chosen.text
    assert erring.train.batch(rows).chosen.text != true.train.batch(rows).chosen.text


# --- sparse rewards ---


def test_so_many_rewards_are_zero() -> None:
    tree = StringTree(3, 3)  # 40 completions
    dense, found = (rewards(tree, 4, 0, 0.5, 0.1, share) for share in (0.0, 0.9))
    assert (dense != 0).all()
    assert (found == 0).sum(1).tolist() == [36] * 4
    kept = found != 0
    assert torch.equal(found[kept], dense[kept])
    assert (dense.where(kept, torch.inf).min(1).values > dense.where(~kept, -torch.inf).max(1).values).all()


def test_a_share_of_completions_is_rounded_down() -> None:
    assert sparse(torch.tensor([[3.0, 1.0, 2.0]]).numpy(), 0.5).tolist() == [[3.0, 0.0, 2.0]]


def test_optimum_of_a_sparse_reward_by_hand() -> None:
    """Two letters, length 1: '', a, b with reference 1/2, 1/4, 1/4, and only b is worth anything, 3. At beta = 2 Z is
    3/4 + e^1.5 / 4, J* = 2 log Z; the reference has J = 3/4."""
    tree = StringTree(2, 1)
    reference = torch.tensor([[[0.25, 0.25, 0.5]]], dtype=torch.float64).log()
    found = torch.from_numpy(sparse(torch.tensor([[-1.0, 1.0, 3.0]]).numpy(), 0.67)).double()
    assert found.tolist() == [[0.0, 0.0, 3.0]]
    z = 0.75 + math.exp(1.5) / 4
    table, log_z = optimal_policy(tree, reference, found, 2.0)
    assert float(log_z) == pytest.approx(math.log(z))
    assert completion_logprobs(tree, table).exp().tolist() == [pytest.approx([0.5 / z, 0.25 / z, math.exp(1.5) / 4 / z])]
    halfway = torch.tensor([[[0.25, 0.5, 0.25]]], dtype=torch.float64).log()
    kl = 0.25 * math.log(0.5) + 0.5 * math.log(2)
    measured = measures(tree, halfway, reference, found, 2.0)
    assert measured["J_star"] == pytest.approx(2 * math.log(z))
    assert measured["gap_closed"] == pytest.approx((1.5 - 2 * kl - 0.75) / (2 * math.log(z) - 0.75))


# --- what is known of the frontier ---


def test_curves_are_those_of_the_true_reward(make_task: Make) -> None:
    task = make_task(reward_noise=2.0)
    found, start = task.source.curves(), task.source.evaluate(task_models(task))
    assert found["exact"]
    assert found["reference"] == pytest.approx(start["expected_reward"])
    at_beta = [p["reward"] - p["kl"] for p in found["optimum"]]
    assert max(at_beta) == pytest.approx(start["J_star"], rel=1e-2)  # beta = 1 is nearly among them
    assert max(at_beta) <= start["J_star"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_flips": 0.6}, r"data.label_flips=0.6 is out of range: must be in \[0, 0.5\]"),
        ({"reward_noise": -1.0}, r"data.reward_noise=-1.0 is out of range: must be >= 0"),
        ({"sparsity": 1.0}, r"data.sparsity=1.0 is out of range: must be in \[0, 1\)"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Exact(**settings)


def test_a_prompt_view_needs_no_labels(make_task: Make) -> None:
    assert isinstance(make_task(view=Prompts, label_flips=0.4).tables.train.batch([0]), Prompts)
