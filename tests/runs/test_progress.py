"""What long work says of itself; short work says nothing."""

import pytest

from alignzoo.common import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "PATIENCE", 2.0)  # the tests' own is endless
    return now


def worked(clock, seconds):
    for _ in progress.counted(range(3), "reading", 3, each=1):
        clock[0] += seconds


def test_elsewhere_than_on_a_terminal_long_work_is_told_in_one_line(clock, capsys):
    worked(clock, 0.5)
    assert capsys.readouterr().err == ""
    worked(clock, 1.5)
    assert capsys.readouterr().err == "alignzoo: reading ...\n"


def test_on_a_terminal_it_is_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress.Console, "is_terminal", True)
    worked(clock, 0.5)
    assert "reading" not in capsys.readouterr().err
    worked(clock, 1.5)
    told = capsys.readouterr().err
    assert "reading" in told and "2/3" in told and "alignzoo:" not in told
