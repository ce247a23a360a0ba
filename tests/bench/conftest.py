"""A command in place of `alignzoo train`, so that a bench of many runs takes a second."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignzoo.bench import forked, job
from alignzoo.bench.grid import plan
from alignzoo.bench.request import parse
from alignzoo.runs import single

# What a run leaves behind, without the run. `acts` says of one by its folder's name what else it does.
PRETENDED = """#!{python} -I
import json, os, signal, sys, time
from pathlib import Path

given = dict(text.split("=", 1) for text in sys.argv[4:])
folder, home = Path(given["run_dir"].strip("'")), Path("{home}")
with open(home / "calls", "a") as calls:
    calls.write(f"{{folder.name}} {{sys.argv[3]}} {{'resumed' if any(folder.glob('checkpoints/*')) else 'started'}}\\n")
said = json.loads((home / "plan.json").read_text())
act = said["acts"].get(folder.name)
if act == "refuse":
    sys.exit("a long story\\nalignzoo: the end of it\\nand a remark")
if act == "die":
    os.kill(os.getpid(), signal.SIGKILL)
def save(*_):
    (folder / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    sys.exit(130)
if act == "wait":
    signal.signal(signal.SIGTERM, save)
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.yaml").write_text(said["configs"][str(folder)])
(home / f"{{folder.name}}.begun").touch()
while act == "wait" and not (home / "go").exists():
    time.sleep(0.01)
(folder / "environment.json").write_text(json.dumps({{"threads": os.environ["OMP_NUM_THREADS"]}}))
(folder / "summary.json").write_text(json.dumps(said["summary"]))
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """`pretend(argv, acts)`: runs of this bench are made up from now on; `acts` are refuse, die or wait, by folder name.

    Returns `calls()`, what was run in order, `act`, which changes `acts`, and `home`, where a run that waits looks for `go`. No
    report is written.
    """
    home = tmp_path / "pretended"
    home.mkdir()
    script, python = home / "python", sys.executable
    script.write_text(PRETENDED.format(python=python, home=home))
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job.sys, "executable", str(script))
    monkeypatch.setattr(forked, "able", lambda: False)
    report = importlib.import_module("alignzoo.report.report")
    monkeypatch.setattr(report, "write", lambda folders, out, metric, command: out / "report.html")

    def calls() -> list[str]:
        return (home / "calls").read_text().splitlines() if (home / "calls").exists() else []

    def prepare(argv: list[str], acts: dict[str, str] | None = None) -> SimpleNamespace:
        configs = {str(r.folder): single.identity(r.config) for r in plan(parse(argv))}
        counts = {"steps": 10, "samples": 640, "trained_tokens": 5, "total_seconds": 61.0, "evaluation_seconds": 1.0}
        summary: dict[str, Any] = {**counts, "metrics": {"gap_closed": 0.5}}

        def act(acts: dict[str, str]) -> None:
            (home / "plan.json").write_text(json.dumps({"configs": configs, "acts": acts, "summary": summary}))

        act(acts or {})
        return SimpleNamespace(calls=calls, act=act, home=home, script=script, python=python)

    return prepare
