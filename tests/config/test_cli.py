"""The command line: what it answers, with which exit code, and without what."""

import copy
import errno
import math
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from alignzoo import config
from alignzoo.cli import completion, train_command
from alignzoo.cli import main as cli
from alignzoo.runs import single
from alignzoo.settings import UserError

LIGHT = """
import sys
from alignzoo.cli.main import main
codes = [main(line.split("|")) for line in {lines!r}]
print(codes, [name for name in ("torch", "transformers", "hydra") if name in sys.modules])
"""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[DictConfig]:
    """The configs that reach `run.train`, which is replaced by one that returns a summary."""
    configs: list[DictConfig] = []

    def train(cfg: DictConfig) -> dict[str, Any]:
        configs.append(cfg)
        if cfg.seed == 13:
            raise UserError("13 brings bad luck")
        status = "interrupted" if cfg.seed == 14 else "finished"
        facts = {"algorithm": "dpo", "data": "exact", "seed": cfg.seed, "steps": 7, "run_dir": str(cfg.run_dir)}
        return {**facts, "status": status, "total_seconds": 1.5, "metrics": {"reward": 0.25}}

    monkeypatch.setattr(single, "train", train)
    return configs


def test_help_list_cards_completion_and_unknown_names_import_neither_torch_nor_hydra() -> None:
    lines = [
        "--help",
        "train|--help",
        "list",
        "list|data",
        "card|dpo",
        "card|nothing",
        "train|algorithm=x|--help",
    ]
    lines += ["--shell-completion|query=alignzoo train algorithm=", "--shell-completion|query=alignzoo train algorithm."]
    done = subprocess.run([sys.executable, "-c", LIGHT.format(lines=lines)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0, 0, 2, 2, 0, 0] []"


def test_an_unknown_option_is_refused_before_torch_is_imported() -> None:
    code = LIGHT.format(lines=["train|algorithm=nothing"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[2] ['hydra']\n"
    assert done.stderr.startswith("alignzoo: no algorithm 'nothing'. ")
    assert len(done.stderr.splitlines()) == 1


def test_list_shows_plugins_presets_and_yaml_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    shown = [line.split()[:3] for line in printed.splitlines()]
    assert ["algorithm", "dpo", "preference"] in shown
    assert re.search("algorithm +rloo +policy gradient +as reinforce, or less +REINFORCE leave-one-out", printed)
    assert ["data", "jsonl", "JSON"] in shown
    assert [row[:2] for row in shown if row[:1] == ["model"]] == [
        ["model", name] for name in ("hf", "small", "smollm2", "stories")
    ]


def test_list_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "peft"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.split("\n")[1:3]] == [["peft", "lora"], ["peft", "none"]]
    assert cli.main(["list", "pefd"]) == 2
    assert capsys.readouterr().err.startswith("alignzoo: no group 'pefd'. Did you mean 'peft'? Available: algorithm, data, ")


def test_algorithms_by_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    """With the settings of presets: dapo's KL is 0."""
    assert cli.main(["list", "--needs", "prompts", "--without", "reference"]) == 0
    rows = [re.split("  +", line.strip())[:3] for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["family", "name", "needs"] and ["policy gradient", "dapo", "prompts, reward"] in rows
    assert "grpo" not in [name for _, name, *_ in rows]
    assert cli.main(["list", "--needs", "reference"]) == 0
    copies = {
        name: needed for _, name, needed in (re.split("  +", r.strip())[:3] for r in capsys.readouterr().out.splitlines())
    }
    assert copies["tr_dpo"] == "pairs, anchor (reference)" and copies["dpo"] == "pairs, reference" and "distill" not in copies
    assert cli.main(["list", "algorithm", "--family", "supervised", "--needs", "completions"]) == 0
    assert "supervised  sft" in capsys.readouterr().out
    assert cli.main(["list", "--without", "referenc"]) == 2
    assert "no algorithm needs 'referenc'. Did you mean 'reference'?" in capsys.readouterr().err
    assert cli.main(["list", "data", "--family", "supervised"]) == 2
    assert capsys.readouterr().err == "alignzoo: --family, --needs and --without are of algorithms: leave data out\n"


def test_cards_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", "--compare", "dpo", "cdpo", "simpo"]) == 0
    printed = capsys.readouterr().out
    assert "\n    L = - log sigma( beta (l_chosen - l_rejected) - gamma )" in printed
    rows = {line.split()[0]: re.split("  +", line.strip())[1:] for line in printed.splitlines() if line.strip()}
    assert rows["needs"] == ["pairs, reference", "pairs, reference", "pairs"]
    assert rows["beta"] == ["0.1", "0.1", "2.0"] and rows["label_smoothing"] == ["0.0", "0.1"]
    assert cli.main(["card", "dpo", "--compare", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("alignzoo: no algorithm 'nothing'.")
    assert cli.main(["card"]) == 2
    assert capsys.readouterr().err == "alignzoo: alignzoo card NAME: which? `alignzoo list` shows all names\n"


def test_a_card_shows_where_an_algorithm_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", "dpo"]) == 0
    shown = capsys.readouterr().out
    assert "Rafailov et al. 2023" in shown
    assert "alignzoo train algorithm=dpo --help" in shown
    assert cli.main(["card", "rloo"]) == 0
    assert "baseline: leave_one_out" in capsys.readouterr().out


def test_help_of_an_algorithm_shows_its_settings_and_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "algorithm=ppo_adaptive", "--help"]) == 0
    shown = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines() if line}
    assert shown["algorithm.gae_lambda"].startswith("float 0.95 0.8 to 1 lambda: 1 trusts the sampled return")
    assert shown["algorithm.kl.target"].startswith("float | null 6.0 ")  # the preset's, not the class's
    assert shown["algorithm.value_model"].startswith("policy | reward | shared policy ")


def test_help_of_a_group_without_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "peft=lora", "--help"]) == 0
    assert re.search(r"peft\.enabled +bool +true", capsys.readouterr().out)
    assert cli.main(["train", "peft=lara", "--help"]) == 2
    assert capsys.readouterr().err == "alignzoo: no peft 'lara'. Did you mean 'lora'? Available: lora, none\n"


