"""TRL's trainers, given our rows in our order, follow the curves of our algorithms; gradients agree on the same completions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo import compose, train
from alignzoo.config import instantiate
from alignzoo.engine.callbacks import Interrupt
from alignzoo.engine.hosted import HostBuilder
from alignzoo.engine.loader import Order
from tests.hosted.small import EXACT, pairs

SAME = [
    "trainer.max_steps=10",
    "trainer.batch=8",
    "trainer.micro_batch=4",
    "trainer.logging_steps=1",
    "trainer.learning_rate=3e-3",
]
CURVES = {
    "sft": ("trl_sft", []),
    "dpo": ("trl_dpo", ["algorithm.beta=0.3"]),
    "kto": ("trl_kto", ["algorithm.desirable_weight=1.5", "trainer.micro_batch=8"]),
    "bradley_terry": ("trl_reward", ["algorithm.centring=0.1"]),
}


def logged(run: Path) -> list[dict[str, float]]:
    return [row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]


@pytest.mark.parametrize("name", CURVES)
def test_the_same_curve_at_the_same_cost(name: str, tmp_path: Path) -> None:
    theirs, more = CURVES[name]
    summaries, curves = [], []
    for algorithm in (name, theirs):
        run = tmp_path / algorithm
        summaries.append(train(compose([f"algorithm={algorithm}", f"run_dir={run}", *EXACT, *SAME, *more])))
        curves.append(logged(run))
    ours, hosted = curves
    assert len(ours) == len(hosted) == 10 and len({round(row["loss"], 4) for row in ours}) > 5
    for mine, other in zip(ours, hosted, strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], abs=2e-5)
        assert other["grad_norm"] == pytest.approx(mine["grad_norm"], abs=2e-4)
        assert other["learning_rate"] == mine["learning_rate"]
    assert all(other == pytest.approx(mine, abs=1e-3) for mine, other in evaluated(*summaries))
    for column in ("samples", "trained_tokens", "steps"):
        assert summaries[0][column] == summaries[1][column] > 0
    assert all(summary["flops"] > 0 for summary in summaries)


def evaluated(*summaries: dict[str, Any]) -> list[tuple[float, float]]:
    """The measures that both runs have; samples may differ where a probability is near a uniform, so exact ones only."""
    names = [name for name in ("gap_closed", "exact_kl", "expected_reward", "accuracy") if name in summaries[0]["metrics"]]
    mine, other = (summary["metrics"] for summary in summaries)
    return [(mine[name], other[name]) for name in names]


def test_the_same_curve_on_texts_of_any_length(tmp_path: Path) -> None:
    data = pairs(tmp_path / "pairs.jsonl")
    small = [f"data.path={data}", "data=jsonl", "reward=none", *EXACT[-2:]]
    curves = []
    for algorithm in ("dpo", "trl_dpo"):
        train(compose([f"algorithm={algorithm}", f"run_dir={tmp_path / algorithm}", *small, *SAME]))
        curves.append([row["loss"] for row in logged(tmp_path / algorithm)])
    assert curves[1] == pytest.approx(curves[0], abs=2e-5) and len(set(curves[0])) > 5


ROLLOUT = ["rollout.prompts=4", "rollout.samples=4", "trainer.batch=16", "trainer.max_steps=1", "generation.temperature=0.7"]


def hosted(overrides: list[str], folder: Path) -> Any:
    return HostBuilder(instantiate(compose([*EXACT, *ROLLOUT, *overrides])), folder, folder / "cache").trainer(
        Interrupt(), lambda step, row: None
    )


def gradient(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of TRL, which uses what transformers has renamed
@pytest.mark.parametrize(
    ("theirs", "ours", "loss_too"),
    [
        (["algorithm=trl_rloo", "algorithm.beta=0.3"], ["algorithm=reinforce", "algorithm.beta=0.3"], False),
        (
            ["algorithm=trl_grpo", "algorithm.beta=0.3", "algorithm.weigh_kl=true"],
            ["algorithm=grpo", "algorithm.beta=0.3", "algorithm.weigh_kl=true"],
            True,
        ),
        (
            ["algorithm=trl_grpo", "algorithm.beta=0.3", "algorithm.average=token", "algorithm.scale=false"],
            ["algorithm=grpo", "algorithm.beta=0.3", "algorithm.average=token", "algorithm.scale=false"],
            True,
        ),
        (
            ["algorithm=trl_distillation", "algorithm.beta=0.3"],
            ["algorithm=distill", "algorithm.beta=0.3", "algorithm.lam=1"],
            True,
        ),
    ],
)  # fmt: skip
def test_the_same_gradient_on_the_same_completions(theirs: list[str], ours: list[str], loss_too: bool, tmp_path: Path) -> None:
    trainer = hosted(theirs, tmp_path)
    foreign, models, policy = trainer.foreign, trainer.roles, trainer.trained.policy
    torch.manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(torch.randn_like(p), alpha=0.02)  # away from the reference, so that the KL counts
    asked = list(foreign.train_dataset)
    asked = [row for row in asked for _ in range(16 // len(asked))]
    prompts = foreign._tokenize_prompts([row["prompt"] for row in asked])[0]
    table = trainer.evaluator.tables.train
    algorithm = instantiate(compose([*EXACT, *ROLLOUT, *ours])).algorithm
    batch = Order(table, 0).records(0, 4)
    with torch.no_grad():
        rollout = algorithm.experience(models, batch)
    ids = [row[mask].tolist() for row, mask in zip(rollout.ids, rollout.attended, strict=True)]
    assert prompts == [batch.ids[i][batch.attended[i]].tolist() for i in rollout.prompt_of.tolist()]

    foreign._generate_single_turn = lambda *given, **more: (ids, None) if "grpo" in theirs[0] else ids
    foreign.current_gradient_accumulation_steps = 1
    foreign.model.train()
    loss = foreign.compute_loss(foreign.model, foreign._generate_and_score_completions(asked))
    loss.backward()
    found = gradient(policy)
    policy.zero_grad()

    term, _ = algorithm.loss(models, rollout)
    expected = term.mean() if term.dim() == 1 else term[rollout.scored].mean()
    expected.backward()
    wanted = gradient(policy)
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0).item() == pytest.approx(1, abs=1e-4)
    assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=1e-3)
    if loss_too:
        assert loss.item() == pytest.approx(expected.item(), abs=2e-5)
