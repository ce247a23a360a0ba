"""Returns, advantages and baselines against hand-worked numbers, loops out of the textbook, and invariances."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor

from alignzoo.functional import discounted_returns, gae, group_advantages, leave_one_out, masked_mean, whiten
from tests.limits import HANG

ALL = torch.ones(1, 3, dtype=torch.bool)
NAN = float("nan")


def test_gae_by_hand() -> None:
    """gamma 0.9, lambda 0.5, V = (0.5, 0.4, 0.6), reward 1 at the end.

    delta = (0.9 * 0.4 - 0.5, 0.9 * 0.6 - 0.4, 1 - 0.6) = (-0.14, 0.14, 0.4)
    A_2 = 0.4; A_1 = 0.14 + 0.45 * 0.4 = 0.32; A_0 = -0.14 + 0.45 * 0.32 = 0.004; G = A + V.
    """
    advantages, returns = gae(torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.5, 0.4, 0.6]]), ALL, 0.9, 0.5)
    assert advantages[0].tolist() == pytest.approx([0.004, 0.32, 0.4], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([0.504, 0.72, 1.0], abs=1e-6)


def test_gae_takes_no_time_over_unscored_tokens_and_does_not_read_them() -> None:
    """The numbers of the hand-worked case with tool output between the first two tokens and padding at the end."""
    scored = torch.tensor([[1, 0, 0, 1, 1, 0]]).bool()
    rewards = torch.tensor([[0, NAN, 5.0, 0, 1, NAN]])
    values = torch.tensor([[0.5, 9.0, NAN, 0.4, 0.6, NAN]])
    advantages, returns = gae(rewards, values, scored, 0.9, 0.5)
    assert advantages[0].tolist() == pytest.approx([0.004, 0, 0, 0.32, 0.4, 0], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([0.504, 0, 0, 0.72, 1.0, 0], abs=1e-6)


def _textbook(rewards: list[float], values: list[float], discount: float, lam: float) -> list[float]:
    """The double sum of the definition: A_t = sum_l (gamma lambda)^l (r_{t+l} + gamma V_{t+l+1} - V_{t+l})."""
    after = [*values[1:], 0.0]
    deltas = [r + discount * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    return [sum((discount * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


@pytest.mark.parametrize(("discount", "lam"), [(1.0, 0.95), (0.9, 0.0), (0.99, 1.0), (0.5, 0.5)])
def test_gae_is_the_textbook_sum_over_the_scored_tokens_of_each_row(discount: float, lam: float) -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 6, 9, dtype=torch.float64)
    scored = torch.rand(6, 9) < 0.6
    advantages, _ = gae(rewards, values, scored, discount, lam)
    for row in range(6):
        mask = scored[row]
        expected = _textbook(rewards[row][mask].tolist(), values[row][mask].tolist(), discount, lam)
        assert advantages[row][mask].tolist() == pytest.approx(expected, abs=1e-9)
        assert not advantages[row][~mask].any()


def test_gae_with_lambda_one_is_the_return_minus_the_value() -> None:
    torch.manual_seed(1)
    rewards, values = torch.randn(2, 4, 7)
    scored = torch.rand(4, 7) < 0.7
    advantages, returns = gae(rewards, values, scored, 0.9, 1.0)
    expected = discounted_returns(rewards, scored, 0.9)
    torch.testing.assert_close(returns, expected)
    torch.testing.assert_close(advantages, torch.where(scored, expected - values, 0))


def test_gae_of_a_row_without_scored_tokens_is_zero() -> None:
    advantages, returns = gae(torch.full((1, 3), NAN), torch.full((1, 3), NAN), ~ALL, 0.9, 0.9)
    assert not advantages.any() and not returns.any()


def test_discounted_returns_by_hand() -> None:
    """gamma 1/2, rewards (1, 2, 4): G_2 = 4, G_1 = 2 + 2 = 4, G_0 = 1 + 2 = 3; undiscounted 7, 6, 4."""
    rewards = torch.tensor([[1.0, 2, 4]])
    assert discounted_returns(rewards, ALL, 0.5).tolist() == [[3, 4, 4]]
    assert discounted_returns(rewards, ALL).tolist() == [[7, 6, 4]]


def test_leave_one_out_by_hand() -> None:
    """Of (1, 3, 5) the others' means are 4, 3, 2; of (10, 20) they are 20, 10. Groups need not be neighbours."""
    values, group = torch.tensor([1.0, 10, 3, 5, 20]), torch.tensor([7, 2, 7, 7, 2])
    assert leave_one_out(values, group).tolist() == [4, 20, 3, 2, 10]


