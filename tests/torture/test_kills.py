"""Commands that are killed at any moment, from the first millisecond on, and given again: they end as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.limits import HANG
from tests.pipeline.conftest import asked
from tests.torture.forked import spread

KILLS, SEED, MOST = 200, 20261130, 4  # kills of one attempt after the other
EXACT = [
    "data=exact", "data.prompts=4", "data.vocabulary=3", "data.length=2", "data.rows=64", "data.warmup_steps=3",
    "generation.max_new_tokens=2", "rollout.prompts=4", "rollout.samples=2", "trainer.batch=4", "trainer.max_steps=6",
    "trainer.logging_steps=1", "trainer.eval_steps=2", "trainer.eval_prompts=2", "trainer.save_steps=2",
]  # fmt: skip
STEPS = ["trainer.logging_steps=1", "trainer.eval_steps=1", "trainer.save_steps=1"]
COMMANDS = {
    **{name: ["train", f"algorithm={name}", *EXACT, "run_dir=run"] for name in ("ppo", "grpo", "kto", "distill")},
    "pipeline": ["train", *asked(*STEPS, "run_dir=run")],
    "bench": ["bench", "algorithms=[dpo,kto]", "seeds=1", "jobs=1", "folder=run", *EXACT],
}
VOLATILE = re.compile(r"(.*[_/])?(seconds|per_second|memory|commit|reused|seconds/.*)")
# what says when and where, what a report draws of that, and whose it is
ASIDE = re.compile(r"(.*/)?((environment|pipeline|bench|state)\.json|progress\.jsonl|origin|\.lock|.*\.log)|report/.*")


def start(argv: list[str], cwd: Path, log: Path) -> int:
    """A process of its own that carries out the command."""
    environment = os.environ | {"ALIGNZOO_CACHE": "cache", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = f"import os, sys; os.chdir({str(cwd)!r}); from alignzoo.cli.main import main; sys.exit(main(sys.argv[1:]))"
    told = [(os.POSIX_SPAWN_OPEN, number, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for number in (1, 2)]
    return os.posix_spawn(sys.executable, [sys.executable, "-c", script, *argv], environment, file_actions=told)


def ended(process: int, seconds: float) -> int | None:
    """The exit code; None where it had to be killed, so many seconds after its start."""
    handle = os.pidfd_open(process)
    in_time = select.select([handle], [], [], seconds)[0]
    os.close(handle)
    if not in_time:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if in_time else None


def left_by(folder: Path) -> dict[str, Any]:
    """{file: content} of all that must be there, the same to the bit, but for times."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: content(path) for name, path in files.items() if not ASIDE.fullmatch(name)}


def content(path: Path) -> Any:
    data = path.read_bytes()
    if path.name == "manifest.json":  # has the hashes of files with times
        return sorted(json.loads(data))
    if path.suffix == ".json":
        return timeless(json.loads(data))
    return [timeless(json.loads(line)) for line in data.split(b"\n") if line] if path.suffix == ".jsonl" else data


def timeless(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: timeless(value) for key, value in node.items() if not VOLATILE.fullmatch(key)}
    return [timeless(value) for value in node] if isinstance(node, list) else node


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """{command: (its folder and seconds)} of one that was never killed, made when it is first asked for."""
    known: dict[str, tuple[Path, float]] = {}

    def whole(name: str) -> tuple[Path, float]:
        if name not in known:
            place, begin = tmp_path_factory.mktemp(name), time.monotonic()
            assert ended(start(COMMANDS[name], place, place / "log"), HANG) == 0, (place / "log").read_text()
            known[name] = place / "run", time.monotonic() - begin
        return known[name]

    return whole


def attempts() -> list[tuple[str, tuple[float, ...]]]:
    """(command, the moments at which its attempts are killed, as shares of the whole): half of them while it starts."""
    rng, found, kills = random.Random(SEED), list[tuple[str, tuple[float, ...]]](), 0
    while kills < KILLS:
        count = min(rng.randint(1, MOST), KILLS - kills)
        shares = tuple(rng.random() if rng.random() < 0.5 else 10 ** rng.uniform(-4, -0.3) for _ in range(count))
        found.append(([*COMMANDS][len(found) % len(COMMANDS)], shares))
        kills += count
    return found


@pytest.mark.parametrize("attempt", spread(attempts(), 1))
def test_killed_at_any_moments_a_command_ends_as_if_nothing_had_been(attempt: Any, wholes: Any, tmp_path: Path) -> None:
    name, shares = attempt
    whole, seconds = wholes(name)
    log = tmp_path / "log"
    codes = [ended(start(COMMANDS[name], tmp_path, log), share * seconds) for share in shares]
    assert {*codes} <= {None, 0}, log.read_text()
    assert ended(start(COMMANDS[name], tmp_path, log), HANG) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    expected, found = left_by(whole), left_by(tmp_path / "run")
    assert sorted(found) == sorted(expected), log.read_text()
    assert [name for name in expected if found[name] != expected[name]] == [], log.read_text()
