"""Losses on completions that are rated one by one, on table policies: BCO, KTO's estimate in TRL, weighed likelihoods."""

import math
from dataclasses import replace

import pytest
import torch

from alignzoo import functional as F
from alignzoo.batch import Rated
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, TableValue, completions, prompts
from alignzoo_plugins.kto.bco import BCO
from alignzoo_plugins.kto.kto_trl import KTOTRL
from alignzoo_plugins.rated.awr import AWR
from alignzoo_plugins.rated.rwr import RWR
from alignzoo_plugins.rated.unlikelihood import Unlikelihood, earlier

# the next token is the same again with probability 1/2, each other with 1/4; the reference's is uniform
AGAIN = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], dtype=torch.float64).log()
UP, DOWN = math.log(1.5), math.log(0.75)  # log pi / ref of the token before once more, and of another


def models(**more) -> FakeModels:
    return FakeModels(TablePolicy(AGAIN), reference=TablePolicy(torch.zeros(3, 3, dtype=torch.float64)), **more)


def records() -> Rated:
    """Prompts that end in 1, 2, 0, with completions 0, 2 and 1 1: h = DOWN, UP, DOWN + UP."""
    c = completions(prompts(1, 2, 0), [0, 1, 2], [[0], [2], [1, 1]])
    return Rated(**vars(c), rating=torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))


def test_bco_by_hand() -> None:
    """Means of h: (2 DOWN + UP) / 2 = -0.084950 and UP = 0.405465; delta / beta = 0.160258; at beta 2 the logits are
    -0.895880, 0.490414, -0.084950: log(1 + exp(0.895880)), log(1 + exp(0.490414)), log(1 + exp(0.084950))."""
    algorithm = BCO(beta=2.0)
    (batch,) = algorithm.prepare(models(), [records()])
    loss, metrics = algorithm.loss(models(), batch)
    assert loss.tolist() == pytest.approx([1.238226, 0.968121, 0.736524], abs=1e-5)
    assert metrics["reference_point"][0].item() == pytest.approx(0.320515, abs=1e-6)


@pytest.mark.parametrize(("decay", "third"), [(None, (1.0 + 2.0 + 0.320515) / 3), (0.9, 0.9 * 1.5 + 0.1 * 0.320515)])
def test_the_shift_of_bco_remembers(decay: float | None, third: float) -> None:
    """Steps gave 1 and 2, whose mean is 1.5; the third has 0.320515 by itself."""
    algorithm = BCO(beta=2.0, decay=decay)
    algorithm.load_state_dict({"shift": 1.5, "steps": 2})
    (batch,) = algorithm.prepare(models(), [records()])
    assert algorithm.loss(models(), batch)[1]["reference_point"][0].item() == pytest.approx(third, abs=1e-6)
    algorithm.after_step({"reference_point": third})
    assert algorithm.state_dict() == {"shift": third, "steps": 3}


def test_a_step_of_one_kind_gives_its_mean() -> None:
    (batch,) = BCO().prepare(models(), [replace(records(), rating=torch.ones(3))])
    assert batch.reference_point[0].item() == pytest.approx((2 * DOWN + 2 * UP) / 3, abs=1e-9)


def test_trls_reference_point_is_of_neighbours() -> None:
    """In twos: prompt 1 gets 2 and prompt 2 gets 0, DOWN each, so z = 0; the third is alone and keeps 1 1. In fours: 1 1, 0 and
    2 under prompts 1, 2, 0. However the step is cut."""
    two, four = [KTOTRL(together=n).prepare(models(), [records()])[0].reference_point for n in (2, 4)]
    assert two.tolist() == pytest.approx([0, 0, DOWN + UP], abs=1e-9)
    assert four.tolist() == pytest.approx([(2 * UP + 2 * DOWN) / 3] * 3, abs=1e-9)
    parts = KTOTRL(together=2).prepare(models(), [records().take([2]), records().take([1, 0])])
    assert [part.reference_point.tolist() for part in parts] == [[two[2].item()], [0, 0]]


def test_a_rotation_takes_the_record_before() -> None:
    assert F.rotations(torch.zeros(7), 3).tolist() == [2, 0, 1, 5, 3, 4, 6]