def test_leave_one_out_ignores_invalid_values_and_gives_the_lonely_their_own() -> None:
    """Without the 3, 1 and 5 are each other's baseline; 10 has nobody left."""
    values, group = torch.tensor([1.0, 10, NAN, 5, NAN]), torch.tensor([7, 2, 7, 7, 2])
    valid = torch.tensor([True, True, False, True, False])
    assert leave_one_out(values, group, valid)[valid].tolist() == [5, 10, 1]


def test_leave_one_out_advantage_is_a_multiple_of_the_distance_from_the_mean() -> None:
    """R_i - mean of the others = k / (k - 1) (R_i - mean of all)."""
    values = torch.randn(4, dtype=torch.float64)
    advantage = values - leave_one_out(values, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(advantage, 4 / 3 * (values - values.mean()))


def test_whiten_by_hand() -> None:
    """Mean 2, variance 2/3: (1 - 2) / sqrt(2/3) = -1.224745. The masked entry is neither read nor moved off 0."""
    mask = torch.tensor([True, True, True, False])
    assert whiten(torch.tensor([1.0, 2, 3, NAN]), mask).tolist() == pytest.approx([-1.224745, 0, 1.224745, 0], abs=1e-5)


def test_whiten_of_equal_or_absent_values_is_finite() -> None:
    assert whiten(torch.full((3,), 5.0), torch.ones(3).bool()).tolist() == [0, 0, 0]
    assert whiten(torch.full((3,), NAN), torch.zeros(3).bool()).tolist() == [0, 0, 0]
    assert masked_mean(torch.full((3,), NAN), torch.zeros(3).bool()).item() == 0


EQUAL = [(1.1, 10), (10.1, 6), (100.1, 64), (1000.1, 64), (0.1, 7), (-3.3e4, 1000), (1e-6, 9)]


@pytest.mark.parametrize(("value", "count"), EQUAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_values_none_is_better_whatever_their_size(value: float, count: int, dtype: torch.dtype) -> None:
    """Their mean is no float32 number that a float32 sum finds: 100.1 64 times was 0.378 standard deviations above itself."""
    x, group = torch.full((count,), value, dtype=dtype), torch.zeros(count, dtype=torch.long)
    assert whiten(x, torch.ones(count, dtype=torch.bool)).tolist() == [0] * count
    assert group_advantages(x, group).tolist() == group_advantages(x, group, scale=False).tolist() == [0] * count
    if dtype is torch.float32:
        assert (x - leave_one_out(x, group)).tolist() == [0] * count
        assert masked_mean(x, torch.ones(count, dtype=torch.bool)).item() == x[0].item()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_values_apart_by_rounding_are_equal_and_those_apart_by_more_are_not(size: float) -> None:
    """0.1 + 0.2 is 0.3. A hundredth more is more: deviations d = -+0.005 sizes, whitened d / sqrt(d^2 + 1e-8)."""
    rounded = size * (torch.tensor([0.1, 0.3, 0.3]) + torch.tensor([0.2, 0.0, 2.9e-8]))
    assert len(rounded.unique()) > 1
    assert not whiten(rounded, torch.ones(3).bool()).any()
    assert not group_advantages(rounded, torch.zeros(3, dtype=torch.long)).any()
    d = 0.005 * size
    expected = d / math.sqrt(d**2 + 1e-8)
    found = whiten(torch.tensor([size, 1.01 * size]), torch.ones(2).bool())
    assert found.tolist() == pytest.approx([-expected, expected], abs=1e-4)


def _on_ranks(count: int, run: Callable[[int, Callable[[Tensor], Tensor]], Tensor]) -> list[Tensor]:
    """run(rank, sum over ranks) on as many threads."""
    barrier, posted = Barrier(count, timeout=HANG), [torch.empty(0)] * count

    def total(rank: int, x: Tensor) -> Tensor:
        posted[rank] = x
        barrier.wait()
        summed = torch.stack(posted).sum(0)
        barrier.wait()
        return summed

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: run(rank, lambda x: total(rank, x)), range(count)))


def test_whiten_over_ranks_is_that_of_all_of_them() -> None:
    torch.manual_seed(2)
    x, mask = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4) < 0.7
    parts = [slice(0, 1), slice(1, 5)]
    whitened = _on_ranks(2, lambda rank, total: whiten(x[parts[rank]], mask[parts[rank]], total))
    torch.testing.assert_close(torch.cat(whitened), whiten(x, mask))
