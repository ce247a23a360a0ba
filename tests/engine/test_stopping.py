"""Early stopping: when a run ends on a metric of its evaluation, and which weights it leaves."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alignzoo import config
from alignzoo.engine.stopping import Stopping
from alignzoo.pipeline import train
from alignzoo.settings import Better, EarlyStop, UserError
from alignzoo.testing import toys
from alignzoo_plugins.sft.sft import SFT


def watched(values: list[float], module: nn.Module, **settings: Any) -> tuple[Stopping, int]:
    """After these values at steps 0, 10, ..., the weight being the step; and at how many it ended."""
    stopping = Stopping(EarlyStop(**{"metric": "gold", **settings}))
    for place, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(10.0 * place)
        if stopping.look(10 * place, {f"eval/{stopping.metric}": value, "eval/length": float(place)}, module):
            return stopping, place + 1
    return stopping, 0


@pytest.fixture
def module() -> nn.Module:
    return nn.Linear(1, 1, bias=False)


def test_patience_counts_evaluations_since_the_best(module: nn.Module) -> None:
    stopping, seen = watched([1, 3, 2, 3, 2, 9], module, patience=3)
    assert (seen, stopping.step) == (5, 10), "equal is not better"
    assert stopping.reason == "gold was not better than 3 for 3 evaluations"
    stopping.restore(module)
    assert module.weight.item() == 10.0
    assert stopping.metrics == {"eval/gold": 3, "eval/length": 1.0}
    assert watched([1, 3, 2, 4, 2, 9], module, patience=3)[1] == 0


def test_lower_is_better_where_the_metric_says_so(module: nn.Module) -> None:
    assert watched([5, 4, 4.5], module, metric="perplexity", patience=1)[1] == 3
    assert watched([5, 4, 3], module, metric="eval/perplexity", patience=1)[1] == 0
    assert watched([5, 4, 3], module, metric="perplexity", mode=Better.max, patience=1)[1] == 2
    assert watched([5, 4], module, mode=Better.min, patience=1)[1] == 0


def test_the_last_weights_within_the_limit_are_kept(module: nn.Module) -> None:
    stopping, seen = watched([0, 4, 2, 5, 5.5], module, metric="kl", limit=5.0)
    assert (seen, stopping.step) == (5, 30), "at the limit is within it, and 2 was not better"
    assert stopping.reason == "kl 5.5 passed the limit of 5"
    stopping, seen = watched([3, 2, 0.5], module, limit=1.0)
    assert (seen, stopping.step) == (3, 10)
    best, seen = watched([0, 1, 0.5, 6], module, metric="kl", limit=5.0, patience=9)
    assert (seen, best.step) == (4, 0), "with patience the best within the limit"


def test_only_what_is_trained_is_kept() -> None:
    module = nn.Linear(1, 1)
    module.bias.requires_grad_(False)
    stopping, _ = watched([1], module, patience=1)
    assert set(stopping.weights) == {"weight"}


def test_mistakes(module: nn.Module) -> None:
    with pytest.raises(
        UserError, match=r"metric=godl: evaluation has no such metric\. Did you mean 'gold'\? There are gold, kl"
    ):
        Stopping(EarlyStop(metric="godl", patience=1)).look(0, {"eval/gold": 1.0, "eval/kl": 0.0}, module)
    with pytest.raises(UserError, match=r"metric=gold is nan"):
        watched([float("nan")], module, patience=1)
    with pytest.raises(UserError, match=r"limit=5 is passed at step 0 already: kl 6"):
        watched([6], module, metric="kl", limit=5.0)
    with pytest.raises(UserError, match=r"stops on no metric: give early_stop\.metric"):
        EarlyStop(patience=3)
    with pytest.raises(UserError, match=r"metric=kl stops nothing"):
        EarlyStop(metric="kl")
    with pytest.raises(UserError, match=r"early_stop\.patience=-1 is out of range"):
        EarlyStop(metric="kl", patience=-1)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["early_stop.metric=kl", "early_stop.limit=1"], r"give trainer\.eval_steps$"),
        (
            ["early_stop.metric=gold", "early_stop.patience=1", "trainer.eval_steps=1"],
            r"needs a judge: choose one with gold=NAME",
        ),
        (["early_stop.patience=1"], r"stops on no metric"),
        (["early_stop.patienc=1"], r"no key 'early_stop\.patienc'\. Did you mean 'patience'"),
    ],
)
def test_what_is_known_before_training_is_told_before_it(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        train.check(config.compose(overrides))


@dataclass(kw_only=True)
class Scripted(toys.ToySource):
    """Its evaluation goes 0, 5, 9, 7, 6, 5, ... and remembers the policy's weights each time."""

    weights: list[torch.Tensor] = field(default_factory=list)
    values: list[float] = field(default_factory=lambda: [0.0, 5.0, 9.0, 7.0, 6.0, 5.0])

    def evaluate(self, models: Any) -> dict[str, float]:
        self.weights.append(next(iter(models.policy.module.parameters())).detach().clone())
        return {"script": self.values[len(self.weights) - 1]}


