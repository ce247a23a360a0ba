"""Files in one piece."""

import os
from pathlib import Path

import pytest

from alignzoo.common.disk import write_whole


def test_two_processes_that_write_a_file_at_once_both_write_all_of_it(tmp_path, monkeypatch):
    path, plain, here = tmp_path / "labels.jsonl", Path.write_text, os.getpid()

    def overtaken(self, text, *more):
        plain(self, text, *more)
        if os.getpid() == here:  # another process begins and ends before this one's file takes its place
            monkeypatch.setattr(os, "getpid", lambda: here + 1)
            write_whole(path, "another's")
            assert path.read_text() == "another's"

    monkeypatch.setattr(Path, "write_text", overtaken)
    write_whole(path, "one's own")
    assert path.read_text() == "one's own" and list(tmp_path.iterdir()) == [path]


def test_what_cant_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
