"""Runs that are killed, interrupted or fail, and what is left of them.

A fork of this process is told of everything it does to files of its run folder, and dies at one of them. What a resumed run
restores is checked for every algorithm in tests/conformance; here it is when a run may die.
"""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from alignzoo import compose, train
from alignzoo.batch import Completions
from alignzoo.contracts import Algorithm, Kind, Next, Role, Scores
from alignzoo.engine import checkpoint
from alignzoo.engine.callbacks import Interrupt
from alignzoo.settings import Model, UserError
from alignzoo.testing import toys
from alignzoo.testing.subject import light_collections
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.sft.sft import SFT
from tests.killing import contents, in_child, killed, some
from tests.limits import HANG

# two trained roles, a rollout used in halves, a log line, an evaluation and a checkpoint a step
TINY = [
    "algorithm=ppo", "algorithm.epochs=1", "trainer.epochs=2", "data=exact",
    "data.prompts=2", "data.vocabulary=3", "data.length=2", "data.rows=32",
    "data.warmup_steps=3", "generation.max_new_tokens=2", "rollout.prompts=4", "rollout.samples=2", "trainer.batch=4",
    "trainer.micro_batch=2", "trainer.logging_steps=1", "trainer.eval_steps=1", "trainer.eval_prompts=2",
    "trainer.save_steps=1", "trainer.keep_checkpoints=1", "model.config.hidden_size=16", "model.config.intermediate_size=16",
    "model.config.num_hidden_layers=1", "model.config.num_attention_heads=2", "model.config.num_key_value_heads=2",
]  # fmt: skip
VOLATILE = ("seconds", "cost/seconds", "tokens_per_second", "peak_memory")


def config(folder, steps=3, **more):
    given = [*TINY, f"run_dir={folder}", f"trainer.max_steps={steps}", *(f"{k}={v}" for k, v in more.items())]
    return compose(given)


def rows(folder, name="metrics.jsonl"):
    lines = (folder / name).read_text().rstrip("\n").split("\n")
    return [{k: v for k, v in json.loads(line).items() if k not in VOLATILE} for line in lines]


def left_by(folder):
    """What two runs must share to the bit."""
    weights = {p.relative_to(folder): p.read_bytes() for p in (folder / "model").rglob("*.safetensors")}
    summary = json.loads((folder / "summary.json").read_text())
    kept = {k: v for k, v in summary.items() if not k.endswith("seconds") and k not in ("run_dir", "peak_memory")}
    return weights, rows(folder), rows(folder, "completions.jsonl"), kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of three steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(folder))
    assert json.loads((folder / "summary.json").read_text())["unused"] == ["trainer.epochs"]  # as of a resumed one, below
    light_collections()
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory, whole):
    """The same run, killed right after its first checkpoint."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    assert killed(folder, lambda: train(config(folder)), "checkpoint-1 is there".__eq__)
    assert checkpoint.latest(folder / "checkpoints").name == "checkpoint-1"
    return folder


PARTS = (
    "os.rename .manifest.json", "os.rename .partial-checkpoint-2", "os.remove optimizer.pt", "os.rmdir checkpoint-1",
    "os.rename .partial-model",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("stride", [40, pytest.param(1, marks=pytest.mark.torture)])
def test_killed_at_any_moment_after_a_checkpoint(whole, begun, tmp_path, stride):
    """What is on disk before each change a resumed run makes to its folder is what a kill would leave there: log lines, every
    file of the second checkpoint, its renaming, the removal of the first, the model. Resumed from any it ends the same."""
    folder, places = tmp_path / "run", tmp_path / "moments"
    shutil.copytree(begun, folder)
    places.mkdir()

    def keep(what):
        shutil.copytree(folder, places / f"{len(list(places.iterdir())):03} {what}")

    assert not in_child(folder, lambda: train(compose([f"resume={folder}"])), keep)
    every = sorted(places.iterdir())
    chosen = [every[place] for place in some([place.name for place in every], PARTS, stride)]
    moments = {contents(place): place for place in reversed(chosen)}
    expected = left_by(whole)
    for number, place in enumerate(moments.values()):
        shutil.rmtree(folder)
        place.rename(folder)
        train(config(folder) if number % 2 else compose([f"resume={folder}"]))
        assert left_by(folder) == expected, f"killed before {place.name}"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "moment", ["os.rename .config.yaml", "open .environment.json", "open metrics.jsonl", "open .manifest.json"]
)
def test_killed_before_the_first_checkpoint(whole, tmp_path, moment):
    """Started again by the same command, it ends as if nothing had happened."""
    folder = tmp_path / "run"
    assert killed(folder, lambda: train(config(folder)), lambda change: change.startswith(moment))
    assert checkpoint.latest(folder / "checkpoints") is None
    train(config(folder))
    assert left_by(folder) == left_by(whole)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_lines_that_a_checkpoint_had_on_disk_and_are_gone_are_told(begun, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    size = (folder / "metrics.jsonl").stat().st_size
    (folder / "metrics.jsonl").write_bytes(b"")
    train(config(folder))
    lost = f"metrics.jsonl has only 0 of {size} bytes that were there at step 1: lines are lost, the run goes on"
    assert lost in capfd.readouterr().err


# --- signals, to the command itself ---


REWARD = """
import os, sys

