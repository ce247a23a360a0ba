"""`alignzoo train -m` over pipelines: composed, nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from alignzoo.pipeline.stages import stages
from alignzoo.pipeline.sweep import multirun
from alignzoo.settings import UserError
from tests.pipeline.conftest import asked


def swept_by(overrides: list[str]) -> list[DictConfig]:
    """The configs that reach the job."""
    found: list[DictConfig] = []

    def job(make: Any) -> int:
        found.append(make())
        return 0

    assert set(multirun(overrides, job)) == {0}
    return found


def test_every_combination_is_a_pipeline_and_stages_that_are_the_same_are_shared(tmp_path: Path) -> None:
    made = swept_by(asked("stage.policy.algorithm.clip=0.1,0.2", f"run_dir={tmp_path}"))
    assert [cfg.algorithm.clip for cfg in made] == [0.1, 0.2]
    (sft, reward_model, one), (*others, two) = ([stage.folder for stage in stages(cfg)] for cfg in made)
    assert others == [sft, reward_model] and one != two and one.parent == two.parent == tmp_path
    assert all(cfg.model.path == f"{sft}/model" for cfg in made)


def test_experiments_with_stages_are_made_stage_by_stage() -> None:
    made = swept_by(["experiment=truthfulqa", "algorithm=dpo,kto"])
    algorithms = [[stage.config.choices.algorithm for stage in stages(cfg)] for cfg in made]
    assert algorithms == [["sft", "dpo"], ["sft", "kto"]]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["pipeline=none,reward_model", "data=jsonl"],
            "pipelines or single runs, and pipeline=none data=jsonl is no pipeline",
        ),
        (["pipeline=reward_model", "data=jsonl", "hydra/launcher=basic"], "go through no launcher"),
        (["pipeline=reward_model", "data=jsonl", "stages_dir=here"], "is for one pipeline"),
        (["pipeline=reward_model", "data=jsonl", "seed=0,1", "stage.last.algorithm.clipp=1"], "clipp"),
    ],
)
def test_what_cant_be_swept_is_refused_before_the_first_run(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        multirun(overrides, lambda make: pytest.fail("a run was started"))
