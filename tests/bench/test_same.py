"""The command that a folder names, run again elsewhere, gives the same numbers, whoever launches the runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignzoo.bench import bench
from alignzoo.cli import main as cli

TINY = [
    "experiment=exact", "trainer.max_steps=2", "trainer.batch=4", "trainer.logging_steps=1", "trainer.eval_steps=0",
    "rollout.prompts=2", "rollout.samples=2", "data.prompts=2", "data.length=2", "data.vocabulary=4", "data.warmup_steps=10",
]  # fmt: skip
# What may differ: where a run is, what time and memory it took, and a commit made meanwhile.
ASIDE = ("seconds", "memory", "per_second", "run", "commit")


def numbers(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "report" / "results.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith(ASIDE)} for row in rows]


def test_the_command_of_a_bench_gives_the_same_numbers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pool the first time, joblib's processes the second; `again` has reinforce under a second name."""
    monkeypatch.chdir(tmp_path)
    argv = [
        "algorithms=[reinforce,again:reinforce]",
        "seeds=1",
        "folder=first",
        "bench.override.again=[trainer.batch=4]",
        *TINY,
    ]
    assert bench.main(argv) == 0
    assert "No claim possible" in capsys.readouterr().out
    command = json.loads(Path("first/bench.json").read_text())["command"]
    assert command == ["alignzoo", "bench", *argv]
    again = ["folder=second" if text == "folder=first" else text for text in command[1:]]
    assert cli.main([*again, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]) == 0
    first, second = numbers(Path("first")), numbers(Path("second"))
    assert first == second
    assert [(row["label"], row["seed"], row["threads"]) for row in first] == [("again", 0, 1), ("reinforce", 0, 1)]
    one, other = ({name: value for name, value in row.items() if name != "label"} for row in first)
    assert one == other and one["eval/gap_closed"] is not None
    said = json.loads(Path("second/again-0/environment.json").read_text())["command"]
    assert said[:2] == ["alignzoo", "train"] and "label=again" in said
