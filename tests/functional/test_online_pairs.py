"""Preferences on samples, on table policies: who is chosen, and the losses by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from alignzoo import functional as F
from alignzoo.contracts import Every
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, constant, prompts
from alignzoo_plugins.online_pairs.online_dpo import OnlineDPO
from alignzoo_plugins.online_pairs.spin import SPIN
from alignzoo_plugins.online_pairs.sppo import SPPO
from alignzoo_plugins.online_pairs.xpo import XPO
from alignzoo_plugins.raft.raft import RAFT

# the next token is 0 with probability 1/2, 1 and 2 with 1/4; the reference's is uniform
HALF = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
OF = prompts(1, 2)
# two prompts, three samples each
SAMPLES = completions(OF, [0, 0, 0, 1, 1, 1], [[0], [1], [2], [0, 0], [1], [2]])
REWARDS = [1.0, 3.0, 1.0, 2.0, 2.0, -1.0]


def models(rewards: list[float], valid: list[bool] | None = None) -> FakeModels:
    reference = TablePolicy(torch.zeros(3, 3, dtype=torch.float64))
    return FakeModels(TablePolicy(HALF, SAMPLES), reference=reference, score=constant(rewards, valid))


def first_tokens(c) -> list[int]:
    return c.ids[:, 0].tolist()


def test_the_best_beats_the_worst() -> None:
    """Of equal ones the first: 1 over 0 in the first prompt, 0 0 over 2 in the second."""
    pairs = OnlineDPO().experience(models(REWARDS), OF)
    assert (first_tokens(pairs.chosen), first_tokens(pairs.rejected)) == ([1, 0], [0, 2])
    assert (pairs.margin.tolist(), pairs.reward.tolist()) == ([2, 3], [2, 0.5])
    assert pairs.chosen.prompts.ids[pairs.chosen.prompt_of, -1].tolist() == [1, 2]


def test_samples_that_could_not_be_scored_take_no_part() -> None:
    """Without the first prompt's best its rewards are equal; without the second's worst too, but for an unscored one."""
    pairs = OnlineDPO().experience(models(REWARDS, [True, False, True, True, True, True]), OF)
    assert first_tokens(pairs.chosen) == [0] and pairs.chosen.prompts.ids[pairs.chosen.prompt_of, -1].tolist() == [2]
    assert len(OnlineDPO().experience(models([1.0] * 6), OF)) == 0


def test_extremes_of_nothing_are_none() -> None:
    nothing, scores = SAMPLES.take([]), torch.zeros(0)
    best, worst = (nothing.best(x, 1, torch.zeros(0, dtype=torch.bool)) for x in (scores, -scores))
    assert best.tolist() == worst.tolist() == []


def test_online_dpo_by_hand() -> None:
    """Chosen 1 and 0 0, rejected 0 and 2: h = log 3/4 - log 3/2 = - log 2, and 2 log 3/2 - log 3/4 = log 3: log 3, log 4/3."""
    given = models(REWARDS)
    loss, metrics = OnlineDPO(beta=1.0).loss(given, OnlineDPO().experience(given, OF))
    assert isinstance(loss, torch.Tensor)
    assert loss.tolist() == pytest.approx([math.log(3), math.log(4 / 3)], abs=1e-9)
    assert metrics["rewards/accuracy"].tolist() == [0, 1]


def test_xpo_compares_with_the_reference_and_leaves_it() -> None:
    """The reference writes 2 each time. Rewards by first token: 0, 1 and 2 have 1, 3 and 2: 0 loses, 1 wins, 2 ties."""
    worth = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    given = models([])
    assert given.reference is not None
    given.reference.samples = completions(OF, [0, 0, 0, 1, 1, 1], [[2]] * 6)
    given.score = lambda c: constant(worth[c.ids[:, 0]].tolist())(c)
    algorithm = XPO(beta=1.0, alpha=0.5)
    pairs = algorithm.experience(given, OF)
    assert (first_tokens(pairs.chosen), first_tokens(pairs.rejected)) == ([2, 1, 2, 1], [0, 2, 0, 2])
    assert pairs.references.tolist() == [True, False, True, False]
    terms, _ = algorithm.loss(given, pairs)
    assert isinstance(terms, dict)
    # h: 2 log 3/4, 0 log 3/2, 1 log 3/4: Delta = - log 2, 0; the third 2 log 3/4 less 2 log 3/2 of 0 0, Delta = - log 3
    assert terms["preference"].tolist() == pytest.approx([math.log(3), math.log(2), math.log(4), math.log(2)], abs=1e-9)
    assert terms["exploration"].tolist() == pytest.approx([-0.5 * math.log(4)] * 4, abs=1e-9)


def test_spin_prefers_the_demonstration_to_the_opponents_sample() -> None:
    """Demonstrations 0 and 2 over the opponent's samples; h of 0 is log 3/2, of 1 and 2 log 3/4."""
    given: Any = models([])
    given.opponent = TablePolicy(torch.zeros(3, 3, dtype=torch.float64), completions(OF, [0, 0, 1, 1], [[1], [2], [0], [2]]))
    pairs = SPIN().experience(given, completions(OF, [0, 1], [[0], [2]]))
    assert (first_tokens(pairs.chosen), first_tokens(pairs.rejected)) == ([0, 0, 2, 2], [1, 2, 0, 2])
    loss, _ = SPIN(beta=1.0).loss(given, pairs)
    assert isinstance(loss, torch.Tensor)
    third, half = math.log(3), math.log(2)
    assert loss.tolist() == pytest.approx([math.log(1.5), math.log(1.5), third, half], abs=1e-9)


