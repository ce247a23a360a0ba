"""Losses on demonstrations beside plain likelihood, on table policies: DFT, scheduled sampling."""

import math

import pytest
import torch

from alignzoo import functional as F
from alignzoo.batch import Completions
from alignzoo.common.noise import Noise
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, prompts
from alignzoo_plugins.sft.dft import DFT
from alignzoo_plugins.sft.scheduled_sampling import Prediction, Schedule, ScheduledSampling

# the next token is the same again with probability 1/2, each other with 1/4
AGAIN = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], dtype=torch.float64).log()
FOUR, TWO = math.log(4), math.log(2)


def demonstration() -> Completions:
    """After a prompt that ends in 0 come 1, 2, 2."""
    return completions(prompts(0), [0], [[1, 2, 2]])


def test_dft_by_hand() -> None:
    """p = 1/4, 1/4, 1/2: log 4 / 4 twice, log 2 / 2; the gradient by log p is - p."""
    loss, _ = DFT().loss(FakeModels(TablePolicy(AGAIN)), demonstration())
    assert loss[0].tolist() == pytest.approx([FOUR / 4, FOUR / 4, TWO / 2], abs=1e-9)
    logprobs = torch.tensor([-FOUR, -TWO], requires_grad=True)
    F.dft_loss(logprobs).sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([-0.25, -0.5])


@pytest.mark.parametrize(
    ("schedule", "step", "pace", "value"),
    [
        (F.linear_decay, 1, 4.0, 0.75), (F.linear_decay, 9, 4.0, 0.0), (F.exponential_decay, 3, 3.0, 0.367879),
        (F.inverse_sigmoid_decay, 2, 2.0, 0.423883),  # 2 / (2 + e)
        (F.inverse_sigmoid_decay, 10**6, 2.0, 0.0),
    ],
)  # fmt: skip
def test_a_schedule_by_hand(schedule, step: int, pace: float, value: float) -> None:
    assert schedule(step, pace) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("uniforms", "prediction", "expected"),
    [
        # below e = 1/2 all stay: p = 1/4, 1/4, 1/2
        ([0.4, 0.4, 0.4], Prediction.likeliest, [FOUR, FOUR, TWO]),
        # after 0, 1, 2 the likeliest are 0, 1, 2, so the prefix of the last token is 1 1 in place of 1 2
        ([0.4, 0.6, 0.9], Prediction.likeliest, [FOUR, FOUR, FOUR]),
        # the second is drawn after 1, from masses 1/4, 3/4, 1: at 0.6 it is 1, at 0.8 it is 2, as in the data
        ([0.4, 0.6, 0.4], Prediction.sampled, [FOUR, FOUR, FOUR]),
        ([0.4, 0.8, 0.4], Prediction.sampled, [FOUR, FOUR, TWO]),
        # the first is 0 in place of 1: the second is 1 or 2 after 0
        ([0.5, 0.0, 0.0], Prediction.likeliest, [FOUR, FOUR, TWO]),
    ],
)
def test_the_second_pass_reads_predictions_of_the_first(
    uniforms: list[float], prediction: Prediction, expected: list[float]
) -> None:
    algorithm = ScheduledSampling(schedule=Schedule.linear, pace=4.0, prediction=prediction)
    for _ in range(2):
        algorithm.after_step({})
    models = FakeModels(TablePolicy(AGAIN), uniforms={0: uniforms})
    loss, metrics = algorithm.loss(models, demonstration())
    assert loss[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert metrics["replaced"][0].tolist() == [float(u >= 0.5) for u in uniforms]


def test_the_probability_does_not_fall_below_its_least() -> None:
    algorithm = ScheduledSampling(schedule=Schedule.linear, pace=1.0, least=0.5)
    algorithm.load_state_dict({"steps": 7})
    _, metrics = algorithm.loss(FakeModels(TablePolicy(AGAIN), uniforms={0: [0.4, 0.6, 0.4]}), demonstration())
    assert metrics["replaced"][0].tolist() == [0, 1, 0]


def test_uniforms_by_place_are_a_function_of_row_name_and_step() -> None:
    noise, rows = Noise(0), torch.tensor([3, 2**40])
    with noise.during("training", 5):
        drawn = noise.positions(rows, 1, 9, "replaced", 0)
        assert torch.equal(noise.positions(rows.flip(0), 1, 4, "replaced", 0).flip(0), drawn[:, :4])
        assert not torch.equal(noise.positions(rows, 1, 9, "predicted", 0), drawn)
    with noise.during("training", 6):
        assert not torch.equal(noise.positions(rows, 1, 9, "replaced", 0), drawn)


@pytest.mark.parametrize("setting", [{"pace": 0.0}, {"least": 1.0}])
def test_what_cannot_be_taken_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{next(iter(setting))}="):
        ScheduledSampling(**setting)
