"""The property of a plugin's own test, in which its author has worked out by hand what it computes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from alignzoo.config.registry import Plugin
from alignzoo.errors import UserError
from alignzoo.testing.subject import expect


def file(plugin: Plugin) -> Path | None:
    """test_NAME.py beside the plugin's file, or in the `tests` of the project it is written in; None where there is none."""
    if plugin.source is None or plugin.preset:
        return None
    name, project = f"test_{plugin.source.stem}.py", plugin.source.parents[1]
    places = [plugin.source.with_name(name), *([project / "tests" / name] if (project / "pyproject.toml").exists() else [])]
    return next((place for place in places if place.is_file()), None)


def own_test(subject: Any) -> None:
    """What it computes is what its author has worked out by hand, in test_NAME.py beside it."""
    path = file(subject.plugin)
    assert path is not None
    if importlib.util.find_spec("pytest") is None:
        raise UserError(f"{path} is a test for pytest, which is not installed: pip install pytest")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", str(path)]
    start = path.parents[1] if path.parent.name == "tests" else path.parent  # what `python -m` can import
    done = subprocess.run(command, cwd=start, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    found = next((line for line in lines if line.startswith(("E ", "ERROR", "FAILED"))), done.stdout[-200:])
    expect(done.returncode == 0, f"{path.name} to pass", found, "a formula that is not the paper's, or a wrong test")
