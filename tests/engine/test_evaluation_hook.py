"""An algorithm whose evaluation sees other networks than those that are trained: one with heads and decoding of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from alignzoo import Algorithm, Completions, Kind, Role
from alignzoo.contracts import EMA
from alignzoo.testing import toys

EOS, WIDE = toys.EOS, frozenset({"tokens"})


@dataclass(kw_only=True)
class EndsSoon(Algorithm):
    """A head learns to be 1 at EOS alone, wherever; evaluation adds `weight` times its average to the logits."""

    api_version = "1.1"
    data = Completions
    weight: float = 100.0
    shares: bool = True

    def roles(self):
        trunk = "policy" if self.shares else None
        return {
            "policy": Role(kind=Kind.POLICY, trained=True),
            "q": Role(kind=Kind.ACTION_VALUE, trained=True, needs=WIDE, shares=trunk),
            "average": Role(kind=Kind.ACTION_VALUE, needs=WIDE, shares=trunk, follows=EMA(0.5, role="q")),
            "value": Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}), shares="policy"),
        }

    def loss(self, models, batch):
        def errors(q):
            return ((q[:, EOS:10] - torch.eye(1, 8, device=q.device)) ** 2).sum(1)

        return models.q.tokens(batch, errors) + models.value.values(batch) ** 2 - 1e-3 * models.policy.logprobs(batch), {}

    def evaluation(self, models):
        beside = [models.average, models.value]
        return {"policy": models.policy.adjusted(lambda logits, q, v: logits + self.weight * (q - v), beside)}


def lengths(folder):
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    return {step: [row["length"] for row in rows if row["step"] == step] for step in {row["step"] for row in rows}}


@pytest.mark.parametrize("shares", [True, False])
def test_evaluation_sees_what_the_algorithm_gives_it(tmp_path, shares):
    """After training, EOS has 100 more than any other token: all that evaluation samples is that. By itself the policy writes
    on. What evaluation calls its log-probs are those of what it samples: nearly 0."""
    trainer = toys.trainer(toys.setup(EndsSoon(shares=shares), training={"max_steps": 60, "eval_steps": 60}), tmp_path)
    trainer.train()
    last = max(lengths(tmp_path))
    assert last == 60 and lengths(tmp_path)[60] == [1.0] * 4
    with torch.no_grad():
        prompts = trainer.evaluator.tables.prompts.batch(range(4))
        alone = trainer.roles.policy.generate(prompts, trainer.evaluator.sampling)
        decoded = trainer.evaluator.models.policy
        assert alone.length.max() > 1
        assert decoded.logprobs(decoded.generate(prompts, trainer.evaluator.sampling)).abs().max() < 1e-3
    assert trainer.evaluator.trained_policy is trainer.roles.policy


def test_a_run_with_such_heads_resumes(tmp_path):
    """The average of the head, and the head, are those of the run that was not interrupted."""
    whole = toys.trainer(toys.setup(EndsSoon(), training={"save_steps": 2}), tmp_path)
    whole.train()
    again = toys.trainer(toys.setup(EndsSoon()), tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints/checkpoint-2"))
    for name, weight in again.followers["average"][0].state_dict().items():
        assert torch.equal(weight, whole.followers["average"][0].state_dict()[name]), name
    assert whole.followers["average"][0].head.weight.shape == (259, 16)
    assert (tmp_path / "checkpoints/checkpoint-2/q/model.safetensors").exists()
