"""Refills: prompts from which nothing can be learnt are replaced by the next of the order."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from alignzoo.batch import Prompts
from alignzoo.contracts import Kind, OnlineAlgorithm, Role, Scores
from alignzoo.engine import loader
from alignzoo.functional import spread
from alignzoo.settings import Rollout, UserError
from alignzoo.testing import toys
from alignzoo_plugins.grpo.grpo import GRPO
from alignzoo_plugins.reinforce.reinforce import Baseline, Reinforce

PACE = {"max_steps": 4, "save_steps": 1, "keep_checkpoints": 4}
COARSE = toys.CountReward(coarse=True)  # often equal


def run(folder, algorithm, refill, resume=None, reward=COARSE):
    made = toys.setup(algorithm, rollout=Rollout(prompts=4, samples=2, refill=refill), training=PACE, reward=reward)
    trainer = toys.trainer(made, folder)
    rollouts, done = [], trainer.rollout_done
    trainer.rollout_done = lambda rollout: (rollouts.append(rollout), done(rollout))
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer, rollouts, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_spread_of_a_group_by_hand():
    values, group = torch.tensor([1.0, 4.0, 7.0, 1.5, 9.0]), torch.tensor([3, 0, 3, 3, 0])
    assert spread(values, group).tolist() == [6, 5, 6, 6, 5]
    valid = torch.tensor([True, False, False, True, False])
    assert spread(values, group, valid).tolist() == [0.5, 0, 0.5, 0.5, 0]


@pytest.mark.parametrize("algorithm", [GRPO(beta=0.0, skip_equal=True), GRPO(), Reinforce(baseline=Baseline.leave_one_out)])
def test_a_rollout_is_full_of_prompts_to_learn_from(tmp_path, algorithm):
    """Whoever leaves them out, the algorithm or the rollout: four prompts each, all of which tell their completions apart, and
    the account has those that were left out too."""
    trainer, rollouts, rows = run(tmp_path, algorithm, 50)
    for rollout in rollouts:
        assert len(rollout.row.unique()) == 4 and (spread(rollout.reward, rollout.row) > 0).all()
    drawn, kept = trainer.loader.place, 4 * len(rollouts)
    assert drawn > kept and trainer.cost.counts["samples"] == 2 * drawn
    passed = set(trainer.order.records(0, drawn).row.tolist())
    assert {row for rollout in rollouts for row in rollout.row.tolist()} < passed
    dropped = [row["prompts_dropped"] for row in rows if "prompts_dropped" in row]
    # shares are means over rollouts: 1 - 4 / drawn each, so that 4 / (1 - share) prompts were drawn
    assert sum(4 / (1 - share) for share in dropped) == pytest.approx(drawn)
    assert all(row["prompts_missing"] == 0 and row["refills"] >= 0 for row in rows if "refills" in row)


def test_resumed_it_draws_the_same(tmp_path):
    whole, rollouts, rows = run(tmp_path / "whole", GRPO(), 50)
    resumed, rest, more = run(tmp_path / "resumed", GRPO(), 50, tmp_path / "whole/checkpoints/checkpoint-2")
    assert [r.ids.tolist() for r in rest] == [r.ids.tolist() for r in rollouts[-len(rest) :]]
    for (name, a), b in zip(whole.trained.state_dict().items(), resumed.trained.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [row["loss"] for row in rows if "loss" in row][2:] == [row["loss"] for row in more if "loss" in row]


def test_without_a_refill_an_order_goes_on_as_before(tmp_path):
    trainer, rollouts, rows = run(tmp_path, GRPO(), 0)
    assert trainer.loader.place == 4 * len(rollouts) and not any("refills" in row for row in rows)


class Equal(toys.CountReward):
    def __call__(self, c):
        return Scores(total=torch.ones(len(c)))


def test_what_can_never_be_filled_ends_and_says_so(tmp_path, monkeypatch, capsys):
    """A rollout and its three refills, twice: eight turns, in which nothing was kept."""
    monkeypatch.setattr(loader, "EMPTY_ROLLOUTS", 8)
    with pytest.raises(UserError, match="8 rollouts in a row kept no completion"):
        run(tmp_path, GRPO(), 3, reward=Equal())
    shown = capsys.readouterr().err
    assert shown.count("a rollout has 0 prompts instead of 4: of 16 drawn, with 3 refills") == 1


@dataclass(kw_only=True)
class Asking(OnlineAlgorithm):
    """Asks for more prompts, one by one."""

    times: int
    data = Prompts
    needs_logprobs_of_samples = False

    def roles(self):
        return {"policy": Role(kind=Kind.POLICY, trained=True, needs=frozenset({"generate", "logprobs"}))}

    def experience(self, models, batch):
        asked = Prompts.cat([batch, *(models.more_prompts(1) for _ in range(self.times))])
        return models.policy.generate(asked, models.sampling)

    def loss(self, models, batch):
        if self.times > 100:
            models.more_prompts(1)
        return -models.policy.logprobs(batch), {}


def test_an_algorithm_reads_on_by_itself(tmp_path):
    trainer, rollouts, _ = run(tmp_path / "a", Asking(times=3), 0)
    for i, rollout in enumerate(rollouts):
        assert rollout.row.unique().tolist() == sorted(trainer.order.records(7 * i, 7 * i + 7).row.tolist())
    with pytest.raises(UserError, match="asked for more prompts 100 times"):
        run(tmp_path / "b", Asking(times=101), 0)
    with pytest.raises(RuntimeError, match="more_prompts is for `experience`"):
        trainer.roles.more_prompts(1)


def test_a_rank_may_get_none_of_few_prompts(tmp_path):
    """Of three ranks and two prompts the first has none; together they have both, in order."""
    order = loader.Order(toys.ToyTable(Prompts, 10), seed=0)
    ranks = [loader.OnlineLoader(order, 6, 4, 4, 1, loader.Share(rank, 3), 0, None) for rank in range(3)]
    parts = [rank.more(2).row.tolist() for rank in ranks]
    assert parts[0] == [] and parts[1] + parts[2] == order.records(0, 2).row.tolist()
    trainer = toys.trainer(toys.setup(GRPO(), rollout=Rollout(prompts=4, samples=2)), tmp_path)
    assert len(trainer.sample(0, ranks[0].more(1))) == 0


def test_one_completion_has_no_other():
    with pytest.raises(UserError, match=r"give rollout\.samples >= 2"):
        Rollout(samples=1, refill=3)
