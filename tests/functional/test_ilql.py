"""ILQL on table policies, values and action values; and its decoding."""

import math

import pytest
import torch

from alignzoo import functional as F
from alignzoo.batch import Rated
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, TableValue, completions, prompts
from alignzoo_plugins.rated.ilql import ILQL

# after any token: pi(0) = 1/2, pi(1) = pi(2) = 1/4
PI = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
Q = torch.tensor([[math.log(2), 0.0, 0.0]] * 3, dtype=torch.float64)  # softmax: 1/2, 1/4, 1/4
TWIN = torch.zeros(3, 3, dtype=torch.float64)
TARGET = torch.tensor([[1.0, 0.25, 3.0]] * 3, dtype=torch.float64)
TARGET_TWIN = torch.tensor([[0.5, 2.0, 3.0]] * 3, dtype=torch.float64)


def models() -> FakeModels:
    heads = {"q": Q, "twin_q": TWIN, "target_q": TARGET, "target_twin_q": TARGET_TWIN}
    value = TableValue(torch.tensor([0.75, 0.125], dtype=torch.float64))
    return FakeModels(TablePolicy(PI), value=value, others={name: TablePolicy(table) for name, table in heads.items()})


def records() -> Rated:
    """The completion 0 1, rated 2."""
    return Rated(**vars(completions(prompts(1), [0], [[0, 1]])), rating=torch.tensor([2.0]))


def test_expectile_by_hand() -> None:
    """Targets 1 above and 2 below the value: tau 1, (1 - tau) 4."""
    loss = F.expectile_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, -2.0]), 0.7)
    assert loss.tolist() == pytest.approx([0.7, 1.2], abs=1e-6)


def test_the_least_loss_is_at_the_expectile() -> None:
    """Of targets 0 and 1 at tau 0.9 the expectile v has 0.9 (1 - v) = 0.1 v: v = 0.9."""
    values = torch.linspace(0, 1, 101, dtype=torch.float64)
    targets = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    assert values[F.expectile_loss(values, targets, 0.9).sum(0).argmin()].item() == pytest.approx(0.9)


def test_loss_by_hand() -> None:
    """gamma 1/2. First token, 0: reward 0, next value 1/8: G = 1/16; Q = ln 2 and 0. Second, 1: G = 2; Q = 0 and 0.
    Targets: min(1, 1/2) = 1/2, u = -1/4; min(1/4, 2) = 1/4, u = 1/8. tau 3/4: (1/4)(1/16), (3/4)(1/64).
    Conservative, c = 1/10: log 2 + log 3, log 4 + log 3. - log pi: log 2, log 4."""
    terms, metrics = ILQL(tau=0.75, conservatism=0.1, discount=0.5).loss(models(), records())
    first = (math.log(2) - 1 / 16) ** 2 + 1 / 256
    assert terms["q"][0].tolist() == pytest.approx([first, 8.0], abs=1e-9)
    assert terms["value"][0].tolist() == pytest.approx([1 / 64, 3 / 256], abs=1e-9)
    assert terms["conservative"][0].tolist() == pytest.approx([0.1 * math.log(6), 0.1 * math.log(12)], abs=1e-9)
    assert terms["policy"][0].tolist() == pytest.approx([math.log(2), math.log(4)], abs=1e-9)
    assert metrics["advantage"][0].tolist() == pytest.approx([-0.25, 0.125], abs=1e-9)


def test_the_gradient_of_each_term_stays_in_its_own_head() -> None:
    """d/dQ (Q - G)^2 + c (logsumexp Q - Q_y) at the first token: 2 (ln 2 - 1/16) + c (1/2 - 1); nothing through G. Into V at
    the first place, tau 3/4: 2 (1/4) (1/4); at the second, - 2 (3/4) (1/8), which the bootstrapped target does not add to."""
    given = models()
    q, value = Q.clone().requires_grad_(), torch.tensor([0.75, 0.125], dtype=torch.float64, requires_grad=True)
    given.others["q"], given.value = TablePolicy(q), TableValue(value)
    terms, _ = ILQL(tau=0.75, conservatism=0.1, discount=0.5).loss(given, records())
    torch.stack([term.sum() for term in terms.values()]).sum().backward()
    assert q.grad is not None and value.grad is not None
    assert q.grad[1, 0].item() == pytest.approx(2 * (math.log(2) - 1 / 16) - 0.05, abs=1e-9)
    assert value.grad.tolist() == pytest.approx([0.125, -0.1875], abs=1e-9)


def test_equal_to_trlx() -> None:
    """trlx's loss, from its source: Q by squared errors, V by tau and 1 - tau, cross-entropies of Q and of the policy times
    exp(beta A) with beta 0, each over the number of tokens; rewards on the last token, the value after it 0."""
    algorithm, c = ILQL(tau=0.7, conservatism=0.3, discount=0.9), records()
    terms, _ = algorithm.loss(models(), c)
    rewards, actions = torch.tensor([0.0, 2.0]), torch.tensor([0, 1])
    values, later = torch.tensor([0.75, 0.125]), torch.tensor([0.125, 0.0])
    target = torch.minimum(TARGET, TARGET_TWIN)[0, actions]
    both = [table[0].expand(2, -1) for table in (Q, TWIN)]
    cross_entropy = torch.nn.functional.cross_entropy
    ours = sum(term.sum() / 2 for term in terms.values())
    q = sum(((table[[0, 1], actions] - rewards - 0.9 * later) ** 2).sum() / 2 for table in both)
    v = (torch.where(target >= values, 0.7, 0.3) * (target - values) ** 2).sum() / 2
    rest = 0.3 * sum(cross_entropy(table, actions) for table in both) + cross_entropy(PI[[1, 0]], actions)
    assert float(ours) == pytest.approx(float(q + v + rest), abs=1e-6)


class Kept(TablePolicy):
    def adjusted(self, adjust, beside):
        return adjust, beside


def test_what_is_written_has_the_advantage_added() -> None:
    """beta 2, V 3/4, min of targets 1/2, 1/4, 3: logits log pi + (-1/2, -1, 9/2)."""
    given = models()
    given.policy = Kept(PI)
    adjust, beside = ILQL(beta=2.0).evaluation(given)["policy"]
    assert beside == [given.target_q, given.target_twin_q, given.value]
    logits = adjust(PI[:1], TARGET[:1], TARGET_TWIN[:1], torch.tensor([[0.75]], dtype=torch.float64))
    torch.testing.assert_close(logits - PI[:1], torch.tensor([[-0.5, -1.0, 4.5]], dtype=torch.float64))


@pytest.mark.parametrize(("name", "value"), [("tau", 1.0), ("tau", 0.4), ("beta", -1.0), ("decay", 1.0), ("discount", 1.5)])
def test_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"algorithm.{name}={value}"):
        ILQL(**{name: value})
