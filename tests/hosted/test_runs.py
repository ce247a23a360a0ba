"""Runs of TRL's trainers: they learn, are interrupted and resumed, and refuse what they can't do."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignzoo import compose, train
from alignzoo.batch import Rated
from alignzoo.config import instantiate
from alignzoo.engine.callbacks import Interrupt
from alignzoo.engine.hosted import HostBuilder
from alignzoo.settings import UserError
from alignzoo.testing import toys
from alignzoo_plugins.trl import base
from alignzoo_plugins.trl.rows import demonstrations, judged
from tests.hosted.small import EXACT, pairs

ROLLOUT = ["rollout.prompts=4", "rollout.samples=8", "trainer.batch=32", "trainer.logging_steps=10"]


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ("trl_rloo", ["algorithm.beta=1.0"]),
        ("trl_grpo", ["algorithm.beta=1.0", "algorithm.scale=false", "algorithm.average=token"]),
        ("trl_distillation", []),
    ],
)
def test_it_learns_the_task(algorithm: str, more: list[str], tmp_path: Path) -> None:
    steps = ["trainer.max_steps=40", "trainer.learning_rate=5e-3", "trainer.eval_steps=40", *ROLLOUT]
    run = tmp_path / "run"
    summary = train(compose([f"algorithm={algorithm}", f"run_dir={run}", *EXACT, *steps, *more]))
    assert summary["metrics"]["gap_closed"] > 0.3
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    start, end = (row for row in rows if "eval/gap_closed" in row)
    assert (start["step"], end["step"]) == (0, 40) and abs(start["eval/gap_closed"]) < 1e-3
    assert summary["samples"] == summary["prompt_tokens"] == 40 * 32  # prompts are single letters
    assert end["cost/samples"] == 40 * 32 and end["cost/flops"] > 0
    assert summary["completion_tokens"] + summary["prompt_tokens"] == summary["trained_tokens"]
    assert not {"num_tokens", "kl", "rewards/accuracies"} & {name for row in rows for name in row}


@pytest.mark.parametrize("algorithm", ["trl_dpo", "trl_rloo"])
def test_it_goes_on_where_it_was_stopped(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    sizes = ["trainer.max_steps=4", "trainer.batch=8", "trainer.save_steps=2", "rollout.prompts=4", "rollout.samples=2"]
    first = train(compose([f"algorithm={algorithm}", f"run_dir={run}", *EXACT, *sizes, "trainer.logging_steps=1"]))
    weights = load_file(run / "model" / "model.safetensors")
    assert not {name for name in weights if "bias" in name}, "what confines completions is no weight"
    assert not list((run / "checkpoints").glob("*/README.md"))
    (run / "summary.json").unlink()
    shutil.rmtree(run / "model")
    again = train(compose([f"resume={run}"]))
    resumed = load_file(run / "model" / "model.safetensors")
    assert all(torch.allclose(x, resumed[name], atol=1e-6) for name, x in weights.items())
    assert again["metrics"] == pytest.approx(first["metrics"], abs=1e-5)
    for column in ("samples", "trained_tokens", "flops"):
        assert again[column] == first[column]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def built(tmp_path: Path, *overrides: str, interrupt: Interrupt | None = None) -> Any:
    setup = instantiate(compose([*EXACT, "trainer.max_steps=3", "trainer.batch=8", *overrides]))
    return HostBuilder(setup, tmp_path, tmp_path / "cache").trainer(interrupt or Interrupt(), lambda step, row: None)


def test_it_stops_at_a_signal_with_a_checkpoint_and_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **about: told.append(about))
    interrupt = Interrupt()
    interrupt.requested = True
    trainer = built(tmp_path, "algorithm=trl_dpo", interrupt=interrupt)
    assert trainer.trained.policy.lm_head.bias is not None
    trainer.train()
    assert told == [] and trainer.inner.args.report_to == []
    assert trainer.trained.policy.lm_head.bias is None, "afterwards the network is as it was"
    assert trainer.inner.state.global_step == 1
    assert (tmp_path / "checkpoints" / "checkpoint-1" / "model.safetensors").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of TRL, which uses what transformers has renamed
def test_it_samples_only_what_the_task_allows(tmp_path: Path) -> None:
    trainer = built(tmp_path, "algorithm=trl_rloo", "rollout.prompts=4", "rollout.samples=2")
    foreign, support = trainer.foreign, trainer.roles.shared.support
    ids = foreign._generate_single_turn(foreign._tokenize_prompts(["0", "1", "2", "3"] * 8)[0], None, {})
    assert len(ids) == 32 and all(support[token] for row in ids for token in row)
    logits = trainer.trained.policy(torch.tensor([[3, 4, 5]])).logits.softmax(-1)
    assert bool((logits[..., ~support] == 0).all())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["algorithm=trl_dpo", "peft=lora"], r"trl_dpo takes no adapter: choose peft=none"),
        (["algorithm=trl_dpo", "+trainer.role_learning_rates.policy=1e-3"], r"trl_dpo has one learning rate"),
        (["algorithm=trl_rloo", "rollout.prompts=3"], r"trainer\.batch=8 does not divide rollout\.prompts=3"),
        (["algorithm=trl_grpo", "rollout.prompts=8", "rollout.samples=1"], r"rollout\.samples=1 is too few"),
        (["algorithm=trl_distillation", "rollout.prompts=4"], r"set trainer\.batch=16"),
        (["algorithm=trl_rloo", "generation.temperature=0"], r"temperature=0 never varies them"),
        (["algorithm=trl_grpo", "generation.top_k=2"], r"trl_grpo needs the log-probs of the distribution it samples from"),
        (["algorithm=trl_dpo", "reference=none"], r"trl_dpo needs a reference model"),
        (["algorithm=trl_rloo", "reward=none"], r"trl_rloo needs a reward"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        built(tmp_path, *overrides)


def test_data_of_another_kind_is_a_mistake(tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"prompt": "a", "completion": "b"}) + "\n" for _ in range(8)))
    with pytest.raises(UserError, match=r"the algorithm learns from pairs"):
        train(compose(["algorithm=trl_dpo", "data=jsonl", f"data.path={data}", f"run_dir={tmp_path / 'run'}", "reward=none"]))


def test_an_encoder_decoder_is_a_mistake(tmp_path: Path) -> None:
    t5 = "{model_type: t5, d_model: 16, d_kv: 8, d_ff: 32, num_layers: 1, num_heads: 2, decoder_start_token_id: 0}"
    data = [f"data.path={pairs(tmp_path / 'pairs.jsonl')}", "data=jsonl", "reward=none"]
    setup = instantiate(compose(["algorithm=trl_dpo", "model=hf", f"++model.config={t5}", *data]))
    with pytest.raises(UserError, match=r"trl_dpo trains decoders, and this model is an encoder-decoder"):
        HostBuilder(setup, tmp_path, tmp_path / "cache").trainer(Interrupt(), lambda step, row: None)


def test_several_processes_and_old_versions_are_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = instantiate(compose(["algorithm=trl_dpo", *EXACT]))
    with pytest.raises(UserError, match=r"trl_dpo runs in one process, not in 2"):
        setup.algorithm.check(setup, 2)
    for package, installed, needed in (("trl", "1.12.0", "1.16"), ("transformers", "5.18.3", "5.19")):
        versions = {"trl": "1.16.0", "transformers": "5.19.0", package: installed}
        monkeypatch.setattr(base, "metadata", SimpleNamespace(version=versions.get, PackageNotFoundError=ImportError))
        expected = f"trl_dpo needs {package} {needed} or later, and {installed} is installed: pip install -U {package}"
        with pytest.raises(UserError, match=re.escape(expected)):
            setup.algorithm.check(setup, 1)


def test_completions_that_are_not_all_the_policys_are_refused() -> None:
    c = toys.completions([0, 1], unscored=True)
    with pytest.raises(UserError, match=r"row 1: its completion has tokens that the policy did not write"):
        judged(Rated(**vars(c), rating=torch.ones(2)), 0.5)
    row = demonstrations(c)[1]
    written = int(c.scored[1].sum())
    assert row["labels"][-written:] == row["input_ids"][-written:]
    assert set(row["labels"][:-written]) == {-100} and len(row["labels"]) == len(row["input_ids"])


TWINS = {"trl_dpo": "dpo", "trl_kto": "kto", "trl_rloo": "rloo", "trl_grpo": "grpo", "trl_distillation": "distill",
         "trl_reward": "bradley_terry"}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_defaults_and_search_ranges_are_those_of_our_own(name: str) -> None:
    theirs, ours = (instantiate(compose([f"algorithm={n}"])).algorithm for n in (name, TWINS[name]))
    shared = (
        {f.name: f for f in fields(theirs)} if name != "trl_rloo" else {f.name: f for f in fields(theirs) if f.name == "beta"}
    )
    own = {f.name: f for f in fields(ours)}
    assert "beta" in shared or "centring" in shared
    for key in shared:
        mine, other = getattr(ours, key), getattr(theirs, key)
        assert getattr(other, "value", other) == getattr(mine, "value", mine), key
        assert shared[key].metadata.get("search") == own[key].metadata.get("search"), key


def test_listing_imports_no_trl() -> None:
    code = "import sys; from alignzoo.cli.main import main; main(['list', 'algorithm']); sys.exit('trl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"COLUMNS": "200", "PATH": ""})
    assert done.returncode == 0, done.stderr
    assert "trl_dpo" in done.stdout and "TRL's DPOTrainer" in done.stdout
