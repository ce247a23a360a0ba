"""Rewards made of rewards: values by hand, what is learnt from rollouts, and what a part fails on."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from alignzoo.contracts import Reward, Scores
from alignzoo.rewards.adaptive import Constrained, Normalise
from alignzoo.rewards.checked import Checked
from alignzoo.rewards.combinations import Agreement, Clip, Ensemble, Maximum, Minimum, Product, WeightedSum, Whiten
from alignzoo.settings import Scoring, UserError

GIVEN: dict[str, list[float | None]] = {}


def given(record, name):
    """For reward=function: numbers that a test has set."""
    return GIVEN[name][: len(record)]


@pytest.fixture
def made(source, monkeypatch):
    """made(class, {part: numbers}, **settings): that reward of parts which give these numbers."""
    monkeypatch.setattr("alignzoo.rewards.text.given", given, raising=False)

    def reward(kind, parts, weights=(), **settings):
        GIVEN.clear()
        GIVEN.update(parts)
        wanted = {
            name: {"kind": "function", "path": "alignzoo.rewards.text:given", "arguments": {"name": name}, "weight": weight}
            for name, weight in zip(parts, weights or [1.0] * len(parts), strict=True)
        }
        return kind(parts=wanted, **settings).resolve(source)

    return reward


A, B = [1.0, -2.0, 3.0], [3.0, 0.5, -1.0]


@pytest.mark.parametrize(
    ("kind", "settings", "weights", "expected"),
    [
        (WeightedSum, {}, (1, 1), [4, -1.5, 2]),
        (Product, {}, (1, 1), [3, -1, -3]),
        (Product, {}, (2, 0.5), [3, -1, -3]),
        (Minimum, {}, (1, 1), [1, -2, -1]),
        (Minimum, {}, (1, 10), [1, -2, -10]),
        (Maximum, {}, (1, 1), [3, 0.5, 3]),
        (Clip, {"low": -1}, (1, 1), [4, -1, 2]),
        (Clip, {"high": 2.5}, (1, 1), [2.5, -1.5, 2]),
        (Clip, {"low": -1, "high": 2.5}, (2, 0), [2, -1, 2.5]),
        (Ensemble, {}, (1, 1), [2, -0.75, 1]),
        (Ensemble, {"how": Agreement.minimum}, (1, 1), [1, -2, -1]),
        # the deviations are half the differences: 1, 1.25, 2
        (Ensemble, {"how": Agreement.deviation}, (1, 1), [1, -2, -1]),
        (Ensemble, {"how": Agreement.deviation, "strength": 2}, (1, 1), [0, -3.25, -3]),
        (Ensemble, {"how": Agreement.variance, "strength": 0.5}, (1, 1), [2 - 0.5, -0.75 - 0.78125, 1 - 2]),
    ],
)
def test_values_by_hand(made, completions, kind, settings, weights, expected):
    scores = made(kind, {"a": A, "b": B}, weights, **settings)(completions)
    assert scores.total.tolist() == pytest.approx(expected)
    assert scores.usable.all()
    assert scores.parts["a"].tolist() == A
    assert scores.parts["b"].tolist() == B


def test_an_ensemble_reports_how_far_its_parts_are_apart(made, completions):
    scores = made(Ensemble, {"a": A, "b": B})(completions)
    assert scores.parts["disagreement"].tolist() == pytest.approx([1, 1.25, 2])


@pytest.mark.parametrize("kind", [WeightedSum, Product, Minimum, Maximum, Ensemble, Normalise])
def test_without_one_part_there_is_no_score(made, completions, kind):
    scores = made(kind, {"a": [1.0, None, 3.0], "b": B})(completions)
    assert scores.usable.tolist() == [True, False, True]


def test_whitening_is_over_the_completions_that_have_a_score(made, completions):
    """1 and 3: mean 2, standard deviation 1."""
    scores = made(Whiten, {"a": [1.0, None, 3.0]})(completions)
    assert scores.total[[0, 2]].tolist() == [-1.0, 1.0]
    assert scores.parts["unwhitened"][[0, 2]].tolist() == [1.0, 3.0]
    assert made(Whiten, {"a": [1.0, None, 3.0]}, centre=False)(completions).total[[0, 2]].tolist() == [1.0, 3.0]
    assert made(Whiten, {"a": [5.0, 5.0, 5.0]})(completions).total.tolist() == [0.0] * 3
    assert not made(Whiten, {"a": [None] * 3})(completions).usable.any()


@pytest.mark.parametrize("value", [1.1, 10.1, 100.1, 1000.1, -0.3, 1e-6])
def test_equal_scores_are_neither_good_nor_bad(made, completions, value):
    """In float32 the mean of three 1.1 is not 1.1; and summed in two orders, 0.1 + 0.2 is not 0.3."""
    for parts in ({"a": [value] * 3}, {"a": [value / 3, value, value * 2 / 3], "b": [value * 2 / 3, 0.0, value / 3]}):
        assert made(Whiten, parts)(completions).total.tolist() == pytest.approx([0.0] * 3, abs=abs(value) * 3e-7)
        reward = made(Normalise, parts)
        for _ in range(3):
            reward.after_rollout(reward(completions))
        assert reward(completions).total.tolist() == pytest.approx([0.0] * 3, abs=abs(value) * 3e-7)
    assert made(Whiten, {"a": [value] * 3})(completions).total.tolist() == [0.0] * 3


def test_normalising_goes_by_all_rollouts_before(made, completions):
    """2, 4, then 9: mean 3, variance 1, then mean 5, variance 26/3."""
    reward = made(Normalise, {"a": [2.0, 4.0, None]})
    first = reward(completions)
    assert first.total[:2].tolist() == [2.0, 4.0]
    assert reward(completions).total[:2].tolist() == [2.0, 4.0]  # scoring alone teaches nothing
    reward.after_rollout(first)
    assert reward(completions).total[:2].tolist() == [-1.0, 1.0]
    GIVEN["a"] = [9.0, None, None]
    second = reward(completions)
    assert second.total[0].item() == 6.0
    assert second.parts["unnormalised"][0].item() == 9.0
    reward.after_rollout(second)
    assert reward(completions).total[0].item() == pytest.approx((9 - 5) / math.sqrt(26 / 3))
    again = made(Normalise, {"a": [9.0, None, None]}, clip=1.0)
    again.load_state_dict(reward.state_dict())
    assert again(completions).total[0].item() == 1.0
    scaled = made(Normalise, {"a": [9.0, None, None]}, centre=False)
    scaled.load_state_dict(reward.state_dict())
    assert scaled(completions).total[0].item() == pytest.approx(9 / math.sqrt(26 / 3))


def test_a_rollout_without_scores_teaches_nothing(made, completions):
    for kind, settings in ((Normalise, {}), (Constrained, {"costs": ["b"]})):
        reward = made(kind, {"a": [None] * 3, "b": B}, **settings)
        before = reward.state_dict()
        reward.after_rollout(reward(completions))
        assert reward.state_dict() == before


def test_the_multiplier_follows_the_cost(made, completions):
    """Costs 3, 0.5, -1 with a mean of 5/6 against a limit of 1/3: log lambda grows by 0.5 * 2 * (5/6 - 1/3) = 0.5."""
    settings = {"costs": ["b"], "limit": 1 / 3, "multiplier": 2.0, "rate": 0.5}
    reward = made(Constrained, {"a": A, "b": B}, **settings)
    scores = reward(completions)
    assert scores.total.tolist() == pytest.approx([(1 - 2 * 3) / 3, (-2 - 2 * 0.5) / 3, (3 + 2) / 3])
    assert scores.parts["cost"].tolist() == B
    assert scores.parts["multiplier"].tolist() == pytest.approx([2.0] * 3)
    reward.after_rollout(scores)
    after = 2 * math.exp(0.5)
    assert reward(completions).parts["multiplier"][0].item() == pytest.approx(after)
    again = made(Constrained, {"a": A, "b": [0.0, 0.0, 0.0]}, **settings)
    again.load_state_dict(reward.state_dict())
    safe = again(completions)
    assert safe.total[0].item() == pytest.approx(1 / (1 + after))
    again.after_rollout(safe)
    assert again(completions).parts["multiplier"][0].item() == pytest.approx(after * math.exp(0.5 * after * (0 - 1 / 3)))


def test_the_multiplier_has_an_upper_limit(made, completions):
    reward = made(Constrained, {"a": A, "b": [99.0] * 3}, costs=["b"], most=3.0)
    reward.after_rollout(reward(completions))
    assert reward(completions).parts["multiplier"].tolist() == pytest.approx([3.0] * 3)


def test_what_is_learnt_within_a_composite_is_learnt_and_kept(source, monkeypatch, completions):
    monkeypatch.setattr("alignzoo.rewards.text.given", given, raising=False)
    GIVEN["a"] = [2.0, 4.0, None]
    part = {"kind": "function", "path": "alignzoo.rewards.text:given", "arguments": {"name": "a"}}
    parts = {"n": {"kind": "normalise", "weight": 10, "parts": {"a": part}}}
    reward = WeightedSum(parts=parts).resolve(source)
    reward.after_rollout(reward(completions))
    assert reward(completions).total[:2].tolist() == [-10.0, 10.0]
    again = WeightedSum(parts=parts).resolve(source)
    again.load_state_dict(reward.state_dict())
    assert again(completions).total[:2].tolist() == [-10.0, 10.0]


@dataclass(kw_only=True)
class Half(Reward):
    def __call__(self, c):
        total = torch.tensor([1.0, torch.nan, 3.0])
        return Scores(total=total, failed={2: "got no score"})


def test_what_a_part_fails_on_is_told_by_its_name(monkeypatch, source, completions):
    monkeypatch.setattr(source, "reward", Half, raising=False)
    for kind in (WeightedSum, Whiten):
        scores = kind(parts={"half": {"kind": "task"}}).resolve(source)(completions)
        assert scores.failed == {1: "in its part half returned nan", 2: "in its part half got no score"}
        assert torch.isfinite(scores.total[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda one: Product().resolve(None), r"reward=product has no parts: give reward.parts='{NAME: {kind"),
        (lambda one: Minimum().resolve(None), "reward=min has no parts"),
        (lambda one: Ensemble(parts=one).resolve(None), "reward=ensemble has one part"),
        (lambda one: Ensemble(strength=-1), "reward.strength=-1"),
        (lambda one: Clip(parts=one), "reward=clip has no limits: give reward.low, reward.high or both"),
        (lambda one: Clip(low=1, high=1), "reward.low=1: must be < reward.high=1"),
        (lambda one: Normalise(clip=-1), "reward.clip=-1"),
        (lambda one: Constrained(parts=one, costs=["saef"]).resolve(None), "reward.costs names 'saef'.*Did you mean 'safe'"),
        (lambda one: Constrained(parts=one).resolve(None), r"needs parts that are costs and parts that are not: reward.costs="),
        (lambda one: Constrained(parts=one, costs=["safe"]).resolve(None), "needs parts that are costs and parts that are not"),
        (lambda one: Constrained(multiplier=0), r"reward.multiplier=0.*\(0, reward.most=100\]"),
        (lambda one: Constrained(rate=-1), "reward.rate=-1"),
        (
            lambda one: WeightedSum(parts={"x": {"kind": "repetition", "n": 0}}).resolve(None),
            "reward.parts.x: reward.n=0",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError, match=message):
        make({"safe": {"kind": "truncation"}})


def test_a_part_whose_scores_have_another_shape_or_that_raises_is_named(monkeypatch, source, completions):
    """Of one number, broadcasting would make three."""
    part = {"kind": "function", "path": "alignzoo.rewards.text:given"}
    shared = SimpleNamespace(noise=SimpleNamespace(purpose="evaluation"))
    for function, message in (
        (lambda record: torch.ones(1), r"reward a returned scores of shape \(1,\) for 3 completions"),
        (lambda record: [1 / 0], r"ZeroDivisionError: division by zero in its part a for 3 completion"),
    ):
        monkeypatch.setattr("alignzoo.rewards.text.given", function, raising=False)
        score = Checked(WeightedSum(parts={"a": part}).resolve(source), "sum", shared, 9, Scoring())
        with pytest.raises(UserError, match=message):
            score(completions)
