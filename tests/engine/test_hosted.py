"""A hosted trainer leaves what any run leaves, and is resumed like any."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from alignzoo import compose, train
from alignzoo.cli import scaffold
from alignzoo.engine import checkpoint, records
from alignzoo.settings import UserError


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    scaffold.make("foreign", "trainer", folder)
    return folder


def overrides(plugins: Path, run: Path) -> list[str]:
    return [
        f"plugins_dir={plugins}", "algorithm=foreign", f"run_dir={run}", "metrics=[distinct_tokens]", "trainer.max_steps=4",
        "trainer.batch=4", "trainer.micro_batch=2", "trainer.save_steps=2", "trainer.logging_steps=1", "trainer.eval_steps=2",
        "trainer.eval_prompts=4",
    ]  # fmt: skip


def test_it_leaves_what_any_run_leaves_and_resumes(plugins: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train(compose(overrides(plugins, run)))
    assert summary["status"] == "finished" and summary["steps"] == 4
    assert {"gap_closed", "reward", "kl", "metric/distinct_tokens"} <= set(summary["metrics"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval/reward" in row] == [0, 2, 4]
    assert len((run / "completions.jsonl").read_text().splitlines()) == 12
    weights = load_file(run / "model" / "model.safetensors")

    # as if it had been killed after step 2
    (run / "summary.json").unlink()
    shutil.rmtree(run / "model")
    again = train(compose([f"resume={run}"]))
    assert again["steps"] == 4
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    resumed = load_file(run / "model" / "model.safetensors")
    assert all(torch.allclose(x, resumed[name], atol=1e-6) for name, x in weights.items())


def test_an_unknown_metric_is_a_mistake(plugins: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metric 'distinct_token'\. Did you mean 'distinct_tokens'"):
        train(compose([*overrides(plugins, tmp_path / "run"), "metrics=[distinct_token]"]))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_what_is_built_must_be_a_trainer(tmp_path: Path) -> None:
    code, *_ = scaffold.make("foreign", "trainer", tmp_path)
    code.write_text(code.read_text().replace("return Trainer(", "return dict("))
    with pytest.raises(UserError, match=r"foreign built a dict: `build` must return a transformers\.Trainer"):
        train(compose(overrides(tmp_path, tmp_path / "run")))


def test_it_stops_early_with_the_weights_that_were_best(plugins: Path, tmp_path: Path) -> None:
    """On the optimum, which never gets better: after the first evaluation, with what it started from."""
    run = tmp_path / "run"
    summary = train(compose([*overrides(plugins, run), "early_stop.metric=J_star", "early_stop.patience=1"]))
    assert (summary["status"], summary["steps"]) == ("finished", 2)
    assert summary["early_stop"]["weights_of_step"] == 0 and "J_star was not better" in summary["early_stop"]["reason"]
    rows = {row["step"]: row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "eval/J" in row}
    assert summary["metrics"]["J"] == rows[0]["eval/J"] != rows[2]["eval/J"]
    kept, trained = (load_file(run / name / "model.safetensors") for name in ("model", "checkpoints/checkpoint-2"))
    assert any(not torch.equal(x, trained[name]) for name, x in kept.items())


def test_another_number_of_processes_than_wrote_a_checkpoint_is_refused(plugins: Path, tmp_path: Path) -> None:
    """Of either kind of trainer; two processes have written what is here made to say so."""
    for algorithm, file, names in (("foreign", "cost", None), ("sft", "state", ("window", "cost", "rng"))):
        run = tmp_path / algorithm
        train(compose([*overrides(plugins, run), f"algorithm={algorithm}"]))
        (run / "summary.json").unlink()
        saved = checkpoint.latest(run / "checkpoints")
        state = records.load(saved / file)
        records.save(state * 2 if names is None else state | {name: state[name] * 2 for name in names}, saved / file)
        checkpoint.seal(saved)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with pytest.raises(UserError, match=r"written by 2 process\(es\), and 1 are to go on from it"):
            train(compose([f"resume={run}"]))
        after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert {path.name for path in after if after[path] != before.get(path)} <= {"fingerprint.json"}
    with pytest.raises(UserError, match=r"written by 1 process\(es\), and 2 are to go on"):
        records.of_rank([{}], SimpleNamespace(world_size=2, process_index=0))
