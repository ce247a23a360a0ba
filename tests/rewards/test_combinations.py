"""`task`, `none` and sums of rewards."""

from dataclasses import dataclass

import pytest
import torch

from alignzoo.contracts import Kind, LearningReward, Role, Scores
from alignzoo.rewards.combinations import WeightedSum
from alignzoo.rewards.task import NoReward, Task
from alignzoo.settings import UserError

LENGTH = {"kind": "function", "path": "alignzoo.rewards.text:length"}
EACH = {"kind": "function", "path": "alignzoo.rewards.text:each_token", "arguments": {"token": 3 + ord("e")}}
SOME = {"kind": "function", "path": "tests_of_sums:some"}


@dataclass(kw_only=True)
class Learning(LearningReward):
    """A reward that learns."""

    def __post_init__(self):
        self.state, self.context = 0, None

    def setup(self, context):
        self.context = context

    def __call__(self, c):
        return Scores(total=torch.full((len(c),), 2.0), parts={"inner": torch.arange(3.0)})

    def roles(self):
        return {"critic": Role(kind=Kind.SCORER, trained=True)}

    def loss(self, models, batch):
        return torch.ones(3), {"accuracy": torch.ones(3)}

    def weights(self, batch):
        return {"loss": torch.tensor([1.0, 0.0, 1.0])}

    def state_dict(self):
        return {"state": self.state}

    def load_state_dict(self, state):
        self.state = state["state"]


@pytest.fixture
def own(source, monkeypatch):
    """Data whose own reward learns."""
    reward = Learning()
    monkeypatch.setattr(source, "reward", lambda: reward, raising=False)
    return source


def test_task_is_the_datas_own_reward_and_none_is_none(source, own):
    assert isinstance(Task().resolve(own), Learning)
    assert NoReward().resolve(own) is None


def test_data_without_a_reward_has_none(source, completions):
    assert Task().resolve(source) is None
    with pytest.raises(UserError, match="this data has none: choose reward=function"):
        Task()(completions)
    with pytest.raises(UserError, match="reward=none scores nothing"):
        NoReward()(completions)


def test_parts_are_weighed_and_reported_before_weighing(own, completions):
    reward = WeightedSum(parts={"long": {**LENGTH, "weight": 0.5}, "own": {"kind": "task"}}).resolve(own)
    scores = reward(completions)
    assert scores.total.tolist() == [0.5 * 2 + 2, 0.5 * 1 + 2, 0.5 * 3 + 2]
    assert scores.parts["long"].tolist() == [2.0, 1.0, 3.0]
    assert scores.parts["own"].tolist() == [2.0] * 3
    assert scores.parts["own/inner"].tolist() == [0.0, 1.0, 2.0]
    assert scores.valid.all()


def test_a_part_by_token_makes_the_sum_by_token(source, completions):
    scores = WeightedSum(parts={"long": LENGTH, "e": {**EACH, "weight": -1}}).resolve(source)(completions)
    assert scores.total.shape == completions.ids.shape
    assert completions.sum(scores.total).tolist() == [2.0 - 1, 1.0 - 0, 3.0 - 2]
    assert scores.total[0].tolist()[:8] == [0, 0, -1, 0, 0, 0, 0, 2]
    assert scores.parts["e"].tolist() == [1.0, 0.0, 2.0]


def test_sums_nest_and_a_part_without_a_score_leaves_none(tmp_path, monkeypatch, source, completions):
    (tmp_path / "tests_of_sums.py").write_text("def some(completions):\n    return [1, None, 3]\n")
    monkeypatch.chdir(tmp_path)
    inner = {"kind": "sum", "weight": 2, "parts": {"some": SOME, "long": LENGTH}}
    scores = WeightedSum(parts={"inner": inner, "long": LENGTH}).resolve(source)(completions)
    assert scores.valid.tolist() == [True, False, True]
    assert scores.total[[0, 2]].tolist() == [2 * (1 + 2) + 2, 2 * (3 + 3) + 3]
    assert scores.parts["inner/some"][[0, 2]].tolist() == [1.0, 3.0]


def test_a_part_that_learns_keeps_its_roles_terms_and_state(own):
    reward = WeightedSum(parts={"critic": {"kind": "task"}, "long": LENGTH}).resolve(own)
    terms, metrics = reward.loss(None, None)
    reward.setup("the context")
    assert own.reward().context == "the context"
    assert list(reward.roles()) == ["critic"]
    assert list(terms) == list(reward.weights(None)) == ["critic/loss"]
    assert list(metrics) == ["critic/accuracy"]
    own.reward().state = 5
    state = reward.state_dict()
    own.reward().state = 0
    reward.load_state_dict(state)
    assert own.reward().state == 5


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "reward=sum has no parts: give reward.parts="),
        ({"a": {"kind": "functoin"}}, r"reward.parts.a.kind=functoin: no such reward. Did you mean 'function' or "),
        ({"a": {**LENGTH, "pth": "x"}}, "reward.parts.a: Key 'pth' not in 'Function'"),
        ({"a": {"path": "x"}}, "reward.parts.a=.*must be {kind: NAME, weight: NUMBER"),
        ({"a": 3}, "reward.parts.a=3: must be {kind: NAME"),
        ({"a": {**LENGTH, "weight": "much"}}, "must be {kind: NAME, weight: NUMBER"),
        ({"a": {"kind": "task"}}, "reward.parts.a: there is no such reward here"),
        ({"a": {"kind": "function", "path": "x.y:z"}}, "no module 'x'"),
    ],
)
def test_parts_that_cannot_be_are_named(source, parts, message):
    with pytest.raises(UserError, match=message):
        WeightedSum(parts=parts).resolve(source)
