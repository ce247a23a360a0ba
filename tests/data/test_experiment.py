"""experiment=truthfulqa on a few rows: sft on a fresh model with a tokenizer of its own, then the algorithm from its model."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import alignzoo
from alignzoo.data.files import JsonLines
from alignzoo.settings import UserError

ROWS = Path(__file__).with_name("truthfulqa.jsonl")
SMALL = [
    f"data.path={ROWS}",
    "model.config.hidden_size=8",
    "trainer.batch=4",
    "trainer.max_steps=2",
    "generation.max_new_tokens=4",
]


def run(folder, *overrides):
    return alignzoo.train(alignzoo.compose(["experiment=truthfulqa", *SMALL, f"run_dir={folder}", *overrides]))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of dpo after sft, and its summary."""
    summary = run(tmp_path_factory.mktemp("runs"))
    return Path(summary["run_dir"]), summary


def test_sft_comes_first_and_its_model_is_where_dpo_starts(done):
    folder, summary = done
    [first] = folder.parent.glob("sft-*")
    before = json.loads((first / "summary.json").read_text())
    assert (before["algorithm"], summary["algorithm"]) == ("sft", "dpo")
    assert json.loads((folder / "model" / "config.json").read_text())["hidden_size"] == 8
    assert f"path: {first / 'model'}" in (folder / "config.yaml").read_text()
    # the implicit reward compares with the start, which for dpo is sft's model
    assert summary["metrics"].keys() >= {"preference_accuracy", "preference_accuracy_logprob"}


def test_the_tokenizer_is_trained_on_training_rows_alone_and_kept(done):
    folder, _ = done
    source = JsonLines(path=str(ROWS), heldout=0.2, vocabulary=2000, columns={"prompt": "{prompt}\n"})
    trained, kept = source.tokenizer(), AutoTokenizer.from_pretrained(folder / "model")
    train, heldout, _ = source.rows()
    texts = [row["prompt"] for row in train + heldout]
    assert [kept(text).input_ids for text in texts] == [trained(text).input_ids for text in texts]
    everything = JsonLines(path=str(ROWS), heldout=0.0, vocabulary=2000, columns={"prompt": "{prompt}\n"}).tokenizer()
    assert trained.get_vocab() != everything.get_vocab()


def test_held_out_rows_are_the_same_in_both_stages_and_none_is_trained_on(done):
    folder, _ = done
    reports = [json.loads((path / "summary.json").read_text())["data_report"] for path in folder.parent.glob("*-*")]
    train, heldout, _ = JsonLines(path=str(ROWS), heldout=0.2, columns={"prompt": "{prompt}\n"}).rows()
    assert {row.key for row in train}.isdisjoint(row.key for row in heldout)
    assert [(report["train"], report["heldout"]) for report in reports] == [(len(train), len(heldout))] * 2


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_the_same_command_with_an_online_algorithm_takes_up_the_first_stage_that_is_done(name, done):
    folder, _ = done
    before = {path.name for path in folder.parent.glob("*-*")}
    reward = ["reward=function", "reward.path=alignzoo.rewards.text:length"]
    summary = run(folder.parent, f"algorithm={name}", *reward, "rollout.prompts=2", "rollout.samples=2")
    assert {path.name for path in folder.parent.glob("*-*")} == {*before, Path(summary["run_dir"]).name}
    assert (summary["algorithm"], summary["steps"]) == (name, 2)
    assert "reward" in summary["metrics"]


def test_a_tokenizer_beside_one_that_is_given_is_refused(done, tmp_path):
    folder, _ = done
    with pytest.raises(UserError, match=r"the data brings a tokenizer, and so does .*data.vocabulary=0"):
        run(tmp_path, f"stage.policy.model.tokenizer={folder / 'model'}", "data.vocabulary=300")
