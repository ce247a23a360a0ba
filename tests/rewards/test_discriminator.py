"""A discriminator that learns beside the policy: its loss and penalty, what it is shown, when, and what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from alignzoo.batch import Completions
from alignzoo.common.noise import Noise, generator
from alignzoo.data.exact.source import Exact
from alignzoo.models import modules
from alignzoo.models.networks import HeadedNetwork, Shared
from alignzoo.rewards.combinations import WeightedSum
from alignzoo.rewards.discriminator import Contest, Demonstrations, Discriminator, Form, keys
from alignzoo.rewards.training_records import Replay
from alignzoo.settings import Dtype, Generation, Model, Optimizer, Rollout, Schedule, UserError
from alignzoo.testing import toys
from alignzoo.testing.toys import ToyReinforce
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.reinforce.reinforce import Reinforce


def network(seed: int = 0) -> HeadedNetwork:
    """A float64 scorer whose head is not 0."""
    settings = Model(config=dict(toys.LLAMA), dtype=Dtype.float64)
    policy = modules.policy(settings, modules.config(settings, modules.tokenizer(settings)), seed)
    role = Discriminator().roles()["discriminator"]
    module = modules.role_module("discriminator", role, policy, None, settings)
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(1))
    return HeadedNetwork(module, Shared(Noise(0), {toys.EOS}))


def given(scores: dict[str, list[float]]) -> object:
    """Models whose discriminator says this of completions, by their salt, kept in `stamp`."""

    class Told:
        def scores(self, c: Completions) -> torch.Tensor:
            return torch.tensor(scores[str(c.stamp)])

        def sensitivity(self, c: Completions) -> torch.Tensor:
            return torch.tensor([4.0, 6.0])

    class Known:
        discriminator = Told()

    return Known()


def contest() -> Contest:
    sides = (replace(toys.completions([0, 1]), stamp=name) for name in ("real", "fake"))
    return Contest(**dict(zip(("demonstrations", "samples"), sides, strict=True)))


def test_its_loss_is_the_cross_entropy_of_both_sides_and_half_the_penalty() -> None:
    models = given({"real": [0.0, 1.0], "fake": [-1.0, 2.0]})
    terms, metrics = Discriminator(gradient_penalty=0.5).loss(models, contest())  # type: ignore[arg-type]
    assert isinstance(terms, dict)
    assert terms["demonstrations"].tolist() == pytest.approx([0.69314718, 0.31326169])
    assert terms["samples"].tolist() == pytest.approx([0.31326169, 2.12692801])
    assert terms["penalty"].tolist() == pytest.approx([1.0, 1.5])
    assert metrics["accuracy_demonstrations"].tolist() == [0, 1] and metrics["accuracy_samples"].tolist() == [1, 0]
    assert "penalty" not in Discriminator().loss(models, contest())[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "expected"), [(Form.airl, 1.0986), (Form.gail, 1.3863), (Form.seqgan, 0.75)])
def test_forms_of_the_reward(form: Form, expected: float) -> None:
    reward = Discriminator(form=form)
    reward._models = given({"x": [1.09861229]})  # type: ignore[assignment]
    assert reward(replace(toys.completions([0]), stamp="x")).total.item() == pytest.approx(expected, abs=1e-4)


def test_sensitivity_is_the_squared_gradient_by_the_embeddings_of_the_completion() -> None:
    """Against the gradient by a number that is added to what the embedding gives, in the forward that scores."""
    scorer, c = network(), toys.completions([0, 1, 2])
    table, moved = scorer.trunk.get_input_embeddings(), []

    def add(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        moved.append(torch.zeros_like(output, requires_grad=True))
        return output + moved[-1]

    for row in range(3):
        one = c.take([row])
        hook = table.register_forward_hook(add)
        scorer.scores(one).sum().backward()
        hook.remove()
        gradient = moved[-1].grad
        assert gradient is not None
        own = int(one.attended.sum())
        expected = (gradient.view(-1, gradient.shape[-1])[-own:] ** 2).sum()
        assert scorer.sensitivity(one).item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(scorer.sensitivity(c), torch.cat([scorer.sensitivity(c.take([i])) for i in range(3)]), rtol=1e-9)


def test_sensitivity_has_a_gradient() -> None:
    """That by a weight of the head, in which it is a quadratic form: difference quotients are exact, however wide."""
    scorer, c = network(), toys.completions([0, 1])
    weight = scorer.module.head.weight
    scorer.sensitivity(c).sum().backward()
    assert weight.grad is not None
    sums = []
    for step in (0.5, -0.5):
        with torch.no_grad():
            weight[0, 3] += step
        sums.append(scorer.sensitivity(c).sum().item())
        with torch.no_grad():
            weight[0, 3] -= step
    assert weight.grad[0, 3].item() == pytest.approx(sums[0] - sums[1], rel=1e-4)


def test_replay_keeps_the_latest_rollout_and_the_end_of_those_before() -> None:
    replay = Replay(size=3)
    for start in (0, 4, 8):
        replay.add(toys.completions([start, start + 1, start + 2, start + 3]))
    assert replay.latest is not None and replay.earlier is not None
    assert (replay.latest.row.tolist(), replay.earlier.row.tolist()) == ([8, 9, 10, 11], [5, 6, 7])
    drawn = replay.draw(4, 0.5, generator(0, "test")).row.tolist()
    assert sorted(row > 7 for row in drawn) == [False, False, True, True] and len(set(drawn)) == 4
    assert min(Replay(size=0, latest=replay.latest).draw(4, 0.5, generator(0, "test")).row.tolist()) > 7


def test_demonstrations_are_of_the_samples_prompts_where_there_are_any() -> None:
    table = toys.ToyTable(Completions, 24)
    samples = toys.completions([3, 7, 40, 7], salt=1)
    rng = np.random.default_rng(0)
    drawn = Demonstrations(table).draw(samples, True, rng)
    assert [keys(drawn.prompts)[i] for i in drawn.prompt_of.tolist()][:2] == keys(samples.prompts)[:2]
    rows = {tuple(Demonstrations(table).draw(samples, False, rng).row.tolist()) for _ in range(5)}
    assert len(rows) == 5


def test_a_prompt_s_demonstrations_are_all_drawn() -> None:
    class Twice(toys.ToyTable):
        def batch(self, rows: range) -> Completions:
            c = toys.completions([row % 2 for row in rows])
            return replace(c, row=torch.tensor(list(rows)))

    drawn = Demonstrations(Twice(Completions, 6)).draw(toys.completions([1] * 64), True, np.random.default_rng(0))
    assert set(drawn.row.tolist()) == {1, 3, 5}


def trained(folder, reward, steps=6, resume=None, **changes):
    trainer = toys.trainer(toys.setup(ToyReinforce(), reward=reward, training={"max_steps": steps, **changes}), folder)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def rows(folder):
    """The lines of metrics.jsonl without what a clock says."""
    timed = ("seconds", "tokens_per_second", "peak_memory", "cost/seconds")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


@pytest.mark.parametrize(("updates", "warmup", "expected"), [(0.5, 0, 3), (1.0, 2, 8), (0.4, 0, 2)])
def test_updates_a_step_are_counted(tmp_path, updates, warmup, expected) -> None:
    trainer = trained(tmp_path, Discriminator(updates=updates, warmup=warmup, batch=4))
    assert trainer.lessons.updates == trainer.cost.columns()["reward_updates"] == expected


def test_a_run_resumes_bit_for_bit(tmp_path) -> None:
    def reward() -> Discriminator:
        return Discriminator(updates=1.5, batch=6, replay=12, replay_share=0.5, gradient_penalty=0.1)

    settings = {"optimizer": Optimizer.adamw, "learning_rate": 1e-3}  # which has a state of its own
    whole = trained(tmp_path / "whole", reward(), **settings)
    trained(tmp_path / "cut", reward(), save_steps=3, keep_checkpoints=5, **settings)
    again = trained(tmp_path / "cut", reward(), resume=str(tmp_path / "cut/checkpoints/checkpoint-3"), **settings)
    for name in ("policy", "discriminator"):
        mine, theirs = (run.roles.networks[name].module.state_dict() for run in (again, whole))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs), name
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert again.lessons.updates == 9
    assert {"reward/accuracy_samples", "reward/accuracy_demonstrations", "reward/loss", "reward/penalty"} <= rows(
        tmp_path / "whole"
    )[0].keys()


def test_it_needs_an_algorithm_that_samples(tmp_path) -> None:
    with pytest.raises(UserError, match=r"reward=discriminator learns from what the policy writes for it, and dpo"):
        made = toys.setup(DPO(), "dpo", reward=Discriminator())
        made.choices["reward"] = "discriminator"
        toys.trainer(made, tmp_path)


def test_as_a_part_of_a_sum(tmp_path) -> None:
    """Its lessons are given, its metrics under its name; the other part trains nothing."""
    parts = {"looks": {"kind": "discriminator", "batch": 4}, "short": {"kind": "length", "weight": 0.5, "most": 3}}
    trainer = trained(tmp_path, WeightedSum(parts=parts))
    assert trainer.lessons.updates == 6
    assert "reward/looks/accuracy_samples" in rows(tmp_path)[0]
    again = WeightedSum(parts={"a": parts["looks"], "b": parts["looks"]})
    with pytest.raises(UserError, match="two of its parts train the same discriminator"):
        again.resolve(toys.ToySource())


def test_a_policy_that_never_sees_the_reward_comes_close_to_the_demonstrations(tmp_path) -> None:
    """Demonstrations are of the optimum p; J* - J(pi) = KL(pi || p) with beta = 1, so half of the gap is half of that."""
    source = Exact(prompts=3, vocabulary=4, length=3, warmup_steps=50, warmup_batch=64, rows=8192)
    reward = Discriminator(learning_rate=3e-3, updates=2.0)
    settings = {"max_steps": 100, "batch": 64, "learning_rate": 3e-3, "optimizer": Optimizer.adamw, "schedule": Schedule.linear}
    made = toys.setup(
        Reinforce(beta=0.0), data=source, reward=reward, training=settings, generation=Generation(max_new_tokens=3),
        rollout=Rollout(prompts=8, samples=8),
    )  # fmt: skip
    trainer = toys.trainer(made, tmp_path)
    trainer.train()
    assert source.evaluate(trainer.roles)["gap_closed"] > 0.5
