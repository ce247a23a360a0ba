"""rollout.lag: who samples is the policy of so many optimizer steps ago."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from alignzoo.contracts import Next
from alignzoo.settings import Rollout, UserError
from alignzoo.testing import toys
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.reinforce.reinforce import Reinforce

STEPS = 6


def run(folder, lag, algorithm=None, prompts=4, resume=None, **training):
    """The trainer, the policy's weights after 0, 1, ... steps, and of each step the minibatch that it learnt from."""
    pace = {"max_steps": STEPS, "save_steps": 1, "keep_checkpoints": STEPS} | training
    made = toys.setup(algorithm or Reinforce(), rollout=Rollout(prompts=prompts, samples=2, lag=lag), training=pace)
    trainer = toys.trainer(made, folder)
    weights, batches = [copy.deepcopy(trainer.trained.policy.state_dict())], []
    finish, loss = trainer.finish_step, trainer.compute_loss
    trainer.finish_step = lambda: (weights.append(copy.deepcopy(trainer.trained.policy.state_dict())), finish())
    trainer.compute_loss = lambda model, batch, **rest: (batches.append(batch), loss(model, batch, **rest))[1]
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer, weights, batches


@torch.no_grad()
def writer(trainer, weights, batch):
    """Which of the policies has the log-probs that its sampler had."""
    written = replace(batch, stamp=None)
    kept = copy.deepcopy(trainer.trained.policy.state_dict())
    off = []
    for state in weights:
        trainer.trained.policy.load_state_dict(state)
        off.append((trainer.roles.policy.logprobs(written) - batch.logprobs)[batch.scored].abs().max().item())
    trainer.trained.policy.load_state_dict(kept)
    (found,) = [age for age, distance in enumerate(off) if distance < 1e-6]
    return found


@pytest.mark.parametrize(
    ("lag", "prompts", "writers"),
    [
        (0, 4, [0, 1, 2, 3, 4, 5]),
        (1, 4, [0, 0, 1, 2, 3, 4]),
        (3, 4, [0, 0, 0, 0, 1, 2]),
        (0, 8, [0, 0, 2, 2, 4, 4]),  # a rollout is two steps
        (1, 8, [0, 0, 1, 1, 3, 3]),
        (2, 8, [0, 0, 0, 0, 2, 2]),
        (9, 8, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_rollout_is_by_the_policy_of_so_many_steps_ago(tmp_path, lag, prompts, writers):
    """A rollout whose first step is number t is by the policy after max(0, t - lag) steps; none is drawn that isn't used."""
    trainer, weights, batches = run(tmp_path, lag, prompts=prompts, learning_rate=0.3)
    assert [writer(trainer, weights, batch) for batch in batches] == writers
    assert trainer.cost.counts["samples"] == 8 * STEPS
    rows = trainer.order.records(0, 4 * STEPS).row.tolist()
    assert sorted(row for batch in batches for row in batch.row.tolist()) == sorted(rows * 2)


@pytest.mark.parametrize("algorithm", [Reinforce(), PPO(epochs=2)])
def test_resumed_in_the_middle_it_ends_the_same(tmp_path, algorithm):
    whole, _, batches = run(tmp_path / "whole", 3, copy.deepcopy(algorithm), prompts=8)
    for step in (1, 4):
        checkpoint = tmp_path / f"whole/checkpoints/checkpoint-{step}"
        resumed, _, rest = run(tmp_path / f"from-{step}", 3, copy.deepcopy(algorithm), 8, checkpoint)
        assert [b.ids.tolist() for b in rest] == [b.ids.tolist() for b in batches[step:]]
        for name, weight in whole.trained.state_dict().items():
            assert torch.equal(weight, resumed.trained.state_dict()[name]), name


def test_what_leaves_a_rollout_has_no_lag(tmp_path, monkeypatch):
    monkeypatch.setattr(Reinforce, "after_step", lambda self, metrics: Next.ROLLOUT, raising=False)
    with pytest.raises(UserError, match=r"rollout\.lag=2 can't be used with an algorithm that leaves a rollout"):
        run(tmp_path, 2)