def test_rwr_by_hand() -> None:
    """Ratings 1, 0, 1 at temperature 1/2: weights 1, exp(-2), 1 of the largest; the loss is - log pi: log 4, log 2, log 8."""
    algorithm = RWR(temperature=0.5)
    (batch,) = algorithm.prepare(models(), [records()])
    loss, _ = algorithm.loss(models(), batch)
    assert algorithm.weights(batch)["loss"].tolist() == pytest.approx([1, 0.135335, 1], abs=1e-6)
    assert loss.tolist() == pytest.approx([math.log(4), math.log(2), math.log(8)], abs=1e-9)


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_rwr_is_finite_whatever_the_ratings(scale: float) -> None:
    """At 1e6 only the best count, at 1e-6 all alike; what an empty completion is rated does not count."""
    batch = replace(
        records(), rating=scale * torch.tensor([1.0, 3.0, 2.0]), scored=records().scored & torch.tensor([[1], [0], [1]]).bool()
    )
    (weighed,) = RWR().prepare(models(), [batch])
    expected = [0, 0, 1] if scale > 1 else [1, 0, 1]
    assert RWR().weights(weighed)["loss"].tolist() == pytest.approx(expected, abs=1e-5)


def test_awr_by_hand() -> None:
    """Values 1/2 and 1/4 by place, lambda 1/2: one token: A = rating - 1/2 = 1/2, -1/2. Two: A_2 = 1 - 1/4, A_1 = 1/4 - 1/2
    + A_2 / 2 = 1/8; G = A + V. Weights at temperature 1/2: exp(1), exp(-1), exp(1/4), and exp(3/2) cut at 3."""
    algorithm = AWR(temperature=0.5, gae_lambda=0.5, limit=3.0, value_coef=2.0, whiten=False)
    given = models(value=TableValue(torch.tensor([0.5, 0.25], dtype=torch.float64)))
    (batch,) = algorithm.prepare(given, [records()])
    terms, _ = algorithm.loss(given, batch)
    weights = [math.e, math.exp(-1), math.exp(0.25), 3]
    likelihoods = [math.log(4), math.log(2), math.log(4), math.log(2)]
    assert batch.weight[batch.scored].tolist() == pytest.approx(weights, abs=1e-9)
    assert terms["policy"][batch.scored].tolist() == pytest.approx([w * x for w, x in zip(weights, likelihoods, strict=True)])
    assert terms["value"][batch.scored].tolist() == pytest.approx([0.25, 0.25, 0.015625, 0.5625])


def test_whitened_advantages_do_not_depend_on_how_the_step_is_cut() -> None:
    """A = 1/2, -1/2, 1/8, 3/4: mean 7/32, variance 0.269531 - 0.047852 = 0.221680."""
    algorithm, given = AWR(gae_lambda=0.5), models(value=TableValue(torch.tensor([0.5, 0.25], dtype=torch.float64)))
    (whole,) = algorithm.prepare(given, [records()])
    parts = algorithm.prepare(given, [records().take([0, 1]), records().take([2])])
    expected = [math.exp((a - 0.21875) / 0.470829) for a in (0.5, -0.5, 0.125, 0.75)]
    assert whole.weight[whole.scored].tolist() == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(torch.cat([part.weight[part.scored] for part in parts]), whole.weight[whole.scored])


def test_unlikelihood_by_hand() -> None:
    """p = 1/4, 1/2, and 1/4 and 1/2: desirable - log p; the undesirable one - 3 log(1 - 1/2)."""
    loss, _ = Unlikelihood(alpha=3.0).loss(models(), records())
    assert loss[records().scored].tolist() == pytest.approx([math.log(4), 3 * math.log(2), math.log(4), math.log(2)], abs=1e-9)


def test_what_was_written_before_is_unlikely_to_come_again() -> None:
    """After prompt 0 come 1, 2, 2, 1. Before them: nothing; 1; 1, for 2 is the token itself; 2. Of the
    token before once more p is 1/2, of another 1/4."""
    c = completions(prompts(0), [0], [[1, 2, 2, 1]])
    batch = Rated(**vars(c), rating=torch.ones(1))
    assert earlier(c)[0].tolist() == [[-1] * 4, [1, -1, -1, -1], [1, -1, -1, -1], [-1, 2, -1, -1]]
    loss, _ = Unlikelihood(repeats=2.0).loss(models(), batch)
    plain, _ = Unlikelihood().loss(models(), batch)
    assert (loss - plain)[0].tolist() == pytest.approx([0, 2 * math.log(2), -2 * DOWN, 2 * math.log(2)], abs=1e-9)


def test_a_certain_token_has_a_finite_unlikelihood() -> None:
    assert F.unlikelihood(torch.zeros(1)).item() == pytest.approx(5 * math.log(10), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (KTOTRL, {"together": 1}),
        (BCO, {"decay": 1.0}),
        (RWR, {"temperature": 0.0}),
        (AWR, {"limit": 0.0}),
        (Unlikelihood, {"alpha": 0.0}),
        (Unlikelihood, {"threshold": float("nan")}),
    ],
)
def test_what_cannot_be_taken_is_refused(kind, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{next(iter(setting))}="):
        kind(**setting)
