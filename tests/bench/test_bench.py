"""Many runs: what is asked for, what is kept, what fails, what the table says. Runs themselves are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignzoo import bench, run
from alignzoo.settings import UserError


def pretend(r: bench.Run, gap: float) -> tuple[int, float]:
    """Leaves behind what a run of `alignzoo train` would."""
    r.folder.mkdir(parents=True)
    (r.folder / "config.yaml").write_text(run.identity(r.config))
    metrics = {"gap_closed": gap, "expected_reward": 2.0, "reward": 1.5}
    counts = {"steps": 10, "samples": 640, "trained_tokens": 5, "total_seconds": 61.0, "evaluation_seconds": 1.0}
    (r.folder / "summary.json").write_text(json.dumps({**counts, "metrics": metrics}))
    return 0, 1.0


def test_what_is_not_given_is_the_tuned_exact_task() -> None:
    made = bench.parse(["trainer.max_steps=3"])
    assert made.overrides == ["experiment=exact", "trainer.max_steps=3"]
    assert (made.seeds, made.jobs, made.folder) == ([0], 2, Path("runs/bench"))
    assert sorted(made.algorithms) == ["distill", "dpo", "ppo", "reinforce"]


def test_what_is_given() -> None:
    made = bench.parse(["algorithms=[sft,dpo]", "seeds=3", "folder=here", "jobs=1", "data=jsonl", "data.path='a b.jsonl'"])
    assert made.overrides == ["data=jsonl", "data.path='a b.jsonl'"]
    assert (made.algorithms, made.seeds, made.jobs, made.folder) == (["sft", "dpo"], [0, 1, 2], 1, Path("here"))
    assert bench.parse(["seeds=[4,7]", "algorithms=ppo"]).seeds == [4, 7]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["seeds=0"], r"seeds=\[\] is out of range"),
        (["seeds=many"], r"seeds and jobs are whole numbers"),
        (["jobs=0"], r"jobs=0 is out of range"),
        (["algorithms=[]"], r"algorithms=\[\] is out of range"),
        (["algorithm=ppo"], r"bench sets algorithm= for each run"),
        (["run_dir=x"], r"bench sets run_dir= for each run"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench.parse(argv)


def test_a_wrong_name_is_found_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_run_one", lambda *_: pytest.fail("ran"))
    with pytest.raises(UserError, match="no algorithm 'doo'"):
        bench.main(["algorithms=[dpo,doo]", f"folder={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


def test_each_run_has_its_algorithm_its_settings_and_its_folder(tmp_path: Path) -> None:
    runs = bench.parse(["algorithms=[dpo,reinforce]", "seeds=2", f"folder={tmp_path}"]).runs()
    assert [(r.algorithm, r.seed, r.folder.name) for r in runs] == [
        ("dpo", 0, "dpo-0"), ("dpo", 1, "dpo-1"), ("reinforce", 0, "reinforce-0"), ("reinforce", 1, "reinforce-1"),
    ]  # fmt: skip
    assert [r.config.seed for r in runs] == [0, 1, 0, 1]
    assert {r.config.algorithm.beta for r in runs} == {runs[0].config.data.beta}, "the task's, not the published"


def test_finished_runs_are_kept_and_a_failure_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def run_one(r: bench.Run, _: Any) -> tuple[int, float]:
        tried.append(r.folder.name)
        if r.folder.name == "dpo-0" and tried.count("dpo-0") == 1:
            r.log.write_text("a long story\nalignzoo: the end of it\n")
            return 2, 1.0
        return pretend(r, {"dpo": 0.5, "reinforce": 0.75}[r.algorithm] + r.seed / 10)

    monkeypatch.setattr(bench, "_run_one", run_one)
    asked = ["algorithms=[dpo,reinforce]", "seeds=2", "jobs=1", f"folder={tmp_path}"]
    assert bench.main(asked) == 1
    assert tried == ["dpo-0", "dpo-1", "reinforce-0", "reinforce-1"]
    assert "dpo, seed 0, failed: alignzoo: the end of it" in capsys.readouterr().out
    assert bench.main(asked) == 0
    assert tried[4:] == ["dpo-0"]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(row["algorithm"], row["seed"], row["metrics"]["gap_closed"]) for row in rows] == [
        ("dpo", 0, 0.5), ("dpo", 1, 0.6), ("reinforce", 0, 0.75), ("reinforce", 1, 0.85),
    ]  # fmt: skip
    table = capsys.readouterr().out.splitlines()
    assert next(line for line in table if line.startswith("dpo  ")).split()[:3] == ["dpo", "2", "55.0"]
    assert next(line for line in table if line.startswith("reinforce  ")).split()[:3] == ["reinforce", "2", "80.0"]


def test_other_settings_need_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_run_one", lambda r, _: pretend(r, 0.5))
    asked = ["algorithms=[dpo]", f"folder={tmp_path}"]
    assert bench.main(asked) == 0
    with pytest.raises(UserError, match="dpo-0 holds a run with other settings"):
        bench.main([*asked, "trainer.max_steps=7"])


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    (one,) = bench.parse(["algorithms=[dpo]", f"folder={tmp_path}"]).runs()
    assert one.command[-1] == f"run_dir={tmp_path / 'dpo-0'}"
    (one.folder / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    assert one.command[-2:] == ["train", f"resume={tmp_path / 'dpo-0'}"]