def trained(folder: Path, data: Scripted, resume: Path | None = None, **training: Any) -> Any:
    early = EarlyStop(metric="script", patience=2)
    settings = {"max_steps": 9, "eval_steps": 1, **training}
    trainer = toys.trainer(toys.setup(SFT(), data=data, early_stop=early, training=settings), folder)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer


def test_a_run_stops_and_has_its_best_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Scripted()
    trainer = trained(tmp_path, data)
    assert (trainer.state.global_step, trainer.ended) == (4, True)
    assert torch.equal(next(iter(trainer.trained.policy.parameters())), data.weights[2])
    assert not torch.equal(data.weights[2], data.weights[4])
    assert trainer.evaluated[0] == 2 and trainer.evaluated[1]["eval/script"] == 9.0
    assert trainer.stopping.tell() == {
        "metric": "script", "reason": "script was not better than 9 for 2 evaluations", "weights_of_step": 2, "value": 9.0,
    }  # fmt: skip
    assert "stopped at step 4: script was not better" in capsys.readouterr().err


def test_the_best_weights_count_where_the_steps_end_first(tmp_path: Path) -> None:
    data = Scripted()
    trainer = trained(tmp_path, data, max_steps=3)
    assert torch.equal(next(iter(trainer.trained.policy.parameters())), data.weights[2])
    assert (trainer.state.global_step, trainer.stopping.tell()["reason"]) == (3, None)


@pytest.mark.parametrize("last", [3, 4])
def test_it_goes_on_after_a_restart(tmp_path: Path, last: int) -> None:
    """From the checkpoint before the end, and from one made at the very step that ended it."""
    data = Scripted()
    whole = trained(tmp_path / "whole", data, save_steps=1, keep_checkpoints=9)
    again = Scripted(values=[*data.values[last + 1 :], 99.0])
    resumed = trained(tmp_path / "whole", again, resume=tmp_path / "whole" / "checkpoints" / f"checkpoint-{last}")
    assert (resumed.stopping.step, resumed.stopping.reason) == (2, whole.stopping.reason)
    assert resumed.state.global_step == max(4, last + 1), "at once, where it had been decided"
    assert torch.equal(next(iter(resumed.trained.policy.parameters())), data.weights[2])
    assert resumed.evaluated[1]["eval/script"] == 9.0


def test_the_summary_says_why_and_where(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} and", "completion": f" {i + 1}"}) + "\n" for i in range(20)))
    overrides = [
        "algorithm=sft", "data=jsonl", f"data.path={path}", "data.heldout=0.3", "debug=fast", "trainer.max_steps=6",
        "trainer.eval_steps=1", "trainer.save_steps=0", "trainer.learning_rate=1", "generation.max_new_tokens=4", "reward=none",
        "early_stop.metric=perplexity", "early_stop.patience=1", f"run_dir={tmp_path}/run",
    ]  # fmt: skip
    summary = train.train(config.compose(overrides))
    said = json.loads((tmp_path / "run" / "summary.json").read_text())["early_stop"]
    assert said == summary["early_stop"] and said["metric"] == "perplexity"
    assert summary["status"] == "finished" and summary["metrics"]["perplexity"] == said["value"]
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = {row["step"]: row["eval/perplexity"] for row in steps if "eval/perplexity" in row}
    assert said["weights_of_step"] == min(values, key=values.__getitem__) < summary["steps"]
