"""Runs of a bench that are made of other things than there are now are made again, and that is told."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignzoo.bench import bench
from alignzoo.bench.grid import plan
from alignzoo.bench.request import parse
from alignzoo.config import instantiate
from alignzoo.errors import UserError
from alignzoo.runs import made_of, results, single

LOSS = """
from alignzoo import Algorithm, Kind, Pairs, Role
from dataclasses import dataclass

@dataclass(kw_only=True)
class Mine(Algorithm):
    data = Pairs

    def roles(self):
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def loss(self, models, batch):
        return -batch.both.sum(models.policy.logprobs(batch.both)).chunk(2)[0], {}
"""
ARGV = ["algorithms=[mine,dpo]", "plugins_dir=mine", "jobs=1", "folder=here"]
Pretend = Callable[..., SimpleNamespace]


@pytest.fixture
def one_seed(pretend: Pretend) -> SimpleNamespace:
    """A bench of one seed that has ended, its runs as `alignzoo train` leaves them."""
    Path("mine").mkdir()
    Path("mine/mine.py").write_text(LOSS)
    pretended = pretend([*ARGV, "seeds=2"])
    assert bench.main([*ARGV, "seeds=1"]) == 0
    for r in plan(parse([*ARGV, "seeds=1"])):
        made_of.Origin(r.folder, made_of.parts(instantiate(r.config), single.contents(r.config))).write()
    return pretended


def flip() -> None:
    Path("mine/mine.py").write_text(LOSS.replace("return -batch", "return batch"))


def test_a_run_whose_loss_was_edited_is_made_again_with_those_of_more_seeds(
    one_seed: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    flip()
    assert bench.main([*ARGV, "seeds=2"]) == 0
    assert [call.split()[0] for call in one_seed.calls()[2:]] == ["mine-0", "mine-1", "dpo-1"]
    line = "alignzoo: here/mine-0 was made of other code (mine.py): it is made again, and lies in here/replaced/mine-0\n"
    assert capsys.readouterr().err.count(line) == 1
    assert Path("here/replaced/mine-0/summary.json").is_file(), "nothing is lost"
    assert bench.main([*ARGV, "seeds=2"]) == 0, "and is nobody else's run"
    assert {folder.name for folder in results._run_folders(Path("here"))} == {"mine-0", "mine-1", "dpo-0", "dpo-1"}


def test_nothing_is_made_again_for_nothing_or_where_that_was_accepted(
    one_seed: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*ARGV, "seeds=1"]) == 0
    assert capsys.readouterr().err == ""
    flip()
    assert bench.main([*ARGV, "seeds=1", "accept=[code]"]) == 0
    assert len(one_seed.calls()) == 2
    assert "here/mine-0 was made of other code (mine.py), which accept= keeps" in capsys.readouterr().err


def test_an_unfinished_run_is_made_again_unless_it_is_running(
    one_seed: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("here/mine-0/summary.json").unlink()
    Path("here/mine-0/checkpoints/checkpoint-5").mkdir(parents=True)
    flip()
    runs = plan(parse([*ARGV, "seeds=1"]))
    with Path("here/mine-0.log").open("ab") as log:  # as a run that outlived its bench holds it
        fcntl.flock(log, fcntl.LOCK_EX)
        from alignzoo.bench.bench_folder import renew

        renew(parse([*ARGV, "seeds=1"]), runs)
    assert Path("here/mine-0").exists() and capsys.readouterr().err == ""
    assert bench.main([*ARGV, "seeds=1"]) == 0
    assert one_seed.calls()[2:] == ["mine-0 train started"], "not resumed"


def test_runs_of_before_are_kept_and_told_in_a_line(one_seed: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine-0", "dpo-0"):
        Path("here", name, "fingerprint.json").unlink()
    flip()
    assert bench.main([*ARGV, "seeds=1"]) == 0
    assert len(one_seed.calls()) == 2
    assert capsys.readouterr().err.count("here/mine-0 and 1 more: no fingerprint.json") == 1


def test_a_seed_edited_in_config_yaml_is_refused(one_seed: SimpleNamespace) -> None:
    path = Path("here/mine-0/config.yaml")
    path.write_text(path.read_text().replace("\nseed: 0\n", "\nseed: 7\n"))
    with pytest.raises(UserError, match=r"mine-0 holds a run with other settings \(seed: 7 there, 0 asked for\)"):
        bench.main([*ARGV, "seeds=1"])
    assert json.loads(Path("here/mine-0/fingerprint.json").read_text())["items"]["config"]