def test_the_opponent_is_the_start_or_an_earlier_policy() -> None:
    assert SPIN().roles()["opponent"].follows is None
    assert SPIN(iteration=7).roles()["opponent"].follows == Every(7)


def test_win_rates_by_hand() -> None:
    """Rewards 0 and log 3: sigma(log 3) = 3/4, so (1/2 + 1/4) / 2 and (3/4 + 1/2) / 2; one alone has a half, as
    has who is not valid."""
    values, group = torch.tensor([0.0, math.log(3), 5.0, 9.0]), torch.tensor([4, 4, 7, 7])
    valid = torch.tensor([True, True, True, False])
    assert F.win_rates(values, group, valid).tolist() == pytest.approx([0.375, 0.625, 0.5, 0.5])


def test_sppo_by_hand() -> None:
    """Where the sampler was uniform: log-ratio of 0 log 3/2, of 1 and 2 log 3/4; P - 1/2 of rewards 0, log 3, 0: -1/12, 1/6,
    -1/12. eta 6: (0.405465 + 0.5)^2, (-0.287682 - 1)^2, (-0.287682 + 0.5)^2."""
    given = models([0.0, math.log(3), 0.0, 1.0, 1.0, 1.0])
    given.policy.table = torch.zeros(3, 3, dtype=torch.float64)
    batch = SPPO().experience(given, OF)
    given.policy.table = HALF
    loss, _ = SPPO(eta=6.0).loss(given, batch)
    assert loss[:3].tolist() == pytest.approx([0.819867, 1.658125, 0.045079], abs=1e-6)
    assert batch.win_rate[3:].tolist() == [0.5] * 3


def test_raft_learns_from_the_best() -> None:
    """- log p of 1; of 0 0, the first of two equal ones. The two best: 1 and the first 0; 0 0 and 1."""
    given = models(REWARDS)
    best = RAFT().experience(given, OF)
    assert (best.ids[:, 0].tolist(), best.reward.tolist()) == ([1, 0], [3, 2])
    loss, _ = RAFT().loss(given, best)
    assert loss.tolist() == [pytest.approx([math.log(4), 0]), pytest.approx([math.log(2)] * 2)]
    assert first_tokens(RAFT(kept=2).experience(given, OF)) == [0, 1, 0, 1]


def test_the_top_of_groups_that_stand_mixed() -> None:
    """Group 5 has 1, 4, 4 and 2 that is not valid, group 3 has 0 alone."""
    values, group = torch.tensor([1.0, 0.0, 4.0, 4.0, 9.0]), torch.tensor([5, 3, 5, 5, 5])
    valid, c = torch.tensor([True, True, True, True, False]), replace(SAMPLES.take(range(5)), row=group)
    top = [torch.isin(torch.arange(5), c.best(values, kept, valid)).tolist() for kept in (1, 4)]
    assert top[0] == [False, True, True, False, False]
    assert top[1] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("kind", "setting"),
    [(OnlineDPO, {"beta": 0.0}), (XPO, {"alpha": -1.0}), (SPIN, {"iteration": 0}), (SPPO, {"eta": 0.0}), (RAFT, {"kept": 0})],
)
def test_what_cannot_be_taken_is_refused(kind: Any, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{next(iter(setting))}="):
        kind(**setting)
