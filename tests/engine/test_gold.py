"""The judge: any reward, asked about held-out completions, and trained on by nobody."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from alignzoo import config
from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores
from alignzoo.runs import single
from alignzoo.settings import OnError, Scoring, UserError
from alignzoo.testing import toys
from alignzoo_plugins.sft.sft import SFT


@dataclass(kw_only=True)
class First(Reward):
    """What a completion starts with; those that start with `broken` can't be scored."""

    broken: int = -1

    def __call__(self, c: Completions) -> Scores:
        first = c.ids[:, 0].float()
        return Scores(total=torch.where(first == self.broken, torch.nan, first), parts={"half": first / 2})


def evaluated(folder: Path, gold: Reward | None, **changes: object) -> tuple[dict[str, float], list[dict[str, float]]]:
    trainer = toys.trainer(toys.setup(SFT(), gold=gold, **changes), folder)
    found = trainer.evaluate()
    return found, [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def test_the_judge_scores_what_evaluation_samples(tmp_path: Path) -> None:
    found, rows = evaluated(tmp_path, First())
    firsts = [row["gold"] for row in rows]
    assert len(set(firsts)) > 1 and firsts == [2 * row["gold/half"] for row in rows]
    assert found["eval/gold"] == pytest.approx(sum(firsts) / len(firsts))
    without, _ = evaluated(tmp_path / "without", None)
    assert not [name for name in without if "gold" in name]
    assert without["eval/reward"] == found["eval/reward"], "the judge changes nothing else"


def test_its_failures_are_handled_like_the_reward_s(tmp_path: Path) -> None:
    _, rows = evaluated(tmp_path / "whole", First())
    broken = int(rows[0]["gold"])
    kept = [row["gold"] for row in rows if row["gold"] != broken]
    assert kept
    skipped, _ = evaluated(tmp_path / "skip", First(broken=broken), scoring=Scoring(on_error=OnError.skip))
    assert skipped["eval/gold"] == pytest.approx(sum(kept) / len(kept))
    with pytest.raises(UserError, match="reward gold=toy returned nan for"):
        evaluated(tmp_path / "stop", First(broken=broken))


def test_what_it_costs_is_evaluation_s(tmp_path: Path) -> None:
    made = toys.setup(SFT(), gold=First(), training={"eval_steps": 1})
    costs = []
    for name, gold in (("with", First()), ("without", None)):
        made.gold = gold
        trainer = toys.trainer(made, tmp_path / name)
        trainer.train()
        costs.append({k: v for k, v in trainer.cost.columns().items() if "seconds" not in k and k != "evaluation_flops"})
    assert costs[0] == costs[1]


def test_it_is_chosen_like_the_reward() -> None:
    made = config.instantiate(config.compose(["gold=length", "gold.least=3", "gold.most=null", "reward=none"]))
    assert (type(made.gold).__name__, made.gold.least, made.choices["gold"]) == ("Length", 3, "length")
    assert config.instantiate(config.compose()).gold is None
    assert config.instantiate(config.compose(["gold=task"])).gold is not None, "the data's own, on the exact task"


def test_mistakes_in_it_are_told_like_the_reward_s(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no gold 'sentimnt'\. Did you mean 'sentiment'"):
        config.compose(["gold=sentimnt"])
    with pytest.raises(UserError, match=r"no key 'gold\.pth'\. Did you mean 'path'"):
        config.compose(["gold=function", "gold.pth=x"])
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(UserError, match=r"gold=task, and data=jsonl brings no reward"):
        single.check(config.compose(["gold=task", "data=jsonl", f"data.path={tmp_path}/rows.jsonl", "algorithm=sft"]))