calls = 0

def vowels(completions):
    global calls
    calls += 1
    if calls == 2 and "WAIT" in os.environ:
        print("sampling", flush=True)
        try:
            sys.stdin.readline()
        except OSError:  # the terminal has gone
            pass
    return [float(text.count("a")) for text in completions]
"""
SIGNALLED = {"reward": "function", "reward.path": "waiting_reward:vowels", "trainer.eval_steps": 0, "trainer.save_steps": 0}


@pytest.fixture(scope="module")
def rewarded(tmp_path_factory, whole):
    """The folder of a reward that waits, in its second call, for a line on standard input; and an uninterrupted run with it."""
    folder = tmp_path_factory.mktemp("reward")
    (folder / "waiting_reward.py").write_text(REWARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        train(config(folder / "whole", steps=5, **SIGNALLED))
        yield folder


def signalled(rewarded, run):
    """The command of a run that waits in its third step, and its environment."""
    given = [f"run_dir={run}", "trainer.max_steps=5", *(f"{k}={v}" for k, v in SIGNALLED.items())]
    environment = os.environ | {"WAIT": "1", "PYTHONPATH": os.pathsep.join([str(rewarded), *sys.path])}
    return [sys.executable, "-m", "alignzoo", "train", *TINY, *given], environment


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_saves_and_says_how_to_go_on(rewarded, number):
    """It comes while the second rollout is sampled, for the third of five steps. Resumed, the run ends as one never stopped."""
    run = rewarded / number.name
    command, environment = signalled(rewarded, run)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "sampling\n"
        process.send_signal(number)
        out, err = process.communicate("\n", timeout=HANG)
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == f"interrupted at step 3 and saved; go on with: alignzoo train resume={run}"
    assert checkpoint.latest(run / "checkpoints").name == "checkpoint-3"
    assert not (run / "summary.json").exists()
    assert train(compose([f"resume={run}"]))["status"] == "finished"
    assert left_by(run) == left_by(rewarded / "whole")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("no_nohup")
def test_a_closed_terminal_saves_too(rewarded):
    """The kernel sends SIGHUP then, and whatever is printed after that fails."""
    run = rewarded / "closed"
    command, environment = signalled(rewarded, run)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(command[0], command, environment)
    shown = b""
    while b"sampling" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert checkpoint.latest(run / "checkpoints").name == "checkpoint-3"
    assert train(config(run, steps=5, **SIGNALLED))["status"] == "finished"
    assert left_by(run) == left_by(rewarded / "whole")


def test_nohup_keeps_its_word():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt().listening():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        interrupt = Interrupt()
        with interrupt.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.requested and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# --- text of any kind in what is logged ---


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_prompts_with_other_ends_of_lines_come_back_bit_for_bit(whole, tmp_path):
    """U+2028, U+0085 and a carriage return are ends of lines to `str.splitlines`."""
    data = tmp_path / "pairs.jsonl"
    texts = [f"a\u2028b\u2029c\u0085d\re\x0bf\x0cg\x1ch {number}" for number in range(14)]
    data.write_text("".join(json.dumps({"prompt": text, "chosen": "yes", "rejected": "no"}) + "\n" for text in texts))
    trainer = [text for text in TINY if text.startswith(("trainer.", "model.", "generation."))]
    given = ["algorithm=dpo", "data=jsonl", f"data.path={data}", "data.heldout=0.5", *trainer, "trainer.max_steps=3"]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    train(compose([*given, "trainer.eval_prompts=7", f"run_dir={whole}"]))
    cfg = compose([*given, "trainer.eval_prompts=7", f"run_dir={folder}"])
    assert killed(folder, lambda: train(cfg), "checkpoint-2 is there".__eq__)
    train(cfg)
    assert left_by(folder) == left_by(whole)
    written = (whole / "completions.jsonl").read_bytes()
    assert (folder / "completions.jsonl").read_bytes() == written
    assert {row["step"] for row in rows(whole, "completions.jsonl")} == {0, 1, 2, 3} and written.count("\u2028".encode()) >= 4


# --- a disk that is full ---


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_full_disk_leaves_what_was_there(begun, tmp_path):
    """A limit of 4 kB a file stands for a full disk: weights don't fit, log lines do."""
    folder, told = tmp_path / "run", tmp_path / "told"
    shutil.copytree(begun, folder)
    before = contents(folder / "checkpoints")

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            train(compose([f"resume={folder}"]))
        except UserError as error:
            told.write_text(str(error))

    assert not in_child(folder, run, lambda what: None)
    first, second = told.read_text().split("\n")
    assert re.match(rf"the disk is full: {folder}/checkpoints/checkpoint-2 was not written \(\d+ MiB are free\)\.$", first)
    assert second == "Kept: checkpoint-1. Steps 2 to 2 are lost. Free some space: the same command goes on from checkpoint-1"
    assert contents(folder / "checkpoints") == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_fills_up_while_syncing(tmp_path, monkeypatch, code):
    def full(handle):
        raise OSError(code, os.strerror(code))

    checkpoint.write(tmp_path / "checkpoint-1", lambda folder: (folder / "weights").write_text("one"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        checkpoint.write(tmp_path / "checkpoint-2", lambda folder: (folder / "weights").write_text("two"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert checkpoint.latest(tmp_path).name == "checkpoint-1"


# --- numbers that are none ---


@dataclass(kw_only=True)
class Diverging(Algorithm):
    """A likelihood, but for one row of step 3: not a number, or infinite in the gradient alone."""

    data = Completions
    gradient: bool = False

    def __post_init__(self):
        self.steps, self.row = 0, -1

    def roles(self):
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def after_step(self, metrics):
        self.steps += 1
        return Next.CONTINUE

    def loss(self, models, batch):
        loss = -batch.sum(models.policy.logprobs(batch))
        self.row = batch.row[1].item() % 24
        if self.steps < 2:
            return loss, {}
        infinite_slope = (loss[1] - loss[1].detach()).sqrt()
        second = torch.arange(len(batch)) == 1
        return torch.where(second, loss + infinite_slope if self.gradient else torch.nan, loss), {}


@pytest.mark.parametrize("gradient", [False, True])
def test_a_loss_that_is_no_number(tmp_path, gradient):
    """The third step names itself, the row and the checkpoint of the second, and updates nothing."""
    algorithm = Diverging(gradient=gradient)
    trainer = toys.trainer(toys.setup(algorithm, training={"save_steps": 1, "max_steps": 5}), tmp_path)
    with pytest.raises(UserError) as caught:
        trainer.train()
    where = "the gradient, with a finite loss in every row" if gradient else f"rows {algorithm.row}"
    last = tmp_path / "checkpoints" / "checkpoint-2"
    assert f"not finite at step 3 ({where}); nothing was updated" in str(caught.value)
    assert f"Last good checkpoint: {last}." in str(caught.value)
    weights = {n: p.clone() for n, p in trainer.trained.policy.state_dict().items()}
    checkpoint.load_main(trainer.trained.policy, last)
    assert all(torch.equal(p, weights[n]) for n, p in trainer.trained.policy.state_dict().items())


@dataclass(kw_only=True)
class Undefined(toys.CountReward):
    """Not a number for one row."""

    def __call__(self, c):
        scores = super().__call__(c)
        return Scores(total=torch.where(c.row == 11, torch.nan, scores.total))


def test_a_reward_that_is_no_number(tmp_path):
    """The toy data's first four rows are 11, 15, 16 and 5."""
    trainer = toys.trainer(toys.setup(PPO(), reward=Undefined()), tmp_path)
    with pytest.raises(UserError, match=r"reward count returned nan for 2 completion\(s\), of rows 11\."):
        trainer.train()


# --- the engine's own random stream ---


def test_dropout_goes_on_where_it_was(tmp_path):
    """Dropout draws from torch's stream, whose position is in the checkpoint."""

    def end(folder, dropout, resume=None):
        model = Model(config=dict(toys.LLAMA), dropout=dropout)
        trainer = toys.trainer(toys.setup(SFT(), model=model, training={"save_steps": 1}), tmp_path / folder)
        trainer.train(resume_from_checkpoint=resume)
        return torch.cat([p.detach().flatten() for p in trainer.trained.parameters()])

    whole = end("whole", 0.2)
    assert torch.equal(whole, end("resumed", 0.2, str(tmp_path / "whole" / "checkpoints" / "checkpoint-1")))
    assert not torch.equal(whole, end("without", 0.0))
