"""A pipeline carried out: made, kept, gone on with, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import alignzoo
from alignzoo.cli import main as cli
from alignzoo.common.cache import keyed
from alignzoo.engine.callbacks import Flow
from alignzoo.pipeline import carry_out
from alignzoo.pipeline.stages import Stage
from alignzoo.runs import results, single
from alignzoo.settings import UserError
from tests.pipeline.conftest import asked


def made(folder: Path, *more: str) -> list[dict[str, Any]]:
    return carry_out.run(alignzoo.compose(asked(f"run_dir={folder}", *more)))


def written(folder: Path) -> dict[str, int]:
    """{stage folder: when its summary was written}"""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny pipeline, carried out."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert [summary["status"] for summary in made(folder)] == ["finished"] * 3
    return folder


def test_each_stage_starts_from_what_others_left(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads((done / "pipeline.json").read_text())
    assert [(row["name"], row["inputs"], row["status"]) for row in said["stages"]] == [
        ("sft", [], "finished"), ("reward_model", ["sft"], "finished"), ("policy", ["sft", "reward_model"], "finished"),
    ]  # fmt: skip
    assert all(Path(row["folder"]).name == f"{row['name']}-{row['hash']}" and row["seconds"] > 0 for row in said["stages"])
    assert said["stages"][-1]["metrics"].keys() >= {"reward", "gold", "kl"}
    reward = json.loads((Path(said["stages"][1]["folder"]) / "model" / "config.json").read_text())
    assert reward["architectures"] == ["LlamaForSequenceClassification"] and reward["hidden_size"] == 8


def test_what_is_there_is_kept_and_what_has_changed_is_made_beside_it(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(done)
    assert alignzoo.train(alignzoo.compose(asked(f"run_dir={done}")))["algorithm"] == "ppo"
    assert written(done) == before
    assert capsys.readouterr().err.count("is there already") == 3
    assert made(done, "algorithm=reinforce")[-1]["algorithm"] == "reinforce"
    after = written(done)
    assert {name: after[name] for name in before} == before
    [new] = after.keys() - before.keys()
    assert new.startswith("policy-")
    compared = results.find([done]).runs
    assert sorted(found.algorithm for found in compared) == ["ppo", "reinforce"]  # not the stages before
    assert {found.config["model"]["path"] for found in compared} == {"{stage:sft}/model"}
    [sft] = done.glob("sft-*")
    assert [found.algorithm for found in results.find([sft]).runs] == ["sft"]


def test_a_stage_that_is_interrupted_goes_on_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second stage gets a Ctrl-C after its first step; the first is not made again."""
    end, seen = Flow.on_step_end, list[str]()

    def interrupting(self: Flow, args: Any, state: Any, control: Any, **others: Any) -> Any:
        if "reward_model" in args.output_dir and not seen:
            seen.append(args.output_dir)
            os.kill(os.getpid(), signal.SIGINT)
        return end(self, args, state, control, **others)

    monkeypatch.setattr(Flow, "on_step_end", interrupting)
    command = ["train", *asked(f"run_dir={tmp_path}/run")]
    assert cli.main(command) == cli.INTERRUPTED
    said = capsys.readouterr().out
    assert "interrupted in stage 2 of 3, reward_model, at step 1, and saved; the same command goes on from there" in said
    before = written(tmp_path / "run")
    assert [name.rpartition("-")[0] for name in before] == ["sft"]
    status = [row["status"] for row in json.loads((tmp_path / "run" / "pipeline.json").read_text())["stages"]]
    assert status == ["finished", "interrupted", "to do"]
    assert cli.main(command) == 0
    after = written(tmp_path / "run")
    assert len(after) == 3 and before.items() <= after.items()
    [resumed] = (tmp_path / "run").glob("reward_model-*")
    assert json.loads((resumed / "summary.json").read_text())["steps"] == 2


def test_what_a_killed_attempt_under_another_label_left_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One like this is the run's own affair. What was written is removed by name: what else is there stays."""
    folder, cfg = tmp_path / "sft", OmegaConf.create({"run_dir": str(tmp_path / "sft"), "label": None})
    folder.mkdir()
    (folder / "config.yaml").write_text(single.identity(cfg))
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    carry_out._take_over(Stage("sft", "1 of 1", (), folder, whole=cfg))
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    cfg.label = "mine"
    text = single.identity(cfg)
    taken = {"config.yaml": text, "origin": keyed(text.encode()), "notes.txt": "mine"}
    for rank, left in (("1", before), ("0", taken)):
        monkeypatch.setenv("RANK", rank)
        carry_out._take_over(Stage("sft", "1 of 1", (), folder, whole=cfg))
        assert {path.name: path.read_text() for path in folder.iterdir()} == left


def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text("[1]")
    with pytest.raises(UserError, match=f"run_dir={tmp_path}: {tmp_path}/pipeline.json exists: choose another name"):
        made(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["[1]"]


def test_a_stage_that_fails_is_named_and_the_same_command_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = single.train

    def failing(cfg: Any) -> Any:
        if cfg.choices.algorithm == "bradley_terry":
            raise UserError("no pairs")
        return train(cfg)

    monkeypatch.setattr(single, "train", failing)
    with pytest.raises(UserError, match=r"stage 2 of 3, reward_model, failed: no pairs\nIts folder: .*reward_model-.*goes on"):
        made(tmp_path)
    rows = json.loads((tmp_path / "pipeline.json").read_text())["stages"]
    assert [(row["status"], row["error"]) for row in rows] == [("finished", ""), ("failed", "no pairs"), ("to do", "")]
    monkeypatch.setattr(single, "train", train)
    before = written(tmp_path)
    assert made(tmp_path)[-1]["status"] == "finished"
    assert before.items() <= written(tmp_path).items()
    assert [row["error"] for row in json.loads((tmp_path / "pipeline.json").read_text())["stages"]] == [""] * 3
