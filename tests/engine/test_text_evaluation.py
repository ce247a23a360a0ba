"""Evaluation of text: the policy beside its reference, and the perplexity of held-out demonstrations."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores
from alignzoo.models.references import NoReference
from alignzoo.settings import Generation, UserError
from alignzoo.testing import toys
from alignzoo_plugins.sft.sft import SFT


@dataclass(kw_only=True)
class First(Reward):
    """What a completion starts with; every time it is asked, by one more where it `drifts`."""

    drifts: bool = False
    asked: list[int] = field(default_factory=list)

    def __call__(self, c: Completions) -> Scores:
        self.asked.append(len(c))
        return Scores(total=c.ids[:, 0].float() + (len(self.asked) if self.drifts else 0))

    def state_dict(self) -> dict[str, Any]:
        return {"asked": len(self.asked)} if self.drifts else {}


@dataclass(kw_only=True)
class Open(toys.ToySource):
    """Completions may hold any token, as text may."""

    def support(self, tokenizer: Any) -> None:
        return None


def made(folder: Path, **changes: Any) -> Any:
    return toys.trainer(toys.setup(SFT(), data=Open(), training={"reference_samples": 0}, **changes), folder)


def rows(trainer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trainer.folder / "completions.jsonl").read_text().splitlines()]


def stir(trainer: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trainer.trained.parameters():
            p.add_(torch.randn_like(p))


def test_a_model_that_knows_nothing_is_as_perplexed_as_it_has_tokens(tmp_path: Path) -> None:
    trainer = made(tmp_path)
    with torch.no_grad():
        for p in trainer.trained.parameters():
            p.zero_()
    assert trainer.evaluate()["eval/perplexity"] == pytest.approx(trainer.trained.config.vocab_size, rel=1e-5)


def test_perplexity_is_of_tokens_at_temperature_one(tmp_path: Path) -> None:
    warm, cold = (
        made(tmp_path / name, generation=Generation(max_new_tokens=6, temperature=t)) for name, t in (("w", 2), ("c", 1))
    )
    for trainer in (warm, cold):
        stir(trainer)
    found = cold.evaluate()["eval/perplexity"]
    assert warm.evaluate()["eval/perplexity"] == pytest.approx(found, rel=1e-5)
    records = cold.evaluator.demonstrations.batch(range(4))
    with torch.no_grad():
        logprobs = cold.roles.policy.logprobs(records)
    assert found == pytest.approx(float(torch.exp(-logprobs.sum() / records.scored.sum())), rel=1e-5)


def test_at_first_the_policy_writes_what_its_reference_writes(tmp_path: Path) -> None:
    trainer = made(tmp_path, gold=First())
    found = trainer.evaluate()
    assert all(row["reference"] == row["completion"] and row["reference_gold"] == row["gold"] for row in rows(trainer))
    assert found["eval/win_rate"] == 0.5


def test_the_reference_writes_and_is_judged_once(tmp_path: Path) -> None:
    judge, reward = First(), First()
    trainer = made(tmp_path, gold=judge, reward=reward)
    trainer.evaluate()
    assert (judge.asked, reward.asked) == ([4, 4], [4]), "the reference's side is the judge's affair alone"
    before = rows(trainer)
    stir(trainer)
    trainer.state.global_step = 1
    found = trainer.evaluate()
    after = rows(trainer)[len(before) :]
    assert judge.asked == [4, 4, 4]
    assert [row["reference"] for row in after] == [row["reference"] for row in before]
    assert [row["completion"] for row in after] != [row["completion"] for row in before]
    won = [(row["gold"] > row["reference_gold"]) + (row["gold"] == row["reference_gold"]) / 2 for row in after]
    assert found["eval/win_rate"] == pytest.approx(sum(won) / 4) and found["eval/win_rate"] != 0.5


def test_a_restart_finds_the_same_reference(tmp_path: Path) -> None:
    trainer, again = made(tmp_path / "one", gold=First()), made(tmp_path / "two", gold=First())
    trainer.evaluate()
    again.state.global_step = 2
    again.evaluate()
    assert [row["reference"] for row in rows(again)] == [row["reference"] for row in rows(trainer)]


def test_a_reward_that_changes_judges_both_sides_anew(tmp_path: Path) -> None:
    reward = First(drifts=True)
    trainer = made(tmp_path, reward=reward)
    trainer.evaluate()
    trainer.state.global_step = 1
    trainer.evaluate()
    assert len(reward.asked) == 4
    first, last = rows(trainer)[0], rows(trainer)[-4]
    assert last["reference_reward"] == first["reference_reward"] + 2


def test_without_reference_or_judge_there_is_no_win_rate(tmp_path: Path) -> None:
    alone = made(tmp_path / "alone", reference=NoReference(), gold=First()).evaluate()
    assert "eval/win_rate" not in alone and "eval/gold" in alone and "eval/perplexity" in alone


def test_symbols_of_a_task_are_no_text(tmp_path: Path) -> None:
    found = toys.trainer(toys.setup(SFT(), gold=First()), tmp_path).evaluate()
    assert {"eval/gold", "eval/perplexity"} <= found.keys()
    assert not {"eval/win_rate", "eval/distinct_1", "eval/repetition"} & found.keys()


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda c: c.length.tolist(), r"^metrics=\[mine\] returned a list for \d+ completions: return a tensor of one number "),
        (lambda c: c.length.mean(), r"^metrics=\[mine\] returned a tensor of shape \(\) for \d+ completions: return a tensor "),
    ],
)
def test_a_metric_that_is_no_number_of_each_completion_is_named(tmp_path: Path, metric: Any, message: str) -> None:
    setup = toys.setup(SFT(), data=Open())
    setup.measures = {"mine": metric}
    with pytest.raises(UserError, match=message):
        toys.trainer(setup, tmp_path).evaluate()
