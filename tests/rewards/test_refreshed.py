"""A reward model that is refreshed on labels of what the policy writes: when, on what, at what cost, and what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from alignzoo.batch import Completions, Rated
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Sampling, Scores
from alignzoo.engine import checkpoint
from alignzoo.models import modules
from alignzoo.models.scorer import scorer
from alignzoo.rewards import training_records
from alignzoo.rewards.model import RewardModel
from alignzoo.rewards.refreshed import Refreshed, RefreshLoss
from alignzoo.runs.saving import save
from alignzoo.settings import Model, Optimizer, Rollout, UserError
from alignzoo.statistics.calibration import correlation
from alignzoo.testing import toys
from alignzoo.testing.toys import ToyReinforce


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> str:
    """A reward model of random weights, which knows nothing of the judge."""
    folder, settings = tmp_path_factory.mktemp("proxy"), Model(config=dict(toys.LLAMA))
    tokenizer = modules.tokenizer(settings)
    checkpoint.save_main(scorer(settings, modules.config(settings, tokenizer), tokenizer.pad_token_id, 5), folder, tokenizer)
    return str(folder)


def setup(reward, steps=6, gold=toys.CountReward, **changes):
    training = {"max_steps": steps, "learning_rate": 0.01, **changes}
    return toys.setup(
        ToyReinforce(), reward=reward, gold=gold and gold(), training=training, rollout=Rollout(prompts=4, samples=4)
    )


def trained(folder, reward, resume=None, **changes):
    trainer = toys.trainer(setup(reward, **changes), folder)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder):
    timed = ("seconds", "tokens_per_second", "peak_memory", "cost/seconds")
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in found]


def test_pairs_are_of_one_draw_and_of_unequal_labels() -> None:
    """Draws 0 and 1 with three completions each, the third of draw 1 sampled apart, with a prompt of its own."""
    sides = [toys.completions([0, 1], salt=salt) for salt in range(3)]
    c = Completions.cat(sides)
    rated = Rated(**vars(c), rating=torch.tensor([1.0, 5.0, 3.0, 5.0, 2.0, 4.0]))
    made = training_records.pairs(rated)
    assert made.chosen.row.tolist() == made.rejected.row.tolist() == [0, 0, 0, 1, 1]
    texts = {(tuple(a), tuple(b)) for a, b in zip(made.chosen.ids.tolist(), made.rejected.ids.tolist(), strict=True)}
    better = [(2, 0), (4, 0), (2, 4), (1, 5), (3, 5)]
    width = made.chosen.ids.shape[1]
    assert texts == {(tuple(c.ids[i, :width].tolist()), tuple(c.ids[j, :width].tolist())) for i, j in better}
    assert len(made.chosen.prompts) == 2 and torch.equal(made.chosen.prompt_of, made.rejected.prompt_of)


def test_whole_draws_are_labelled_first() -> None:
    c = Completions.cat([toys.completions([0, 1, 2, 3], salt=salt) for salt in range(3)])
    taken = training_records.whole_draws(c, 6, generator(0, "test")).row.tolist()
    assert len(set(taken)) == 2 and taken == sorted(taken, key=taken.index)


def test_correlation() -> None:
    a = np.array([1.0, 2.0, 4.0])
    assert correlation(a, 3 - 2 * a) == pytest.approx(-1)
    assert correlation(a, np.array([1.0, 0.0, 1.0])) == pytest.approx(0.18898224)
    assert correlation(a, np.ones(3)) == 0


@pytest.mark.parametrize(
    ("settings", "steps", "labels"),
    [
        ({"every": 2}, [2, 4, 6], 48),
        ({"every": 4}, [4], 16),
        ({"every": 2, "labels": 8}, [2, 4, 6], 24),
        ({"every": 2, "most_labels": 20}, [2, 4], 20),
    ],
)
def test_every_so_many_steps_and_labels_are_counted(tmp_path, proxy, settings, steps, labels) -> None:
    """Six steps, two on each rollout of sixteen completions; three updates a refresh."""
    trainer = trained(tmp_path, Refreshed(path=proxy, updates=3, records=4, objective=RefreshLoss.regression, **settings))
    columns = trainer.cost.columns()
    assert (columns["reward_updates"], columns["labels"]) == (3 * len(steps), labels)
    assert [line["step"] for line in lines(tmp_path) if "reward/gold" in line] == steps


@pytest.mark.parametrize("objective", list(RefreshLoss))
def test_a_wrong_proxy_comes_to_agree_with_the_judge(tmp_path, proxy, objective) -> None:
    """On samples of the policy it has then, which it was never shown."""
    reward = Refreshed(path=proxy, every=2, updates=20, records=32, learning_rate=3e-3, objective=objective)
    made = setup(reward, steps=8)
    made.training.optimizer, made.rollout = Optimizer.adamw, Rollout(prompts=16, samples=4)
    made.training.learning_rate = 1e-4
    trainer = toys.trainer(made, tmp_path)

    def agreement() -> float:
        with torch.no_grad(), trainer.roles.shared.noise.during("test", 0):
            prompts = trainer.loader.order.records(1000, 1064)
            c = trainer.roles.policy.generate(prompts, replace(trainer.roles.sampling, samples=1))
            return correlation(*(reward(c).total.double().numpy() for reward in (trainer.roles.reward, toys.CountReward())))

    before = agreement()
    trainer.train()
    assert before < 0.2 and agreement() > 0.4


def test_a_run_resumes_bit_for_bit(tmp_path, proxy) -> None:
    def reward() -> Refreshed:
        return Refreshed(path=proxy, every=2, updates=2, records=6, replay=0.5, learning_rate=1e-3)

    whole = trained(tmp_path / "whole", reward())
    trained(tmp_path / "cut", reward(), save_steps=3, keep_checkpoints=5)
    again = trained(tmp_path / "cut", reward(), resume=str(tmp_path / "cut/checkpoints/checkpoint-3"))
    for mine, theirs in ((again.reward._model, whole.reward._model), (again.trained, whole.trained)):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in mine.state_dict().items())
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert again.cost.columns()["labels"] == 48


def test_what_it_has_become_is_saved_as_a_reward_model(tmp_path, proxy) -> None:
    trainer = trained(tmp_path, Refreshed(path=proxy, every=3, updates=2, records=4, learning_rate=1e-2))
    save(trainer, tmp_path)
    context = Context(tokenizer=trainer.tokenizer, seed=0, sampling=Sampling(), context_length=64, cache=tmp_path)
    c, totals = toys.completions([0, 1, 2]), []
    for path in (proxy, str(tmp_path / "model/reward_model")):
        reward = RewardModel(path=path)
        reward.setup(context)
        totals.append(reward(c).total)
    assert torch.equal(totals[1], trainer.reward(c).total) and (totals[1] - totals[0]).abs().max() > 1e-3


def test_what_it_was_trained_on_is_replayed(tmp_path, proxy) -> None:
    """Half of the records are rows of the file, whose prompts are text of its own."""
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "old", "chosen": "good", "rejected": "bad"}\n' * 3)
    reward = Refreshed(path=proxy, every=1, updates=1, records=8, replay=0.5, data=str(tmp_path / "pairs.jsonl"))
    trainer = toys.trainer(setup(reward, steps=1), tmp_path / "run")
    trainer.rollout_done(trainer.sample(0, trainer.loader.order.records(0, 4)))
    (lesson,) = reward.lessons(1)
    prompts = training_records.with_text(lesson.batch.chosen, reward._decode).prompts
    assert [prompts.text[i] == "old" for i in lesson.batch.chosen.prompt_of.tolist()].count(True) == 4
    terms, metrics = reward.loss(trainer.roles, lesson.batch)
    assert isinstance(terms, torch.Tensor) and terms.shape == metrics["accuracy"].shape == (8,)


def test_labels_that_nobody_gives_are_left_out(tmp_path, proxy) -> None:
    class Silent(toys.CountReward):
        def __call__(self, c: Completions) -> Scores:
            scores = super().__call__(c)
            return Scores(total=scores.total, valid=torch.zeros(len(c), dtype=torch.bool))

    trainer = trained(tmp_path, Refreshed(path=proxy, every=2, updates=2), gold=Silent, steps=2)
    assert (trainer.lessons.updates, trainer.cost.columns()["labels"]) == (0, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "reward=refreshed starts from a reward model: give reward.path=PATH"),
        ({"path": "x", "data": "no.jsonl"}, "no such file"),
    ],
)
def test_what_is_missing_is_said(settings, said) -> None:
    with pytest.raises(UserError, match=said):
        Refreshed(**settings).resolve(toys.ToySource())


def test_it_needs_a_judge(tmp_path, proxy) -> None:
    made = setup(Refreshed(path=proxy), gold=None)
    made.choices["reward"] = "refreshed"
    with pytest.raises(UserError, match="reward=refreshed needs a judge to label completions: say who with gold=NAME"):
        toys.trainer(made, tmp_path)
