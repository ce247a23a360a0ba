"""SFT and DPO on table policies."""

import math

import pytest
import torch

from alignzoo.batch import Completions, Pairs
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, prompts, table
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.sft.sft import SFT

THIRDS = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()


def test_sft_is_the_negative_log_likelihood_of_scored_tokens() -> None:
    """Token 0 has probability 1/2, 1 and 2 have 1/4: log 2 and log 4. The second token of row 1 is attended, not scored."""
    batch = completions(prompts(1, 2), [0, 1], [[0, 1], [2, 0, 0]], [[1, 1], [1, 0, 1]])
    loss, metrics = SFT().loss(FakeModels(TablePolicy(THIRDS)), batch)
    two, four = math.log(2), math.log(4)
    torch.testing.assert_close(loss, torch.tensor([[two, four, 0], [four, 0, two]], dtype=torch.float64))
    assert metrics == {}


def test_sft_needs_the_policy_alone() -> None:
    assert {name: role.trained for name, role in SFT().roles().items()} == {"policy": True}
    assert SFT().data is Completions


def _pairs(chosen: list[list[int]], rejected: list[list[int]], scored: list[list[list[int]]] | None = None) -> Pairs:
    """`scored`: the marks of both sides."""
    of, rows, marks = prompts(*[1] * len(chosen)), list(range(len(chosen))), scored or [None, None]
    return Pairs(chosen=completions(of, rows, chosen, marks[0]), rejected=completions(of, rows, rejected, marks[1]))


def _models(policy: torch.Tensor = THIRDS) -> FakeModels:
    uniform = torch.zeros(3, 3, dtype=torch.float64)
    return FakeModels(TablePolicy(policy), reference=TablePolicy(uniform))


def test_dpo_by_hand() -> None:
    """Chosen (0, 0), rejected (1): h = 2 log(1/2 / 1/3) = 0.810930 and log(1/4 / 1/3) = -0.287682; Delta 1.098612 = log 3.
    beta 1: - log sigma(log 3) = log 4/3 = 0.287682."""
    loss, metrics = DPO(beta=1.0).loss(_models(), _pairs([[0, 0]], [[1]]))
    assert loss.item() == pytest.approx(0.287682, abs=1e-6)
    assert metrics["rewards/chosen"].item() == pytest.approx(0.810930, abs=1e-6)
    assert metrics["rewards/rejected"].item() == pytest.approx(-0.287682, abs=1e-6)
    assert metrics["rewards/margin"].item() == pytest.approx(1.098612, abs=1e-6)
    assert metrics["rewards/accuracy"].item() == 1.0


def test_dpo_label_smoothing_reaches_the_loss() -> None:
    """0.9 * 0.287682 + 0.1 * (0.287682 + 1.098612) = 0.397543."""
    loss, _ = DPO(beta=1.0, label_smoothing=0.1).loss(_models(), _pairs([[0, 0]], [[1]]))
    assert loss.item() == pytest.approx(0.397543, abs=1e-6)


def test_dpo_at_the_reference_is_log_two_and_counts_no_tie_as_right() -> None:
    models = _models(table(0, vocabulary=3))
    models.reference = models.policy
    loss, metrics = DPO().loss(models, _pairs([[0, 1], [2]], [[1], [1, 1, 0]]))
    assert loss.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-12)
    assert metrics["rewards/accuracy"].tolist() == [0, 0]


def test_dpo_reads_scored_tokens_only() -> None:
    """A first token that the policy did not write is worth nothing; in this table every token is as likely after any other."""
    marked = _pairs([[1, 0, 0]], [[1]], scored=[[[0, 1, 1]], [[1]]])
    plain, _ = DPO(beta=1.0).loss(_models(), _pairs([[0, 0]], [[1]]))
    torch.testing.assert_close(DPO(beta=1.0).loss(_models(), marked)[0], plain)


def test_dpo_with_an_empty_side_has_finite_loss_and_gradient_and_no_weight() -> None:
    policy = table(1, vocabulary=3)
    pairs = _pairs([[0, 1], [1]], [[1], [2]], scored=[[[1, 1], [1]], [[1], [0]]])
    loss, _ = DPO().loss(_models(policy), pairs)
    loss.sum().backward()
    assert loss.isfinite().all() and policy.grad is not None and policy.grad.isfinite().all()
    assert pairs.counted.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("setting", "value"), [("beta", 0.0), ("beta", -1.0), ("label_smoothing", 0.5), ("label_smoothing", -0.1)]
)
def test_dpo_refuses_what_is_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{setting}={value}"):
        DPO(**{setting: value})
