"""Preference models that read two completions: how they read, what they say, and that a cycle can be learnt."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs
from alignzoo.common.noise import Noise
from alignzoo.contracts import Context, Reward, Scores
from alignzoo.engine import checkpoint
from alignzoo.engine.scorer_metrics import comparisons, judged
from alignzoo.errors import UserError
from alignzoo.models import modules
from alignzoo.models.networks import Shared
from alignzoo.models.scorer import ScorerNetwork, after, scorer
from alignzoo.models.tokenizers import byte_level
from alignzoo.rewards.model import RewardModel
from alignzoo.rewards.preference import PreferenceModel
from alignzoo.settings import Model, Optimizer, Sampling
from alignzoo.testing import toys
from alignzoo.testing.fakes import completions, prompts
from alignzoo.testing.reshape import absorbed
from alignzoo_plugins.pairwise_preference.pairwise_preference import PairwisePreference

EOS = toys.EOS


def network(seed: int = 0, pairs: bool = True) -> ScorerNetwork:
    settings = Model(config=dict(toys.LLAMA))
    module = scorer(settings, modules.config(settings, byte_level()), byte_level().pad_token_id, seed, pairs)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=noise))
    shared = Shared(Noise(0), {EOS}, tokenizer=SimpleNamespace(eos=byte_level().eos_token_id))
    return ScorerNetwork(module, shared)


def test_the_second_stands_behind_the_first_which_is_ended() -> None:
    """Of rows 5 6 (cut) and 7 2: EOS is put in; of 8 2 and 9: it stands there. What the second was given is left out."""
    x = prompts(3, 4)
    first = replace(completions(x, [0, 1], [[5, 6], [8, 2]]), truncated=torch.tensor([True, False]))
    second = completions(x, [0, 1], [[5, 7, 2], [9]], scored=[[0, 1, 1], [1]])
    both = after(first, second, EOS)
    assert both.ids.tolist() == [[5, 6, 2, 7, 2], [8, 2, 9, 0, 0]]
    assert both.attended.tolist() == [[True] * 5, [True] * 3 + [False] * 2]


@torch.no_grad()
def test_the_comparison_is_the_difference_of_both_orders() -> None:
    """Of completions that end: the scores of prompt + a + b and of prompt + b + a, each as one completion; turned round it has
    the other sign, of a completion with itself it is 0."""
    net, x = network(), prompts(3, 4)
    one, two = completions(x, [0, 1], [[5, 6, 2], [8, 2]]), completions(x, [0, 1], [[7, 2], [9, 9, 2]])
    joined = [
        completions(x, [0, 1], [[5, 6, 2, 7, 2], [8, 2, 9, 9, 2]]),
        completions(x, [0, 1], [[7, 2, 5, 6, 2], [9, 9, 2, 8, 2]]),
    ]
    expected = torch.sub(*(net.scores(c) for c in joined))
    torch.testing.assert_close(net.comparisons(one, two), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(net.comparisons(two, one), -expected, rtol=0, atol=1e-5)
    assert net.comparisons(one, one).tolist() == pytest.approx([0, 0], abs=1e-6) and expected.abs().min() > 1e-3


@torch.no_grad()
def test_tokens_given_to_both_are_read_once() -> None:
    pairs = toys.ToyTable(Pairs, 4, unscored=True).batch([0, 1, 2, 3])
    assert not pairs.chosen.scored.equal(pairs.chosen.attended)
    net, moved = network(), absorbed(pairs)
    before, behind = net.comparisons(pairs.chosen, pairs.rejected), net.comparisons(moved.chosen, moved.rejected)
    torch.testing.assert_close(before, behind, rtol=0, atol=1e-5)


def cycle(rows: list[int]) -> Pairs:
    """After the one prompt, 4 beats 5 beats 6 beats 4."""
    better, worse = [4 + row % 3 for row in rows], [4 + (row + 1) % 3 for row in rows]
    x = prompts(*[3] * len(rows))
    index = list(range(len(rows)))
    return Pairs(
        chosen=completions(x, index, [[t, EOS] for t in better]), rejected=completions(x, index, [[t, EOS] for t in worse])
    )


def test_a_cycle_is_learnt() -> None:
    """Each of the three pairs is right at the end, with its log-odds above 2: no score of single completions could be right in
    more than two. Two hundred steps of Adam."""
    net, algorithm, batch = network(), PairwisePreference(), cycle([0, 1, 2])
    optimizer = torch.optim.Adam(net.module.parameters(), lr=5e-3)
    models = SimpleNamespace(scorer=net)
    for _ in range(200):
        loss = algorithm.loss(models, batch)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert net.comparisons(batch.chosen, batch.rejected).min() > 2


def test_held_out_pairs_are_judged_by_their_log_odds() -> None:
    pairs = toys.ToyTable(Pairs, 4).batch([0, 1])
    reads = SimpleNamespace(comparisons=lambda first, second: torch.tensor([3.0, -1.0]))
    assert [a.score - b.score for a, b in comparisons(judged(reads, pairs, pairs=True))] == [3.0, -1.0]


@pytest.fixture
def saved(tmp_path):
    def save(pairs: bool) -> str:
        net = network(3, pairs)
        checkpoint.save_main(net.module, tmp_path / str(pairs), byte_level())
        return str(tmp_path / str(pairs))

    return save


def context(tmp_path) -> Context:
    return Context(tokenizer=byte_level(), seed=0, sampling=Sampling(), context_length=128, cache=tmp_path)


@torch.no_grad()
def test_the_reward_says_what_the_trained_network_says(tmp_path, saved) -> None:
    """Also of completions that were cut, in chunks of any size."""
    reward = PreferenceModel(path=saved(True), batch=3)
    reward.setup(context(tmp_path))
    first, second = (toys.completions(list(range(6)), salt=salt) for salt in (0, 1))
    first = replace(first, truncated=torch.arange(6) % 2 == 0)
    expected = network(3).comparisons(first, second).sigmoid()
    torch.testing.assert_close(reward.preference(first, second).total, expected, rtol=0, atol=1e-5)
    assert (reward.preference(first, second).total + reward.preference(second, first).total).tolist() == pytest.approx([1] * 6)


@torch.no_grad()
def test_a_score_is_how_often_a_completion_beats_one_of_its_prompt(tmp_path, saved) -> None:
    """Of three of a prompt (1/2 + P_ab + P_ac) / 3, one that is alone 1/2."""
    reward = PreferenceModel(path=saved(True))
    reward.setup(context(tmp_path))
    x = prompts(3, 4)
    c = completions(x, [0, 1, 0, 0], [[5, 2], [6, 2], [7, 8, 2], [9, 2]])
    a, b, d = (c.take([i]) for i in (0, 2, 3))
    p = {name: reward.preference(*sides).total.item() for name, sides in {"ab": (a, b), "ad": (a, d), "bd": (b, d)}.items()}
    expected = [0.5 + p["ab"] + p["ad"], 1.5, 0.5 + 1 - p["ab"] + p["bd"], 0.5 + 2 - p["ad"] - p["bd"]]
    assert reward(c).total.tolist() == pytest.approx([value / 3 for value in expected], abs=1e-6)


def test_models_of_the_other_kind_are_refused(tmp_path, saved) -> None:
    with pytest.raises(UserError, match="this model reads a pair: use reward=preference"):
        RewardModel(path=saved(True)).setup(context(tmp_path))
    with pytest.raises(UserError, match="this model reads one completion: use reward=model"):
        PreferenceModel(path=saved(False)).setup(context(tmp_path))


class ByLength(Reward):
    def __call__(self, c: Completions) -> Scores:
        return Scores(total=c.length, valid=c.length > 1)


class Shorter(ByLength):
    def preference(self, first: Completions, second: Completions) -> Scores:
        return Scores(total=(first.length < second.length).float())


def test_models_ask_a_reward_or_its_own_preference(tmp_path) -> None:
    """Lengths 2 and 1, 2 and 4: by Bradley and Terry sigma(1), of which one has no score, and sigma(-2)."""
    x = prompts(3, 4)
    first, second = completions(x, [0, 1], [[5, 2], [6, 2]]), completions(x, [0, 1], [[2], [6, 7, 8, 2]])

    def asked(reward: Reward) -> Tensor:
        made = toys.setup(AsksPreference(), reward=reward)
        trainer = toys.trainer(made, tmp_path / type(reward).__name__)
        return trainer.views[""].preference(first, second)

    plain = asked(ByLength())
    assert plain.usable.tolist() == [False, True] and plain.total[1].item() == pytest.approx(0.119203, abs=1e-6)
    assert asked(Shorter()).total.tolist() == [0.0, 1.0]


class AsksPreference(toys.ToyReinforce):
    pass


def test_a_run_trains_one(tmp_path) -> None:
    """The run's model is marked; accuracy and log loss of held-out pairs are those of the comparisons."""
    training = {"max_steps": 2, "optimizer": Optimizer.adamw, "learning_rate": 1e-3}
    trainer = toys.trainer(toys.setup(PairwisePreference(), training=training), tmp_path)
    trainer.train()
    metrics, _ = trainer.evaluator(trainer.model_wrapped, 2)
    pairs = trainer.evaluator.tables.heldout.batch(range(24))
    with torch.no_grad():
        odds = trainer.roles.scorer.comparisons(pairs.chosen, pairs.rejected)
    assert metrics["accuracy"] == pytest.approx(((odds.sign() + 1) / 2).mean().item(), abs=1e-6)
    assert metrics["log_loss"] == pytest.approx(torch.nn.functional.softplus(-odds).mean().item(), abs=1e-5)
    assert trainer.trained.main.config.reads_pairs is True
