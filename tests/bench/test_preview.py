"""`dry_run=true`: what is said of a plan, and that nothing else is done."""

from pathlib import Path

import pytest

from alignzoo.bench import bench, grid
from alignzoo.errors import UserError

GRID = [
    "algorithms=[dpo,half:reinforce]", "seeds=[4,7]", "folder=here", "suite.vary.data.beta=[0.1,0.2]",
    "bench.override.half=[trainer.batch=8]", "budget.unit=none", "budget.amount=0", "trainer.max_steps=30",
]  # fmt: skip
PLAN = """\
exact: 8 runs in here, of which 1 are finished; 4, 7 are the seeds
  dpo   30 steps of 128 records  data.beta=0.1
  half  30 steps of 8 records  data.beta=0.1  algorithm=reinforce  trainer.batch=8
  dpo   30 steps of 128 records  data.beta=0.2
  half  30 steps of 8 records  data.beta=0.2  algorithm=reinforce  trainer.batch=8
dry_run=true: nothing was carried out or written, and no more than one config a label was composed
"""


def test_the_plan_is_printed_and_nothing_is_composed_twice_or_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("here/data.beta=0.1/dpo-7").mkdir(parents=True)
    Path("here/data.beta=0.1/dpo-7/summary.json").write_text("{}")
    composed, compose = [], grid.compose
    monkeypatch.setattr(grid, "compose", lambda overrides: composed.append(overrides) or compose(overrides))
    before = sorted(Path().rglob("*"))
    assert bench.main([*GRID, "dry_run=true"]) == 0
    assert capsys.readouterr().out == PLAN
    assert len(composed) == 2
    assert sorted(Path().rglob("*")) == before


def test_tuning_is_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bench.main([*GRID, "dry_run=true", "bench.tune=3", "bench.tune_seeds=5"])
    assert "before them 60 runs to tune: 3 trials of each algorithm" in capsys.readouterr().out


def test_a_mistake_is_one_here_too():
    with pytest.raises(UserError, match="suite has several values"):
        bench.main([*GRID, "dry_run=true", "data.beta=0.3"])


def test_a_folder_of_suites_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("conf/suite").mkdir(parents=True)
    Path("conf/suite/short.yaml").write_text("defaults: [exact, _self_]\nalgorithms: [dpo]\nseeds: 2\n")
    assert bench.main(["--config-dir", "conf", "suite=short", "dry_run=true"]) == 0
    assert capsys.readouterr().out.startswith("short: 2 runs in runs/bench")
    with pytest.raises(UserError, match="--config-dir=nowhere is not a folder"):
        bench.main(["--config-dir=nowhere", "suite=short"])
