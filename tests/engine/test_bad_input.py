"""What goes wrong with rewards and completions, on algorithms that learn from their own samples."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext

import pytest
import torch

from alignzoo.contracts import Scores
from alignzoo.engine import loader
from alignzoo.engine.checks import check_sizes
from alignzoo.models.networks import PolicyNetwork
from alignzoo.settings import Model, Rollout, Training, UserError
from alignzoo.testing import toys
from alignzoo_plugins.distill.self_distill import SelfDistill
from alignzoo_plugins.grpo.cispo import CISPO
from alignzoo_plugins.grpo.gdpo import GDPO
from alignzoo_plugins.grpo.gmpo import GMPO
from alignzoo_plugins.grpo.grpo import GRPO, Average, Ratio
from alignzoo_plugins.grpo.maxrl import MaxRL
from alignzoo_plugins.grpo.reinforce_pp_baseline import ReinforcePPBaseline
from alignzoo_plugins.grpo.sapo import SAPO
from alignzoo_plugins.kto.kto import KTO
from alignzoo_plugins.online_pairs.online_dpo import OnlineDPO
from alignzoo_plugins.online_pairs.sppo import SPPO
from alignzoo_plugins.online_pairs.xpo import XPO
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.raft.raft import RAFT
from alignzoo_plugins.reinforce.reinforce import Baseline, Reinforce

ADVANTAGES = {
    "grpo": GRPO, "dr_grpo": lambda: GRPO(beta=0.0, scale=False, average=Average.constant),
    "gspo": lambda: GRPO(beta=0.0, ratio=Ratio.completion), "cispo": CISPO, "gmpo": GMPO, "sapo": SAPO,
    "maxrl": MaxRL, "gdpo": GDPO, "reinforce_pp_baseline": ReinforcePPBaseline, "rloo": lambda: Reinforce(beta=0.0),
    "opo": lambda: Reinforce(beta=0.0, baseline=Baseline.length_weighted),
}  # fmt: skip
OTHERS = {"online_dpo": OnlineDPO, "xpo": XPO, "sppo": SPPO, "raft": RAFT, "ppo": PPO}
ALL = ADVANTAGES | OTHERS


@dataclasses.dataclass(kw_only=True)
class Linear(toys.CountReward):
    offset: float = 0.0
    scale: float = 1.0

    def __call__(self, c):
        return Scores(total=self.offset + self.scale * super().__call__(c).total)


def run(folder, algorithm, reward, refill=0):
    rollout = Rollout(prompts=4, samples=2, refill=refill)
    trainer = toys.trainer(toys.setup(algorithm, rollout=rollout, training={"max_steps": 2}, reward=reward), folder)
    before = [weight.clone() for weight in trainer.trained.parameters()]
    trainer.train()
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(trainer.trained.parameters(), before, strict=True))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return moved, [row for row in rows if "loss" in row]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_move_nothing_and_are_counted(tmp_path, name):
    moved, rows = run(tmp_path, ADVANTAGES[name](), Linear(offset=1e6 + 0.1, scale=0.0))
    assert moved == 0 and all(row["equal_groups"] == 1 for row in rows)


@pytest.mark.parametrize("name", ["sppo", "raft"])
def test_equal_rewards_are_counted_where_something_is_learnt_all_the_same(tmp_path, name):
    _, rows = run(tmp_path, OTHERS[name](), Linear(scale=0.0))
    assert all(row["equal_groups"] == 1 for row in rows)


@pytest.mark.parametrize("name", ["grpo", "rloo", "sppo", "ppo"])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1e6), (0.0, 1e-6), (1.0, 1e-6)])
def test_large_rewards_and_a_small_spread_teach(tmp_path, name, offset, scale):
    moved, rows = run(tmp_path, ALL[name](), Linear(offset=offset, scale=scale))
    assert 0 < moved < 1 and all(abs(row["loss"]) < 1e13 for row in rows)


@pytest.mark.parametrize("name", OTHERS)
def test_a_rollout_is_refilled_with_prompts_that_tell(tmp_path, name):
    """Also where one record of a prompt, or a pair, is left of its completions."""
    _, rows = run(tmp_path, ALL[name](), toys.CountReward(coarse=True), refill=50)
    filled = [row for row in rows if "refills" in row]
    assert filled and all(row["prompts_missing"] == 0 for row in filled)
    assert all(row.get("equal_groups", 0) == 0 for row in rows)


@pytest.mark.parametrize("name", ["rloo", "xpo", "raft"])
def test_what_can_never_be_filled_ends(tmp_path, monkeypatch, name):
    monkeypatch.setattr(loader, "EMPTY_ROLLOUTS", 4)
    with pytest.raises(UserError, match="4 rollouts in a row kept no completion"):
        run(tmp_path, ALL[name](), Linear(scale=0.0), refill=1)


def test_ties_that_an_algorithm_drops_are_counted(tmp_path):
    _, rows = run(tmp_path, OnlineDPO(), toys.CountReward(coarse=True))
    dropped = [row["prompts_dropped"] for row in rows if "prompts_dropped" in row]
    assert dropped and 0 < max(dropped) < 1 and all(share % 0.25 == 0 for share in dropped)


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"ppo", "xpo"}))
def test_a_group_of_one_is_refused(name):
    with pytest.raises(UserError, match=r"rollout\.samples=1 is too few: .* compares the completions of a prompt, at least 2"):
        check_sizes(ALL[name](), Training(), Rollout(samples=1), 1)


@pytest.mark.parametrize("name", ["grpo", "opo", "gmpo", "xpo", "raft"])
def test_completions_without_a_token(tmp_path, monkeypatch, name):
    """Every third has none: what is learnt of the others stays finite."""
    generate = PolicyNetwork.generate

    def emptied(self, *arguments, **keywords):
        c = generate(self, *arguments, **keywords)
        written = (torch.arange(len(c)) % 3 != 0)[:, None]
        return dataclasses.replace(c, scored=c.scored & written, attended=c.attended & written, logprobs=None)

    monkeypatch.setattr(PolicyNetwork, "generate", emptied)
    moved, rows = run(tmp_path, ALL[name](), toys.CountReward())
    assert 0 < moved < 1 and all(abs(row["loss"]) < 1e6 for row in rows)


def test_a_user_hears_what_is_odd_about_the_data(tmp_path, capsys):
    toys.trainer(toys.setup(KTO(threshold=2.0)), tmp_path)
    assert capsys.readouterr().err.startswith("alignzoo: all completions are undesirable: their ratings, 0 to 1, are not above")


def test_what_the_teacher_is_given_fits_the_context(tmp_path):
    """Prompt, demonstration and prompt again have up to 19 tokens."""
    for positions, fits in ((25, True), (20, False)):
        made = toys.setup(SelfDistill(), model=Model(config=toys.LLAMA | {"max_position_embeddings": positions}))
        with (
            nullcontext() if fits else pytest.raises(UserError, match=r"record \d+: .* tokens, and of the context .* leaves 14")
        ):
            toys.trainer(made, tmp_path)
