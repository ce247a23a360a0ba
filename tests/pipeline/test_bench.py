"""Runs of a bench that have stages in common; the runs themselves are pretended."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from alignzoo.bench import bench, launch
from alignzoo.bench.grid import plan
from alignzoo.bench.job import Job, note
from alignzoo.bench.request import parse
from alignzoo.bench.suite import Request
from tests.pipeline.conftest import asked

ARGV = [*asked("stage.sft.seed=0"), "algorithms=[ppo,reinforce]", "seeds=2", "folder=here"]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the jobs of each batch that was started; a job leaves a summary, one of a folder in `refused` an error."""
    monkeypatch.chdir(tmp_path)
    started: list[list[str]] = []

    def start(asked: list[Job], _: Request) -> list[int]:
        started.append(sorted(Path(job.folder).name for job in asked))
        for job in asked:
            if any(Path(job.folder).name.startswith(name) for name in refused()):
                note(job.bench, {"run": job.folder, "code": 2, "seconds": 0.0, "error": "no pairs"})
                continue
            (Path(job.folder) / "model").mkdir(parents=True)
            (Path(job.folder) / "summary.json").write_text(json.dumps({"metrics": {}}))
        return [0] * len(asked)

    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr(importlib.import_module("alignzoo.report.report"), "write", lambda folders, out, metric, command: out)
    return started


def refused() -> list[str]:
    return Path("refused").read_text().split() if Path("refused").exists() else []


def test_common_stages_are_made_once_before_the_runs_that_use_them(jobs: list[list[str]]) -> None:
    assert bench.main(ARGV) == 0
    runs = plan(parse(ARGV))
    sft, rewards = ({r.stages[i].folder.name for r in runs} for i in (0, 1))
    assert (len(sft), len(rewards)) == (1, 2)  # sft has the same seed for all, a reward model each run's
    assert jobs == [sorted(sft), sorted(rewards), ["ppo-0", "ppo-1", "reinforce-0", "reinforce-1"]]
    assert {str(r.stages[0].folder.parent) for r in runs} == {"here/stages"}
    jobs.clear()
    assert bench.main(ARGV) == 0
    assert jobs == [[]]


def test_settings_of_stages_can_vary(jobs: list[list[str]]) -> None:
    argv = [*ARGV, "suite.vary.stage.reward_model.making.prompts=[8,9]"]
    assert bench.main(argv) == 0
    assert [len(batch) for batch in jobs] == [1, 4, 8]
    assert {tuple(r.config.stage["reward_model"].items()) for r in plan(parse(argv)) if r.seed == 0} == {
        (("making.prompts", 8),), (("making.prompts", 9),),
    }  # fmt: skip


def test_runs_whose_stage_failed_are_named_and_others_are_made(
    jobs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = next(r for r in plan(parse(ARGV)) if r.seed == 1).stages[1].folder
    Path("refused").write_text(broken.name)
    assert bench.main(ARGV) == 1
    assert jobs[-1] == ["ppo-0", "reinforce-0"]
    said = capsys.readouterr().err
    assert f"here/ppo-1 failed: its stage reward_model ({broken}) failed: no pairs" in said
    Path("refused").unlink()
    assert bench.main(ARGV) == 0
    assert jobs[-2:] == [[broken.name], ["ppo-1", "reinforce-1"]]


def test_what_was_tuned_is_said_of_the_last_stage_alone(jobs: list[list[str]]) -> None:
    from alignzoo.bench.grid import bench_run

    request = parse(ARGV)
    r = bench_run(request, {}, "ppo", 0, {"trainer.learning_rate": 0.125})
    assert r.config.trainer.learning_rate == 0.125
    assert [stage.folder for stage in r.stages] == [stage.folder for stage in bench_run(request, {}, "ppo", 0, {}).stages]
