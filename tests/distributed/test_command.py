"""`torchrun -m alignzoo train ...`: one run folder, one message, and a stop by SIGTERM from which it goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from alignzoo.cli import main as cli
from alignzoo.engine import checkpoint
from tests.limits import HANG

STEPS = 100
RUN = [
    "-m", "alignzoo", "train", "algorithm=sft", "data=jsonl", "data.path=rows.jsonl", "reward=none",
    "model.config.hidden_size=16", "model.config.intermediate_size=32",
    f"trainer.max_steps={STEPS}", "trainer.batch=8", "trainer.logging_steps=1",
    "trainer.eval_prompts=4", "generation.max_new_tokens=4",
]  # fmt: skip
TINY_REWARD = '''\
import os

def count(completions):
    """Fails on the last rank alone, while the first waits for it."""
    return [float("nan") if os.environ["RANK"] == "1" else 1.0] * len(completions)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    made = tmp_path_factory.mktemp("command")
    rows = [{"prompt": f"count {i}: ", "completion": " ".join(str(j) for j in range(i % 4 + 1))} for i in range(32)]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "tiny_reward.py").write_text(TINY_REWARD)
    return made


@pytest.fixture(scope="module")
def stopped(start: Any, folder: Path) -> tuple[str, Path]:
    """What a run has printed that got SIGTERM, sent to torchrun, in its third step or soon after; and its folder."""
    process = start(*RUN, cwd=folder)
    before = []
    for line in process.stderr:
        before.append(line)
        if line.startswith(f"step 3/{STEPS}"):
            break
    process.send_signal(signal.SIGTERM)
    out, after = process.communicate(timeout=HANG)
    (run,) = (folder / "runs").iterdir()
    return out + "".join(before) + after, run


def test_sigterm_to_torchrun_saves_once_and_says_how_to_go_on(stopped):
    printed, run = stopped
    saved = checkpoint.latest(run / "checkpoints")
    assert saved is not None, printed
    step = checkpoint.step_of(saved)
    assert 3 <= step < STEPS
    assert printed.count("interrupted at step") == 1
    assert f"interrupted at step {step} and saved; go on with: alignzoo train resume={Path('runs') / run.name}" in printed
    assert not (run / "summary.json").exists()


def test_one_process_can_not_go_on_for_two(stopped, folder, monkeypatch, capsys):
    _, run = stopped
    monkeypatch.chdir(folder)
    before = (run / "metrics.jsonl").read_bytes()
    assert cli.main(["train", f"resume={Path('runs') / run.name}"]) == 2
    assert "the checkpoint was written by 2 process(es), and 1 are to go on from it" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_the_run_goes_on_to_its_end(stopped, torchrun, folder):
    _, run = stopped
    out = torchrun("-m", "alignzoo", "train", f"resume={Path('runs') / run.name}", cwd=folder)
    assert out.count("finished") == 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["steps"] == STEPS
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))
    assert rows[-2]["loss"] < rows[0]["loss"] - 0.1
    assert (run / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["trainer.bach=7"], "no key 'trainer.bach'"),
        (
            ["algorithm=rloo", "reward=function", "reward.path=tiny_reward:count"],
            "reward function tiny_reward:count returned nan for",
        ),
    ],
    ids=["of every rank", "of the last rank alone"],
)
def test_a_mistake_is_told_once(overrides, told, start, folder):
    process = start(*RUN, *overrides, "run_dir=never", cwd=folder)
    _, printed = process.communicate(timeout=HANG)
    assert process.returncode != 0
    spoken = [line for line in printed.splitlines() if line.startswith("alignzoo: ")]
    (message,) = [line for line in spoken if " runs the code of " not in line]
    assert told in message, printed
