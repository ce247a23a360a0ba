"""What a run keeps of the reference, so that the report can draw best-of-n where nothing is known exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from alignzoo.batch import Completions
from alignzoo.common import reference_samples
from alignzoo.contracts import Reward, Scores
from alignzoo.settings import OnError, Scoring
from alignzoo.testing import toys
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.reinforce.reinforce import Reinforce


def run(folder, **training):
    toys.trainer(toys.setup(Reinforce(), training={"max_steps": 1, "eval_steps": 1} | training), folder).train()


def test_rewards_of_the_policy_before_training_are_kept_by_prompt(tmp_path):
    run(tmp_path, reference_samples=3)
    table = reference_samples.read([tmp_path])
    rows = [json.loads(line) for line in (tmp_path / "completions.jsonl").read_text().splitlines()]
    before = {row["prompt"]: row["reward"] for row in rows if row["step"] == 0}
    kept = json.loads((tmp_path / "reference.json").read_text())
    assert table.shape == (4, 3) and kept.keys() == before.keys()
    assert len({value for rewards in kept.values() for value in rewards}) > 1


def test_runs_of_one_seed_sample_the_same(tmp_path):
    """Whatever they train, so that the report takes one run a seed."""
    for name, algorithm, rate in (("a", Reinforce(), 0.1), ("b", DPO(), 0.2)):
        training = {"max_steps": 1, "eval_steps": 1, "learning_rate": rate}
        toys.trainer(toys.setup(algorithm, training=training), tmp_path / name).train()
    a, b = (reference_samples.read([tmp_path / name]) for name in "ab")
    assert a.shape == (4, 4) and (a == b).all()


def test_they_leave_no_trace_in_training(tmp_path):
    logs = []
    for count in (0, 3):
        run(tmp_path / str(count), reference_samples=count)
        rows = [json.loads(line) for line in (tmp_path / str(count) / "metrics.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in row.items() if k.startswith(("loss", "eval/", "grad"))} for row in rows])
    assert logs[0] == logs[1] and len(logs[0]) == 3
    assert not (tmp_path / "0" / "reference.json").exists()


def test_runs_are_pooled_over_what_they_have_in_common(tmp_path):
    assert reference_samples.read([tmp_path]) is None
    for name, rewards in (("a", {"x": [1.0, 2.0], "y": [0.0, 0.0]}), ("b", {"x": [3.0]})):
        (tmp_path / name).mkdir()
        reference_samples.write(tmp_path / name, rewards)
    assert reference_samples.read([tmp_path / "a", tmp_path / "b"]).tolist() == [[1.0, 2.0, 3.0]]
    assert reference_samples.read([tmp_path / "a", tmp_path / "none"]).tolist() == [[1.0, 2.0], [0.0, 0.0]]


@dataclass(kw_only=True)
class Odd(Reward):
    """How many tokens the completion has; those of `broken` tokens can't be scored."""

    broken: int = -1

    def __call__(self, c: Completions) -> Scores:
        return Scores(total=torch.where(c.length == self.broken, torch.nan, c.length.double()))


def test_the_judge_s_scores_of_the_same_completions_are_kept_beside_them(tmp_path):
    """Where one of the two can't score a completion, both leave its prompt out."""
    for name, broken in (("all", -1), ("some", 1)):
        setup = toys.setup(
            Reinforce(), gold=Odd(broken=broken), training={"max_steps": 1, "eval_steps": 1, "reference_samples": 2},
            scoring=Scoring(on_error=OnError.skip),
        )  # fmt: skip
        toys.trainer(setup, tmp_path / name).train()
    rewards, lengths = (json.loads((tmp_path / "all" / file).read_text()) for file in ("reference.json", "reference_gold.json"))
    assert rewards.keys() == lengths.keys() and len(rewards) == 4
    without = {prompt for prompt, row in lengths.items() if 1 not in row}
    assert 0 < len(without) < 4
    for file, judge in (("reference.json", "reward"), ("reference_gold.json", "gold")):
        assert json.loads((tmp_path / "some" / file).read_text()).keys() == without
        assert reference_samples.read([tmp_path / "some"], judge).shape == (len(without), 2)
