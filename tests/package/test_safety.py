"""What is never run, and what is never pickled."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from alignzoo import config, settings
from alignzoo.cli.main import main
from alignzoo.rewards.function import load
from alignzoo.settings import UserError

OURS = {".md", ".json", ".jsonl", ".safetensors", ".yaml", ".jinja", ".txt"}


def test_code_of_models_is_off_unless_asked_for() -> None:
    assert settings.Model().trust_remote_code is False
    assert config.compose([]).model.trust_remote_code is False


def test_no_target_is_ever_instantiated(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for key in ("algorithm", "reward", "data", "trainer", "model"):
        with pytest.raises(UserError, match="no key"):
            config.compose([f"+{key}._target_=pathlib.Path.touch"])
    cfg = config.compose(["+model.config._target_=pathlib.Path.touch", f"+model.config.self={marker}"])
    config.instantiate(cfg)
    assert not marker.exists()


def test_local_code_is_not_run_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dpo.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "evil.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert config.compose(["algorithm=dpo"]).algorithm.beta == 0.1
    with pytest.raises(UserError, match="no algorithm 'evil'"):
        config.compose(["algorithm=evil"])


def test_a_dotted_path_is_shown_before_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "shown_first.py").write_text(
        "import sys\nprint('imported', file=sys.stderr)\ndef score(completions): return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    load("shown_first:score", "reward.path")
    assert capsys.readouterr().err.splitlines() == [
        "alignzoo: reward.path=shown_first:score runs the code of shown_first",
        "imported",
    ]


def test_a_module_that_is_not_there_is_not_said_to_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no module 'nowhere_to_be_found'"):
        load("nowhere_to_be_found:score", "reward.path")
    assert capsys.readouterr().err == ""


def test_what_a_run_leaves_needs_no_pickle(tmp_path: Path) -> None:
    """All is JSON, YAML or safetensors, but the Trainer's optimizer and scheduler, which load with weights_only=True."""
    folder = tmp_path / "run"
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}", "chosen": "a", "rejected": "b"}) + "\n" for i in range(20)))
    steps = [
        "trainer.max_steps=2",
        "trainer.save_steps=1",
        "trainer.batch=2",
        "trainer.eval_prompts=2",
        "generation.max_new_tokens=2",
    ]
    assert main(["train", f"run_dir={folder}", "data=jsonl", f"data.path={data}", *steps]) == 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    foreign = {path.name for path in files if path.suffix not in OURS}
    assert foreign <= {"optimizer.pt", "scheduler.pt", "origin"}
    assert "optimizer.pt" in foreign
    for path in files:
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        assert path.suffix == ".pt" or not zipfile.is_zipfile(path)
        if path.suffix in (".json", ".safetensors"):
            with pytest.raises(
                (pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError, AttributeError, ImportError)
            ):
                pickle.loads(path.read_bytes())
