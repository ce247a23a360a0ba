"""Which override is for which stage, what is said of stages, where they are: composed, nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo import config
from alignzoo.cli import main as cli
from alignzoo.pipeline import carry_out
from alignzoo.pipeline.stages import folder_of, stages
from alignzoo.settings import UserError
from tests.pipeline.conftest import TINY, asked


def folders(*more: str) -> dict[str, str]:
    """{stage: folder} of the tiny pipeline."""
    return {stage.name: str(stage.folder) for stage in stages(config.compose(asked(*more)))}


def configs(*more: str) -> dict[str, config.DictConfig]:
    return {stage.name: stage.config for stage in stages(config.compose(asked(*more)))}


def changed(*more: str) -> set[str]:
    """The stages that these overrides make others of."""
    before, after = folders(), folders(*more)
    return {name for name in before if before[name] != after[name]}


def test_each_stage_has_its_own_settings_and_the_folders_of_those_it_uses() -> None:
    found, where = configs(), folders()
    assert [cfg.choices.algorithm for cfg in found.values()] == ["sft", "bradley_terry", "ppo"]
    assert [cfg.model.path for cfg in found.values()] == [None, f"{where['sft']}/model", f"{where['sft']}/model"]
    assert found["policy"].reward.path == f"{where['reward_model']}/model"
    assert all(path.startswith("runs/tiny/") for path in where.values())
    assert config.compose(asked()).run_dir == where["policy"] == str(folder_of(asked(), "policy"))


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("seed=1", {"sft", "reward_model", "policy"}),  # a key that all have
        ("model.config.hidden_size=16", {"sft", "reward_model", "policy"}),  # sft alone has it, the others use its model
        ("making.prompts=9", {"reward_model", "policy"}),  # of the stage that makes its data, and of what uses it
        ("algorithm=reinforce", {"policy"}),  # what is climbed, and how, is the last stage's
        ("rollout.samples=3", {"policy"}),
        ("stage.policy.seed=1", {"policy"}),
        ("stage.last.trainer.batch=2", {"policy"}),
        ("stage.reward_model=[seed=1,trainer.batch=2]", {"reward_model", "policy"}),
        ("label=mine", set()),
        ("trainer.max_steps=2", set()),
    ],
)
def test_an_override_changes_the_stages_it_is_for_and_those_that_use_them(override: str, stages: set[str]) -> None:
    assert changed(override) == stages


def test_the_command_line_is_stronger_than_the_file_and_what_it_says_of_one_stage_strongest() -> None:
    found = configs("trainer.learning_rate=0.5", "stage.sft.trainer.learning_rate=0.25")
    assert [cfg.trainer.learning_rate for cfg in found.values()] == [0.25, 0.5, 0.5]


def test_what_a_stage_takes_from_another_stays_so() -> None:
    found = configs("model=small", "reference=none", "stage.policy.reference=copy")
    assert [cfg.choices.model for cfg in found.values()] == ["small", "hf", "hf"]
    assert [cfg.choices.reference for cfg in found.values()] == ["copy", "copy", "copy"]


def test_a_moved_pipeline_has_the_same_hashes_and_another_content_of_a_file_others(tmp_path: Path) -> None:
    names = {name: Path(folder).name for name, folder in folders().items()}
    assert {name: Path(folder).name for name, folder in folders(f"run_dir={tmp_path}/else where").items()} == names
    rows = tmp_path / "rows.jsonl"
    found = []
    for text in ("one", "two", "one"):
        rows.write_text(json.dumps({"prompt": "a", "completion": text}) + "\n")
        found.append(folders("data=jsonl", f"data.path={rows}", "~stage.policy", "~stage.reward_model")["sft"])
    assert found[0] == found[2] != found[1]


def test_another_algorithm_or_reward_comes_without_the_settings_of_the_one_it_replaces() -> None:
    ppo = "+stage.policy=[algorithm=ppo,algorithm.kl.beta=0.5,model=hf,model.path={stage:sft}/model,reward=length]"
    assert configs("~stage.policy", ppo)["policy"].algorithm.kl.beta == 0.5
    assert configs("stage.policy.reward=sentiment")["policy"].choices.reward == "sentiment"


def test_a_stage_is_dropped_replaced_and_added() -> None:
    dpo = "+stage.policy=[algorithm=dpo,model=hf,model.path={stage:sft}/model,making=pairs]"
    assert list(folders("~stage.policy")) == ["sft", "reward_model"]
    found = configs("~stage.reward_model", "~stage.policy", dpo)
    assert [(name, cfg.choices.algorithm) for name, cfg in found.items()] == [("sft", "sft"), ("policy", "dpo")]
    replaced = configs("~stage.reward_model", "+stage.reward_model=[algorithm=plackett_luce,making=rankings]")
    assert [cfg.choices.algorithm for cfg in replaced.values()] == ["sft", "plackett_luce", "ppo"]  # in its place
    assert list(folders("+stage.polish=[algorithm=sft,model=hf,model.path={stage:policy}/model]"))[-1] == "polish"


def test_the_folder_of_the_last_stage_alone_where_the_others_are_elsewhere(tmp_path: Path) -> None:
    found = folders(f"run_dir={tmp_path}/here", f"stages_dir={tmp_path}/there")
    assert found["policy"] == f"{tmp_path}/here"
    assert Path(found["sft"]).parent == Path(found["reward_model"]).parent == tmp_path / "there"
    assert Path(found["sft"]).name == Path(folders()["sft"]).name


def test_what_was_asked_of_stages_is_kept_in_the_config_of_the_last() -> None:
    cfg = config.compose(asked("stage.reward_model.making.prompts=9", "stage.last=[seed=3]"))
    assert cfg.stage == {"reward_model": {"making.prompts": 9}, "last": {"seed": 3}}
    assert cfg.stages == {name: folder for name, folder in folders("making.prompts=9").items() if name != "policy"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage.polcy.seed=1"], r"stage.polcy.seed=1: tiny has no stage 'polcy'. Did you mean 'policy'\? Stages: sft, rew"),
        (["stage.sft=[model=hf,model.path={stage:policy}/model]"], "stage sft: .* it uses policy, which is made after it"),
        (["stage.sft=[model=hf,model.path={stage:sft}/model]"], "stage sft: .* it uses itself"),
        (["~stage.reward_model"], r"stage policy: reward.path=\{stage:reward_model\}/model: tiny has no stage 'reward_model'"),
        (["stage.policy.reward.path={stage:reward_modl}/model"], "no stage 'reward_modl'. Did you mean 'reward_model'?"),
        (["trainer.bath=3"], r"trainer.bath=3 fits no stage: of policy: no key 'trainer.bath'. Did you mean 'batch'"),
        (
            ["reward=sentiment"],
            r"reward=sentiment fits no stage: policy has reward.path=\{stage:reward_model\}/model. Replace it: ~stage.policy",
        ),
        (["+stage.sft=[seed=1]"], "there is a stage of this name: drop it first by ~stage.sft"),
        (["+stage.a/b=[seed=1]"], "can't read|no name for a stage"),
        (["stage.sft=3"], r"can't read 'stage.sft=3': write stage.NAME='\[key=value,key=value\]'"),
        (["~stage.sft", "~stage.reward_model", "~stage.policy"], "has no stage left"),
        (["stage.sft.algorithm=sfd"], "stage sft: no algorithm 'sfd'. Did you mean 'sft'?"),
    ],
)
def test_mistakes_are_told_with_the_stage(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.compose(asked(*overrides))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {}", "describes no stages"),
        ("description: x", "describes no stages"),
        ("stages: {sft: 3}", "describes no stages"),
        ("stages: {sft: [seed=1]}\nsteps: 3", "says steps, which means nothing"),
        ("stages: {'a b': [seed=1]}", "'a b' is no name for a stage"),
        ("stages: [", "can't be read"),
    ],
)
def test_a_file_that_describes_no_pipeline(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        config.compose([f"pipeline={path}"])


def test_a_pipeline_that_is_not_there_and_stages_of_a_single_run() -> None:
    with pytest.raises(UserError, match=r"pipeline=none.yaml: there is no such file"):
        config.compose(["pipeline=none.yaml"])
    with pytest.raises(UserError, match=r"no pipeline 'rlfh'. Did you mean 'rlhf'"):
        config.compose(["pipeline=rlfh"])
    with pytest.raises(UserError, match=r"stage.sft.seed=1: a single run has no stages. Give pipeline=NAME too"):
        config.compose(["stage.sft.seed=1"])


def test_every_stage_is_checked_before_the_first_is_made(tmp_path: Path) -> None:
    wrong = {
        "stage.policy.algorithm.kl.beta=-1": "stage policy: algorithm.kl.beta=-1.0 is out of range",
        "stage.policy.reward.path={stage:sft}/model": "reward.path is the result of the stage sft, which trains no reward",
        "stage.policy.model.path={stage:reward_model}/model": "model.path is the result of the stage reward_model",
        "stage.policy.reward.path=/no/where": "stage policy: reward.path=/no/where does not exist",
    }
    for override, message in wrong.items():
        with pytest.raises(UserError, match=message):
            carry_out.run(config.compose(asked(f"run_dir={tmp_path}/run", override)))
    assert not (tmp_path / "run").exists()


def test_the_stages_are_shown_and_nothing_is_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["train", *asked(f"run_dir={tmp_path}/run"), "--stages"]) == 0
    said = capsys.readouterr().out
    assert said.count("to do") == 3 and "sft, reward_model" in said and "reward_model: alignzoo train" in said
    assert not (tmp_path / "run").exists()
    assert cli.main(["train", "--stages"]) == 2
    assert "give pipeline=NAME" in capsys.readouterr().err


def test_pipelines_that_come_with_alignzoo_can_be_read() -> None:
    found = config.compose(["pipeline=truthfulqa", "data=jsonl", "data.path=x"])
    assert list(found.pipeline.stages) == ["sft", "policy"]
    assert TINY.endswith("tiny.yaml")


def test_stages_whose_code_was_edited_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asking = ["gold=function", "gold.path=stage_judge:score"]
    Path("stage_judge.py").write_text("def score(completions):\n    return [1.0 for c in completions]\n")
    before, same = folders(*asking), folders(*asking)
    Path("stage_judge.py").write_text("def score(completions):\n    return [2.0 for c in completions]\n")
    after = folders(*asking)
    assert before == same and not {*before.values()} & {*after.values()}