def test_cfg_prints_the_config_and_trains_nothing(runs: list[DictConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "algorithm=dpo", "--cfg", "job", "algorithm.beta=0.7"]) == 0
    assert OmegaConf.create(capsys.readouterr().out).algorithm.beta == 0.7
    assert runs == []


def test_train_prints_the_summary(runs: list[DictConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "seed=3", "run_dir=somewhere"]) == 0
    head, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert dict(zip(head, row, strict=True)) == {
        "algorithm": "dpo", "data": "exact", "seed": "3", "status": "finished", "steps": "7", "seconds": "1.5",
        "reward": "0.25", "folder": "somewhere",
    }  # fmt: skip


def test_an_interrupted_run_says_how_to_go_on(runs: list[DictConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "seed=14", "run_dir=somewhere"]) == 128 + signal.SIGINT
    assert capsys.readouterr().out == "interrupted at step 7 and saved; go on with: alignzoo train resume=somewhere\n"


def test_a_mistake_is_one_line_and_exit_code_2(runs: list[DictConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "seed=13"]) == 2
    assert capsys.readouterr().err == "alignzoo: 13 brings bad luck\n"
    assert cli.main(["trian"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("alignzoo: no command 'trian'. Did you mean 'train'? Commands: train, make, bench, ")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("train --model_name_or_path x", "model.path=VALUE"),
        ("train --learning-rate=1e-5 -m", "trainer.learning_rate=1e-5"),
        ("make --out rows.jsonl", "out=VALUE"),
        ("bench --seed=1", "seed=1"),
    ],
)
def test_a_flag_is_answered_with_the_override(line: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err == f"alignzoo: no option {line.split()[1]!r}: overrides are key=value: {key}\n"


def test_another_rank_than_the_first_tells_a_mistake_only_after_the_first_could_have(
    runs: list[DictConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["train", "seed=1"]) == 0
    assert (capsys.readouterr(), waited) == (("", ""), [])
    assert cli.main(["train", "seed=13"]) == 2
    assert waited == [cli.PATIENCE]
    assert capsys.readouterr().err.startswith("alignzoo: ")


def test_multirun_runs_every_combination_in_a_folder_of_its_own(runs: list[DictConfig], tmp_path: Path) -> None:
    assert cli.main(["train", "-m", "algorithm=dpo,sft", "seed=1,2", f"run_dir={tmp_path}/all"]) == 0
    assert [(cfg.choices.algorithm, cfg.seed) for cfg in runs] == [("dpo", 1), ("dpo", 2), ("sft", 1), ("sft", 2)]
    assert [Path(cfg.run_dir).name for cfg in runs] == [f"algorithm={a},seed={s}" for a in ("dpo", "sft") for s in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["multirun.yaml"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(ConfigStore.instance().repo))  # it keeps what is stored
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("config: {model_type: llama, hidden_size: 16}\n")
    (tmp_path / "mine.yaml").write_text("defaults: [train, {algorithm: ppo}, {override model: tiny}, _self_]\nseed: 7\n")
    return tmp_path


@pytest.mark.parametrize("words", [["--config-dir={}", "--config-name=mine"], ["-cd", "{}", "-cn", "mine.yaml"]])
def test_a_config_of_one_s_own_stands_for_train_yaml(runs: list[DictConfig], folder: Path, words: list[str]) -> None:
    assert cli.main(["train", *(word.format(folder) for word in words), "trainer.max_steps=3"]) == 0
    (cfg,) = runs
    assert (cfg.choices.algorithm, cfg.seed, cfg.model.config.hidden_size, cfg.trainer.max_steps) == ("ppo", 7, 16, 3)
    assert cli.main(["train", *(word.format(folder) for word in words), "seed=8", "algorithm=sft"]) == 0
    assert (runs[1].choices.algorithm, runs[1].seed) == ("sft", 8)


def test_a_folder_of_one_s_own_has_groups(runs: list[DictConfig], folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "model"
    other.mkdir(parents=True)
    (other / "small2.yaml").write_text("config: {model_type: llama, hidden_size: 32}\n")
    both = [f"--config-dir={folder}", f"hydra.searchpath=[file://{other.parent}]"]
    assert cli.main(["train", *both, "model=tiny"]) == cli.main(["train", *both, "model=small2"]) == 0
    assert [cfg.model.config.hidden_size for cfg in runs] == [16, 32]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir=/nowhere"], "--config-dir=/nowhere is not a folder"),
        (["--config-dir={}", "--config-name=mime"], "there is no {}/mime.yaml. Did you mean 'mine'? Give its folder with"),
        (["--config-dir={}", "--config-name=mine", "experiment=exact"], "--config-name=mine takes the place of experiment="),
        (["--config-dir={}", "--config-name=exact"], "there is an experiment 'exact' already. Give the file another name"),
        (["--objective=kl"], "--objective=kl is for the sweeper of -m"),
        (["-m", "hydra/sweeper=nevergrad"], "no hydra/sweeper 'nevergrad'"),
    ],
)
def test_what_there_is_no_config_for(
    runs: list[DictConfig], folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (folder / "exact.yaml").write_text("seed: 1\n")
    assert cli.main(["train", *(word.format(folder) for word in words)]) == 2
    assert message.format(folder) in capsys.readouterr().err and not runs


@pytest.mark.filterwarnings("ignore")  # optuna 2 as it is imported
@pytest.mark.parametrize("words", [[], ["hydra.sweeper.direction=minimize"]])
def test_optuna_goes_by_the_metric_and_not_by_runs_that_fail(runs: list[DictConfig], tmp_path: Path, words: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    swept = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "seed=choice(13,2)", f"run_dir={tmp_path}/o", *words]
    cli.main(["train", *swept])
    found = OmegaConf.load(tmp_path / "o" / "optimization_results.yaml")
    assert (len(runs), found.best_value, found.best_params.seed) == (4, 0.25, 2)


def test_a_sweeper_hears_of_the_metric_that_was_asked_for(runs: list[DictConfig]) -> None:
    outcome = train_command.one_of_several(None, lambda: config.compose(["seed=1"]))
    assert (outcome, outcome.code) == (0.25, 0)
    failed = train_command.one_of_several(None, lambda: config.compose(["seed=13"]))
    assert math.isnan(failed) and failed.code == 2
    with pytest.raises(UserError, match=r"--objective=rewrad: the run has no such metric. Did you mean 'reward'"):
        train_command.one_of_several("rewrad", lambda: config.compose(["seed=1"]))


def test_multirun_goes_on_after_a_mistake_and_stops_at_an_interrupt(
    runs: list[DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "-m", "seed=12,13,15", f"run_dir={tmp_path}/all"]) == 2
    assert [cfg.seed for cfg in runs] == [12, 13, 15]
    assert capsys.readouterr().err == "alignzoo: 13 brings bad luck\n"
    assert cli.main(["train", "-m", "seed=14,15", f"run_dir={tmp_path}/all"]) == 130
    assert [cfg.seed for cfg in runs] == [12, 13, 15, 14]


def test_multirun_checks_keys_before_the_first_run(
    runs: list[DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "-m", "seed=1,2", "algorithm.bta=1", f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("alignzoo: no key 'algorithm.bta'. Did you mean 'beta'?")
    assert cli.main(["train", "-m", "algorithm=dpo,dpoo", f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("alignzoo: no algorithm 'dpoo'. Did you mean 'dpo'")
    assert runs == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.bin"),
        RuntimeError("PytorchStreamWriter failed: file write failed"),
    ],
)
def test_a_full_disk_is_a_clean_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(cfg: DictConfig) -> dict[str, Any]:
        raise ValueError("could not save") from error

    monkeypatch.setattr(single, "train", train)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("alignzoo: the disk is full: ")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST])
def test_a_place_that_cannot_be_used_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(cfg: DictConfig) -> dict[str, Any]:
        raise OSError(number, "why", "/cache/x.pt")

    monkeypatch.setattr(single, "train", train)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == "alignzoo: /cache/x.pt can't be read or written: why. Choose another place\n"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(cfg: DictConfig) -> dict[str, Any]:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(single, "train", train)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alignzoo tr", ["train"]),
        ("alignzoo train algorithm=dp", ["algorithm=dpo", "algorithm=dpop", "algorithm=dppo"]),
        ("alignzoo train -m algorithm=sft,plac", ["algorithm=sft,plackett_luce"]),
        ("alignzoo train algorithm=ppo algorithm.cl", ["algorithm.clip="]),
        ("alignzoo train algorithm.be", ["algorithm.beta="]),  # of the default algorithm
        ("alignzoo train trainer.max_s", ["trainer.max_steps="]),
        ("alignzoo train model=", ["model=hf", "model=small", "model=smollm2", "model=stories"]),
        ("alignzoo train see", ["seed="]),
        ("alignzoo card rein", ["reinforce", "reinforce_pp", "reinforce_pp_baseline"]),
        ("alignzoo list pe", ["peft"]),
    ],
)
def test_completion(line: str, expected: list[str]) -> None:
    assert completion.candidates(line) == expected


def test_completion_in_bash() -> None:
    script = 'COMP_LINE="alignzoo train algorithm=sf"; COMP_POINT=${#COMP_LINE}; _alignzoo; echo "${COMPREPLY[@]}"'
    alignzoo = f'alignzoo() {{ "{sys.executable}" -m alignzoo "$@"; }}\n'
    done = subprocess.run(["bash", "-c", alignzoo + completion.BASH + script], capture_output=True, text=True, check=True)
    assert done.stdout == "sft\n"  # bash replaces what follows the "="


@pytest.mark.parametrize("command", [["sample", "nowhere"], ["compare", "nowhere", "elsewhere"]])
def test_samples_are_not_written_over_a_file_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """That is known before anything is read."""
    out = tmp_path / "samples.jsonl"
    out.write_text("mine")
    assert cli.main([*command, "--out", str(out)]) == 2
    told = f"alignzoo: --out: {out} exists: choose another name, or write over it with --overwrite\n"
    assert capsys.readouterr().err == told and out.read_text() == "mine"
    assert cli.main([*command, "--out", str(out), "--overwrite"]) == 2
    assert "nowhere is not the folder of a run" in capsys.readouterr().err
