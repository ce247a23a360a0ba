"""Runs as forks of one process. That they have the same numbers as processes of their own: test_same."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alignzoo.bench import forked
from alignzoo.bench.job import Job, journal

COUNT = "import os; [__import__(name) for name in {}]\nfor task in os.listdir('/proc/self/task'):"
COUNT += " print(open(f'/proc/self/task/{{task}}/comm').read().strip())"
TINY = ["experiment=exact", "trainer.max_steps=1", "trainer.batch=4", "trainer.eval_steps=0", "rollout.prompts=2"]
TINY += ["rollout.samples=2", "data.prompts=2", "data.length=2", "data.vocabulary=4", "data.warmup_steps=10"]
SCORE = """
import atexit, os
print("session", os.getsid(0) == os.getpid(), os.environ["HERE"])
atexit.register(print, "the end", flush=True)
def score(prompts, completions):
    return [1.0 for _ in completions]
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_what_is_forked_has_one_thread() -> None:
    """Others would be missing in the fork. jemalloc starts its own again there."""
    alone = {**os.environ, **forked.limits(1)}
    names = subprocess.check_output([sys.executable, "-c", COUNT.format(forked.PRELOADED)], env=alone, text=True).split()
    assert len([name for name in names if name != "jemalloc_bg_thd"]) == 1


def test_no_signal_to_the_group_reaches_what_is_forked() -> None:
    code = "import os; before = os.getsid(0); import alignzoo.bench.session; print(before != os.getsid(0) == os.getpid())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"


def test_a_mistake_is_in_the_log_and_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job("here/run", ("algorithm=dop", "run_dir=here/run"), "here", threads=1, forks=True)
    assert job() == 2
    told = "no algorithm 'dop'. Did you mean"
    assert job.log.read_text().startswith(f"alignzoo: {told}")
    (row,) = journal("here")
    assert (row["code"], row["error"].startswith(told)) == (2, True)


def test_a_fork_has_the_place_the_variables_the_threads_and_the_end_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", "there")
    Path("mine.py").write_text(SCORE)
    overrides = ["algorithm=reinforce", *TINY, "reward=function", "reward.path=mine:score"]
    job = Job("here/run", (*overrides, "run_dir=here/run"), "here", threads=3, forks=True)
    assert job() == 0
    environment = json.loads(Path("here/run/environment.json").read_text())
    assert (environment["threads"], environment["command"][:3]) == (3, ["alignzoo", "train", "algorithm=reinforce"])
    lines = job.log.read_text().splitlines()
    assert "session True there" in lines and lines[-1] == "the end"


def test_a_fork_outlives_its_bench_and_keeps_the_log_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the next bench waits for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", "there")
    wait = (
        "import time\nfrom pathlib import Path\nPath('begun').touch()\nwhile not Path('go').exists():\n    time.sleep(0.01)\n"
    )
    Path("mine.py").write_text(wait + SCORE)
    overrides = ("algorithm=reinforce", *TINY, "reward=function", "reward.path=mine:score", "run_dir=here/run")
    program = f"from alignzoo.bench.job import Job; Job('here/run', {overrides}, 'here', forks=True)()"
    bench = subprocess.Popen([sys.executable, "-c", program])
    while not Path("begun").exists():
        assert bench.poll() is None
        threading.Event().wait(0.01)
    bench.kill()
    bench.wait()
    with Path("here/run.log").open("ab") as log:
        with pytest.raises(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path("go").touch()
        fcntl.flock(log, fcntl.LOCK_EX)
    assert Path("here/run/summary.json").is_file()
