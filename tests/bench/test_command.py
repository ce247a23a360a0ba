"""The whole command, with runs made up: what is kept, what fails, what stops, what the folder says afterwards."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from alignzoo.bench import bench, launch
from alignzoo.bench.job import INTERRUPTED, STOP, note
from alignzoo.bench.launch import watching
from alignzoo.cli import main as cli
from alignzoo.settings import UserError

ARGV = ["algorithms=[dpo]", "seeds=3", "jobs=1", "folder=here"]
EVERY = ["dpo-0", "dpo-1", "dpo-2"]
Pretend = Callable[..., SimpleNamespace]


def started(pretended: SimpleNamespace) -> list[str]:
    return [call.split()[0] for call in pretended.calls()]


def study() -> dict[str, object]:
    return dict(json.loads(Path("here/bench.json").read_text()))


def test_finished_runs_are_kept_and_a_failure_stops_nobody(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretended = pretend(ARGV, {"dpo-0": "refuse"})
    assert bench.main(ARGV) == 1
    assert started(pretended) == EVERY
    said = capsys.readouterr()
    assert said.out == "\nhere/report/report.html\n"
    assert (
        said.err
        == "alignzoo: here/dpo-0 failed: the end of it\nalignzoo: 1 of 3 runs failed, each with a log beside its folder\n"
    )
    assert study()["failed"] == {"here/dpo-0": "the end of it"}
    pretended.act({})
    assert bench.main(ARGV) == 0
    assert started(pretended) == [*EVERY, "dpo-0"]
    assert (study()["failed"], study()["command"]) == ({}, ["alignzoo", "bench", *ARGV])
    assert bench.main(ARGV) == 0
    assert len(started(pretended)) == 4


def test_where_all_fail_there_is_no_report(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(ARGV, dict.fromkeys(EVERY, "die"))
    assert bench.main(ARGV) == 1
    assert capsys.readouterr().out == ""


def test_the_folder_says_what_was_compared(pretend: Pretend) -> None:
    argv = ["algorithms=[dpo,half:dpo]", "seeds=1", "folder=here", "suite.vary.data.vocabulary=[6]",
            "suite.sweep.data.beta=[1]", "suite.planned=[[dpo,half],[ppo,half]]", "suite.threshold=0.5",
            "suite.margin=0.02"]  # fmt: skip
    pretend(argv)
    assert bench.main(argv) == 0
    assert study() == {
        "command": ["alignzoo", "bench", *argv], "suite": "exact", "vary": ["data.vocabulary"], "sweep": ["data.beta"],
        "planned": [["dpo", "half"]], "tuning": [], "failed": {}, "threshold": 0.5, "margin": 0.02,
    }  # fmt: skip
    assert Path("here/data.vocabulary=6,data.beta=1/half-0/summary.json").is_file()


def test_more_seeds_go_into_the_same_folder_and_fewer_do_not(pretend: Pretend) -> None:
    more = [*ARGV, "seeds=5"]
    pretended = pretend(more)
    assert bench.main(ARGV) == 0
    assert bench.main(more) == 0
    assert started(pretended) == [*EVERY, "dpo-3", "dpo-4"]
    with pytest.raises(UserError, match=r"folder=here holds runs of another bench \(dpo-3, dpo-4\): choose another folder="):
        bench.main(ARGV)


def test_other_settings_need_another_folder(pretend: Pretend) -> None:
    pretended = pretend(ARGV)
    assert bench.main(ARGV) == 0
    with pytest.raises(UserError, match=r"dpo-0 holds .* \(trainer.logging_steps: 10 there, 7 asked for\): choose another"):
        bench.main([*ARGV, "trainer.logging_steps=7"])
    assert started(pretended) == EVERY


def test_a_mistake_leaves_nothing_behind(pretend: Pretend) -> None:
    pretended = pretend(ARGV)
    with pytest.raises(UserError, match="no algorithm 'doo'"):
        bench.main([*ARGV, "algorithms=[dpo,doo]"])
    assert (started(pretended), Path("here").exists()) == ([], False)


def test_a_folder_that_can_not_be_written_is_told_before_any_run(pretend: Pretend) -> None:
    pretended = pretend(ARGV)
    Path("file").touch()
    with pytest.raises(UserError, match=r"can't write into file/here: .* Choose another folder by folder="):
        bench.main([*ARGV, "folder=file/here"])
    assert started(pretended) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bench.json", "here/bench.json is not what alignzoo bench writes"),
        ("report/report.md", "folder=here: here/report/report.md exists: choose another name"),
    ],
)
def test_a_file_of_somebody_else_is_told_before_any_run(pretend: Pretend, name: str, message: str) -> None:
    pretended, path = pretend(ARGV), Path("here", name)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match=message):
        bench.main(ARGV)
    assert (started(pretended), path.read_text()) == ([], "mine")


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_bench_that_is_stopped_goes_on_by_the_same_command(
    pretend: Pretend, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    pretended = pretend(ARGV, {"dpo-1": "wait"})
    interrupting = threading.Thread(target=interrupt, args=(pretended.home / "dpo-1.begun", number), daemon=True)
    interrupting.start()
    assert cli.main(["bench", *ARGV]) == INTERRUPTED
    interrupting.join()
    assert capsys.readouterr().out == "interrupted with 1 of 3 runs finished; the same command goes on from here\n"
    (pretended.home / "go").touch()
    assert cli.main(["bench", *ARGV]) == 0
    assert pretended.calls() == [
        "dpo-0 train started", "dpo-1 train started", "dpo-1 train resumed", "dpo-2 train started",
    ]  # fmt: skip
    assert not Path("here", STOP).exists()


def interrupt(begun: Path, number: signal.Signals) -> None:
    while not begun.exists():
        threading.Event().wait(0.01)
    os.kill(os.getpid(), number)


def test_a_bench_that_is_killed_goes_on_with_what_is_missing(pretend: Pretend) -> None:
    """Its run lives on; the next bench waits for it rather than start it a second time."""
    pretended = pretend(ARGV, {"dpo-1": "wait"})
    program = "import sys; sys.executable = sys.argv.pop(1); from alignzoo.bench import bench, forked; "
    program += "forked.able = lambda: False; bench.main(sys.argv[1:])"
    first = subprocess.Popen([pretended.python, "-c", program, str(pretended.script), *ARGV])
    while not (pretended.home / "dpo-1.begun").exists():
        assert first.poll() is None
        threading.Event().wait(0.01)
    first.kill()
    first.wait()
    (pretended.home / "go").touch()
    assert bench.main(ARGV) == 0
    assert started(pretended) == EVERY


def test_as_many_at_a_time_as_there_are_jobs(pretend: Pretend) -> None:
    argv = [*ARGV, "jobs=3"]
    pretended = pretend(argv, dict.fromkeys(EVERY, "wait"))

    def let_go() -> None:
        while len(list(pretended.home.glob("*.begun"))) < 3:
            threading.Event().wait(0.01)
        (pretended.home / "go").touch()

    watching = threading.Thread(target=let_go, daemon=True)
    watching.start()
    assert bench.main(argv) == 0
    watching.join()


def test_cores_are_shared_among_runs_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (launch.room_for(1), launch.room_for(3), launch.room_for(16)) == (8, 2, 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert launch.room_for(1) == 1


def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=100)
    with watching(tmp_path, 5, 2, shown):
        note(tmp_path, {"run": "a", "code": 0, "error": None})
        note(tmp_path, {"run": "b", "code": 2, "error": "wrong"})
        note(tmp_path, {"run": "c", "code": INTERRUPTED, "error": None})
    assert isinstance(shown.file, io.StringIO)
    last = shown.file.getvalue().rpartition("runs")[2]
    assert "runs, 1 failed" in shown.file.getvalue() and "4/5" in last
    quiet = Console(file=io.StringIO(), width=100)
    with watching(tmp_path, 5, 2, quiet):
        note(tmp_path, {"run": "d", "code": 0, "error": None})
    assert isinstance(quiet.file, io.StringIO)
    assert quiet.file.getvalue() == ""
