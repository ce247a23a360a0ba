"""Who supplies a role: the reward model behind a value network, the paths of `roles`, and the errors where nobody does."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from alignzoo.engine.checks import check_sizes
from alignzoo.models import modules
from alignzoo.models.references import AdapterOff, Cached, NoReference
from alignzoo.models.tokenizers import byte_level
from alignzoo.rewards.model import RewardModel
from alignzoo.rewards.task import NoReward
from alignzoo.settings import Generation, Model, Rollout, Training, Truncation, UserError
from alignzoo.testing import toys
from alignzoo_plugins.distill.distill import Distill, Source
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.ppo.ppo import PPO, ValueModel


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    """A sequence-classification model of the policy's shape and vocabulary, on disk."""
    folder = tmp_path_factory.mktemp("reward")
    config = modules.config(Model(config=dict(toys.LLAMA)), byte_level())
    config.num_labels = 1
    torch.manual_seed(7)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


def test_the_value_model_can_start_from_the_reward_model_with_a_zero_head(reward_model, tmp_path):
    made = toys.setup(PPO(value_model=ValueModel.reward), reward=RewardModel(path=str(reward_model)))
    trainer = toys.trainer(made, tmp_path)
    value = trainer.trained.roles["value"]
    saved = AutoModelForSequenceClassification.from_pretrained(reward_model).base_model.state_dict()
    for name, weight in value.trunk.state_dict().items():
        assert torch.equal(weight, saved[name]), name
    assert not value.head.weight.any() and not value.head.bias.any()
    trainer.train()
    assert value.head.weight.any()


def test_without_a_reward_model_there_is_nothing_to_start_from(tmp_path):
    with pytest.raises(
        UserError, match=r"the role value starts from the reward model: choose reward=model, or give roles.value"
    ):
        toys.trainer(toys.setup(PPO(value_model=ValueModel.reward)), tmp_path)


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        (PPO(), {"reward": NoReward()}, "ppo needs a reward, and there is none"),
        (DPO(), {"reference": NoReference()}, "dpo needs a reference model, and reference=none"),
        (DPO(), {"reference": AdapterOff()}, "reference=adapter needs a policy with an adapter: add peft=lora"),
        (Distill(source=Source.teacher), {"reference": Cached()}, None),
        (PPO(), {"generation": Generation(top_k=5)}, r"ppo needs the log-probs .* \(top_k=5, top_p=1.0, min_p=0.0\)"),
        (PPO(), {"generation": Generation(top_k=5, truncation=Truncation.accept)}, None),
        (PPO(), {"generation": Generation(temperature=0)}, "temperature=0 never varies them"),
    ],
)
def test_roles_and_sampling_are_checked_before_any_model_is_built(algorithm, changes, message, tmp_path, monkeypatch):
    if message is None:
        toys.trainer(toys.setup(algorithm, **changes), tmp_path)
        return
    monkeypatch.setattr(modules, "policy", lambda *_: pytest.fail("a model was built"))
    made = toys.setup(algorithm, type(algorithm).__name__.lower(), **changes)
    with pytest.raises(UserError, match=message):
        toys.trainer(made, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_fresh_model_and_an_existing_one_are_not_mixed():
    with pytest.raises(UserError, match=r"choose model=hf with model\.path"):
        Model(path="somewhere", config={"model_type": "llama"})


@pytest.mark.parametrize(
    ("training", "rollout", "ranks", "message"),
    [
        ({"batch": 8, "micro_batch": "3"}, {}, 1, r"trainer\.micro_batch=3 does not divide trainer\.batch=8"),
        ({"batch": 8, "micro_batch": "8"}, {}, 2, r"trainer\.micro_batch=8 does not divide .* over 2 processes \(4 each\)"),
        ({"batch": 9}, {}, 2, r"trainer\.batch=9 does not divide among 2 processes"),
        ({"batch": 8}, {"prompts": 3}, 2, r"rollout\.prompts=3 does not divide among 2 processes"),
    ],
)
def test_sizes_that_do_not_divide(training, rollout, ranks, message):
    with pytest.raises(UserError, match=message):
        check_sizes(PPO(), Training(**training), Rollout(**rollout), ranks)


def test_the_micro_batch_is_a_ranks_share_unless_given():
    assert check_sizes(PPO(), Training(batch=8), Rollout(), ranks=2) == 4
    assert check_sizes(PPO(), Training(batch=8, micro_batch="2"), Rollout(), ranks=2) == 2
