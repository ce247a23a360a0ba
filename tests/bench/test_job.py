"""One run as a subprocess: its threads, its error, going on where it stopped, and that it is never there twice."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignzoo.bench.grid import plan
from alignzoo.bench.job import INTERRUPTED, STOP, Job, journal
from alignzoo.bench.request import parse
from tests.limits import HANG

ARGV = ["algorithms=[dpo]", "seeds=1", "folder=here"]
Pretend = Callable[..., SimpleNamespace]


def job(**changes: Any) -> Job:
    (only,) = plan(parse(ARGV))
    return Job(**{"folder": str(only.folder), "overrides": only.overrides, "bench": "here", **changes})


def test_a_run_has_as_many_threads_as_were_asked_for(pretend: Pretend) -> None:
    pretend(ARGV)
    assert job(threads=3)() == 0
    assert json.loads(Path("here/dpo-0/environment.json").read_text()) == {"threads": "3"}
    assert [(row["run"], row["code"], row["error"]) for row in journal("here")] == [("here/dpo-0", 0, None)]


def test_it_is_not_run_again_once_it_is_finished(pretend: Pretend) -> None:
    pretended = pretend(ARGV)
    assert [job()(), job()()] == [0, 0]
    assert pretended.calls() == ["dpo-0 train started"]


@pytest.mark.parametrize(
    ("act", "code", "error"),
    [("refuse", 1, "the end of it"), ("die", -9, "killed by SIGKILL (out of memory?)")],
)
def test_what_went_wrong_is_noted_in_a_line(pretend: Pretend, act: str, code: int, error: str) -> None:
    pretend(ARGV, {"dpo-0": act})
    assert job()() == code
    assert [(row["code"], row["error"]) for row in journal("here")] == [(code, error)]


def test_an_error_without_a_word_of_ours_is_the_last_line(tmp_path: Path) -> None:
    one = job(folder=str(tmp_path / "run"))
    one.log.write_text("alignzoo: of an earlier attempt\n")
    begin = one.log.stat().st_size
    one.log.write_text("alignzoo: of an earlier attempt\nTraceback:\n  File\nZeroDivisionError: division by zero\n\n")
    assert one._error(1, begin) == "ZeroDivisionError: division by zero"
    assert one._error(3, one.log.stat().st_size) == "no output, exit code 3"


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_from_there(pretend: Pretend) -> None:
    pretended = pretend(ARGV, {"dpo-0": "wait"})
    begun = pretended.home / "dpo-0.begun"

    def stop() -> None:
        while not begun.exists():
            threading.Event().wait(0.01)
        Path("here", STOP).touch()

    asking = threading.Thread(target=stop, daemon=True)
    asking.start()
    assert job()() == INTERRUPTED
    asking.join()
    assert [(row["code"], row["error"]) for row in journal("here")] == [(INTERRUPTED, None)]
    assert job()() == INTERRUPTED, "none is started while the others stop"
    Path("here", STOP).unlink()
    (pretended.home / "go").touch()
    assert job()() == 0
    assert pretended.calls() == ["dpo-0 train started", "dpo-0 train resumed"]


def test_a_run_that_outlived_its_bench_is_waited_for(pretend: Pretend) -> None:
    pretended = pretend(ARGV)
    one = job()
    one.log.parent.mkdir()
    with one.log.open("ab") as log:  # as the run left over from a bench that was killed holds it
        fcntl.flock(log, fcntl.LOCK_EX)
        codes: list[int] = []
        waiting = threading.Thread(target=lambda: codes.append(one()), daemon=True)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and pretended.calls() == []
        Path(one.folder).mkdir()
        Path(one.folder, "summary.json").write_text("{}")
        waiting.join(HANG)
    assert (codes, pretended.calls()) == ([0], [])


def test_a_line_of_the_journal_that_is_half_there_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"run": "a", "code": 0}\n{"run": "b", "co')
    assert journal(tmp_path) == [{"run": "a", "code": 0}]
