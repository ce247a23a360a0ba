"""A run's folder: whose it is, what may be removed of it, and that it goes on after any end.

The runs here count: a trainer without a model, so that a process can be killed before each single change to a file, and started
again, in a minute. Runs that learn are killed in tests/engine/test_restart.py.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignzoo import compose
from alignzoo.bench.job import Job
from alignzoo.cli import main as cli
from alignzoo.common import disk
from alignzoo.common import folder as folders
from alignzoo.common.folder import Lines
from alignzoo.config.run import instantiate
from alignzoo.engine import checkpoint
from alignzoo.pipeline import carry_out
from alignzoo.runs import single
from alignzoo.settings import UserError
from tests.killing import changes, contents, in_child, killed, killed_at, some

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
STEPS = 5
ENDS_OF_LINES = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\rh"  # where str.splitlines cuts, and JSON Lines must not
OURS = {
    "config.yaml", "origin", "environment.json", "fingerprint.json", "metrics.jsonl", "completions.jsonl", "frontier.json",
    "summary.json", "checkpoints", "model",
}  # fmt: skip


class Counting:
    """In place of a trainer: adds the step's number to `total`, and writes what a run writes."""

    def __init__(self, folder: Path, save_steps: int = 2, before_step=lambda step: None) -> None:
        self.folder, self.save_steps, self.before_step, self.total = folder, save_steps, before_step, 0
        self.state, self.args = SimpleNamespace(global_step=0, max_steps=STEPS), SimpleNamespace(max_steps=STEPS)
        self.allowance, self.ended = SimpleNamespace(limited=False, share=0.0), False
        self.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
        self.cost, self.stopping = SimpleNamespace(columns=dict), SimpleNamespace(active=False)
        self.evaluated, self.tables_report, self.tokenizer, self.encoder = (0, {"eval/total": 0.0}), {}, self, None
        self.config, self.trained = SimpleNamespace(), SimpleNamespace(main=self, roles={"policy": self})
        self.is_fsdp_enabled = self.is_deepspeed_enabled = False
        self.inner = self
        self.files = [Lines(folder / name, active=True) for name in ("metrics.jsonl", "completions.jsonl")]

    def is_world_process_zero(self):
        return True

    def take_weights(self):
        """They are here."""

    def train(self, resume_from_checkpoint=None):
        if resume_from_checkpoint:
            self.total = int(Path(resume_from_checkpoint, "total").read_text())
            self.state.global_step = checkpoint.step_of(Path(resume_from_checkpoint))
            sizes = json.loads(Path(resume_from_checkpoint, "sizes").read_text())
            for lines, size in zip(self.files, sizes, strict=True):
                lines.cut(self.state.global_step, size)
        while self.state.global_step < STEPS:
            step = self.state.global_step + 1
            self.before_step(step)
            self.total, self.state.global_step = self.total + step, step
            for lines in self.files:
                lines.write({"step": step, "total": self.total, "text": ENDS_OF_LINES})
            if self.save_steps and step % self.save_steps == 0 and step < STEPS:
                checkpoint.write(self.folder / "checkpoints" / f"checkpoint-{step}", self.save_checkpoint)
                checkpoint.rotate(self.folder / "checkpoints", keep=1)
        self.ended = True

    def save_pretrained(self, folder):
        Path(folder, "total").write_text(str(self.total))

    def save_checkpoint(self, folder):
        self.save_pretrained(folder)
        Path(folder, "sizes").write_text(json.dumps([lines.sync() for lines in self.files]))


@pytest.fixture
def counting(monkeypatch):
    """Runs count from now on. Settings of `Counting`, and what goes wrong while it is built, by name."""
    settings, error, known = {}, [], {}

    def once(name):
        """Of each config: composing a hundred runs is no part of what is tried here."""
        function = getattr(single, name, None) or instantiate
        return lambda cfg: known.setdefault((name, id(cfg)), (cfg, function(cfg)))[1]

    def build(setup, folder, cache):
        setup.data.curves = lambda: {"reward": [1.0]}

        def trainer(interrupt, show):
            (folder / "checkpoints").mkdir(exist_ok=True)  # as transformers does
            if error:
                raise error[0]
            return Counting(folder, **settings)

        return SimpleNamespace(trainer=trainer)

    monkeypatch.setattr(single, "_builder", lambda setup: build)
    monkeypatch.setattr(single, "environment", dict)
    monkeypatch.setattr(single, "identity", once("identity"))
    monkeypatch.setattr("alignzoo.config.run.instantiate", once("instantiate"))
    monkeypatch.setattr("alignzoo.common.account.peak_memory", lambda: 0)
    monkeypatch.setattr("alignzoo.engine.unused.unused", lambda builder, keys: {})
    monkeypatch.setattr("alignzoo.runs.saving.difference", lambda *_: "")  # a number has no outputs
    return SimpleNamespace(settings=settings, error=error)


def config(folder, *more):
    return compose([f"run_dir={folder}", *more])


def left_by(folder):
    """All files, whole, but for who started it."""
    return {name: data for name, data in contents(folder) if name != "environment.json"}


def touched(folder):
    """What changes where anything in it is touched."""
    return [(str(p), p.lstat().st_mtime_ns, p.lstat().st_ino) for p in [folder, *sorted(folder.rglob("*"))]]


@pytest.fixture
def whole(counting, tmp_path):
    folder = tmp_path / "whole"
    assert single.train(config(folder))["status"] == "finished"
    return folder


# --- killed, and started again by the same command ---


PARTS = ("os.mkdir here", "open .lock", "os.rename .config.yaml", "os.mkdir checkpoints", "os.rename .summary.json")
SAVED = ("os.rename .partial-checkpoint-4",)


@pytest.mark.parametrize("stride", [12, pytest.param(1, marks=pytest.mark.torture)])
@pytest.mark.parametrize("save_steps", [0, 2])
def test_killed_before_any_change_to_a_file_the_same_command_ends_the_same(counting, tmp_path, save_steps, stride, capfd):
    """Whichever change it is, from the folder's making to the removal of the lock. What else is in the folder stays. Every
    other time it is resume= that goes on."""
    counting.settings["save_steps"] = save_steps
    cfg = config(tmp_path / "run" / "here")
    single.train(cfg)
    folder, expected = tmp_path / "run" / "here", left_by(tmp_path / "run" / "here")
    again = compose([f"resume={folder}"])
    shutil.rmtree(folder.parent)
    folder.parent.mkdir()
    every = changes(folder, lambda: single.train(cfg))
    shutil.rmtree(folder.parent)
    for count in some(every, PARTS + (SAVED if save_steps else ()), stride):
        change = killed_at(folder, lambda: single.train(cfg), count)
        assert change
        begun = (folder / "config.yaml").exists()
        sealed = checkpoint.latest(folder / "checkpoints")
        ended = (folder / "summary.json").exists()
        if begun:
            (folder / ".git").mkdir()
            (folder / ".git" / "config").write_text("mine")
            (folder / "notes.txt").write_text("mine")
            (folder / ".metrics.jsonl.old").write_text("mine")
        capfd.readouterr()
        single.train(again if begun and count % 2 else cfg)
        said = capfd.readouterr().err
        assert ("begins again: no checkpoint yet" in said) is (begun and not sealed and not ended), change
        assert (f"goes on from {sealed.name}" if sealed and not ended else "") in said
        found = left_by(folder)
        if begun:
            mine = [found.pop(name) for name in (".git/config", "notes.txt", ".metrics.jsonl.old", ".git")]
            assert mine == [b"mine"] * 3 + [b""]
        found.pop(".lock", None)  # of the process that was killed after its run had ended
        for name in [name for name in found if "checkpoint-2" in name]:  # what no later checkpoint has made superfluous
            del found[name]
        assert found == expected, f"killed before {change}"
        shutil.rmtree(folder.parent)


def test_killed_twice_it_still_ends_the_same(whole, tmp_path):
    """A fixed sample: the second death is of the attempt that goes on."""
    folder = tmp_path / "run"
    cfg = config(folder)
    for first, second in ((3, 9), (14, 5), (30, 30), (45, 12), (60, 25)):
        shutil.rmtree(folder, ignore_errors=True)
        assert killed_at(folder, lambda: single.train(cfg), first) and killed_at(folder, lambda: single.train(cfg), second)
        single.train(cfg)
        assert contents(folder / "model") == contents(whole / "model")
        assert (folder / "completions.jsonl").read_bytes() == (whole / "completions.jsonl").read_bytes()


def test_a_finished_run_says_so_and_nothing_changes(whole, capfd):
    before, summary = touched(whole), json.loads((whole / "summary.json").read_text())
    capfd.readouterr()
    for cfg in (config(whole), compose([f"resume={whole}"])):
        assert single.train(cfg) == summary
    said = capfd.readouterr().err.split("\n")
    onward = f"from its weights, model=hf model.path={whole}/model goes on"
    assert said[:2] == [
        f"alignzoo: {key}={whole} is finished: nothing is left to do; {onward}" for key in ("run_dir", "resume")
    ]
    assert touched(whole) == before


def test_the_default_folder_is_taken_up_too(counting, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    assert killed(runs, lambda: single.train(compose([])), "checkpoint-2 is there".__eq__)
    assert single.train(compose([]))["steps"] == STEPS
    assert single.train(compose([]))["steps"] == STEPS
    told = [line for line in capfd.readouterr().err.split("\n") if line.startswith("alignzoo: ")]
    assert [line.split(" ", 2)[2].split(";")[0] for line in told] == [
        "goes on from checkpoint-2", "is finished: nothing is left to do",
    ]  # fmt: skip
    assert len(list(runs.iterdir())) == 1


# --- whose folder it is ---


@pytest.mark.parametrize(
    "name", [".git/config", ".env", ".config.yaml.old", "notes.txt", "checkpoints/notes", "config.yaml", "metrics.jsonl"]
)
def test_a_folder_with_something_else_in_it_is_not_touched(counting, tmp_path, name):
    folder = tmp_path / "proj"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    before = touched(folder)
    reason = "holds a run with other settings" if name == "config.yaml" else f"holds no run, but {name.split('/')[0]}"
    with pytest.raises(UserError, match=f"run_dir={folder} {reason}.*hoose another run_dir"):
        single.train(config(folder))
    assert touched(folder) == before


def test_a_run_of_other_settings_is_not_touched(whole):
    before = touched(whole)
    with pytest.raises(
        UserError, match=r"holds a run with other settings \(\S+: 0 there, 7 asked for; see \S+config.yaml\): choose"
    ):
        single.train(config(whole, "seed=7"))
    assert touched(whole) == before


@pytest.mark.parametrize("kind", ["empty", "link", "disk", "left lock"])
def test_a_folder_with_nothing_in_it_is_taken(counting, tmp_path, kind):
    folder, target = tmp_path / "run", tmp_path / "elsewhere"
    (target if kind == "link" else folder).mkdir()
    if kind == "link":
        folder.symlink_to(target)
    if kind == "disk":  # as every ext4 file system has it at its top
        (folder / "lost+found").mkdir()
    if kind == "left lock":
        (folder / ".lock").write_text("process 1 on nowhere")
    assert single.train(config(folder))["status"] == "finished"
    assert {path.name for path in folder.iterdir()} - {"lost+found"} == OURS
    assert folder.is_symlink() is (kind == "link")


def test_a_place_where_no_folder_can_be_is_named(counting, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    for place, reason in (("file", "a file is there"), ("file/run", "Not a directory"), ("lost", "File exists")):
        with pytest.raises(UserError, match=rf"run_dir=\S*{place}: can't write there \({reason}\): choose another folder"):
            single.train(config(tmp_path / place))
    (tmp_path / "empty").mkdir()

    def read_only(path, *more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(folders.os, "open", read_only)
    for place in ("empty", "a/b"):
        with pytest.raises(UserError, match=r"can't write there \(Read-only file system\)"):
            single.train(config(tmp_path / place))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "lost"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("there", [False, True])
def test_what_fails_before_it_begins_leaves_nothing(counting, tmp_path, there):
    counting.error.append(UserError("no data"))
    folder = tmp_path / "runs" / "a"
    if there:
        folder.mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="no data"):
        single.train(config(folder))
    assert contents(tmp_path) == before


def test_what_fails_before_it_begins_again_stays_a_run(counting, tmp_path):
    folder = tmp_path / "run"
    assert killed(folder, lambda: single.train(config(folder)), "open completions.jsonl".__eq__)
    (folder / "notes.txt").write_text("mine")
    counting.error.append(UserError("no data"))
    with pytest.raises(UserError, match="no data"):
        single.train(config(folder))
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "origin", "checkpoints", "notes.txt"}
    counting.error.clear()
    assert single.train(config(folder))["status"] == "finished"


# --- files in it that are damaged ---


HARMS = {
    "is missing": lambda path: path.unlink(),
    "is damaged": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
}


@pytest.mark.parametrize("name", ["total", "manifest.json"])
@pytest.mark.parametrize("harm", HARMS)
def test_the_only_checkpoint_damaged_is_an_error_that_names_the_file(counting, tmp_path, name, harm):
    folder = tmp_path / "run"
    assert killed(folder, lambda: single.train(config(folder)), "checkpoint-2 is there".__eq__)
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoints" / ".partial-checkpoint-4").mkdir()
    HARMS[harm](folder / "checkpoints" / "checkpoint-2" / name)
    before = left_by(folder)
    before.pop(".lock")
    for cfg, key in ((config(folder), "run_dir"), (compose([f"resume={folder}"]), "resume")):
        with pytest.raises(UserError) as caught:
            single.train(cfg)
        assert str(caught.value) == (
            f"{key}={folder}: checkpoint-2 is not whole, and there is no other: {name} {harm}.\n"
            f"Put it back from a copy, or remove {folder}/checkpoints/checkpoint-2 to begin again; nothing was changed"
        )
        assert left_by(folder) == before


def test_a_damaged_checkpoint_beside_a_whole_one_is_set_aside(counting, whole, tmp_path, capfd):
    """It is not counted among those that are kept: with it, the whole one would have to go."""
    folder = tmp_path / "run"
    checkpoints = folder / "checkpoints"
    assert killed(folder, lambda: single.train(config(folder)), "checkpoint-4 is there".__eq__)
    (checkpoints / "checkpoint-2").exists() or pytest.fail("killed before the rotation")
    (checkpoints / "checkpoint-4" / "total").write_text("?")
    assert killed(folder, lambda: single.train(config(folder)), "open metrics.jsonl".__eq__)
    assert checkpoint.latest(checkpoints).name == "checkpoint-2"
    assert "checkpoint-4 is not whole (total is damaged): it is set aside as checkpoint-4.aside" in capfd.readouterr().err
    single.train(config(folder))
    assert (checkpoints / "checkpoint-4.aside" / "total").read_text() == "?"
    assert contents(folder / "model") == contents(whole / "model")


@pytest.mark.parametrize(("name", "text"), [("summary.json", '{"status": "fin'), ("config.yaml", "choices: {algorithm: \x00")])
def test_a_torn_file_is_named(whole, name, text):
    (whole / name).write_text(text)
    before = touched(whole)
    with pytest.raises(UserError, match=f"{whole / name} is damaged"):
        single.train(compose([f"resume={whole}"]))
    assert touched(whole) == before


# --- one process ---


@pytest.fixture
def holder(tmp_path):
    """`holder(folder)`: another process has this folder, until it is killed; its number."""
    children = []

    def hold(folder):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            with folders.held(folder, "run_dir=there"):
                if os.fork() == 0:  # what a run leaves behind when it is killed, such as a worker of a reward
                    signal.pause()
                os.write(writer, str(os.getpid()).encode())
                signal.pause()
        children.append(child)
        assert os.read(reader, 20) == str(child).encode()
        return child

    yield hold
    for child in children:
        os.killpg(child, signal.SIGKILL)  # with what it left behind
        os.waitpid(child, 0)


def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def test_a_second_process_is_refused_by_number_and_the_lock_dies_with_the_first(counting, tmp_path, holder):
    folder = tmp_path / "run"
    child = holder(folder)
    with pytest.raises(UserError, match=rf"run_dir={folder} is in use by process {child} on \S+: wait for it"):
        single.train(config(folder))
    assert [path.name for path in folder.iterdir()] == [".lock"]
    end(child)
    assert single.train(config(folder))["status"] == "finished"
    assert {path.name for path in folder.iterdir()} == OURS


def test_resuming_a_stage_and_a_run_of_a_bench_are_refused_too(counting, tmp_path, holder, capfd, monkeypatch):
    folder = tmp_path / "run"
    assert killed(folder, lambda: single.train(config(folder)), "checkpoint-2 is there".__eq__)
    child, before = holder(folder), left_by(folder)
    with pytest.raises(UserError, match=rf"resume={folder} is in use by process {child} "):
        single.train(compose([f"resume={folder}"]))
    job = Job(str(folder), (f"run_dir={folder}",), str(tmp_path))
    assert cli.main(job.command[3:]) == 2
    assert f"alignzoo: run_dir={folder} is in use by process {child} " in capfd.readouterr().err
    stage = carry_out.Stage("sft", "1 of 1", (), folder, whole=config(folder))
    with pytest.raises(UserError, match=rf"stage 1 of 1, sft, failed: resume={folder} is in use by process {child} "):
        carry_out._make(stage, SimpleNamespace(note=lambda *_: None))
    (folder / "config.yaml").write_text("of another label")
    with pytest.raises(UserError, match=rf"run_dir={folder} is in use by process {child} "):
        carry_out._take_over(stage)
    (folder / "config.yaml").write_bytes(before["config.yaml"])
    assert left_by(folder) == before


def test_the_same_process_is_refused_too(counting, tmp_path):
    folder = tmp_path / "run"
    counting.settings["before_step"] = lambda step: single.train(config(folder))
    with pytest.raises(UserError, match=f"is in use by process {os.getpid()}, this one: "):
        single.train(config(folder))
    counting.settings.clear()
    with folders.held(folder, "run_dir=here"):
        with pytest.raises(UserError, match="this one"), folders.held(folder, "run_dir=here"):
            pass

        def other():
            folders._held.clear()
            with pytest.raises(UserError, match=f"in use by process {os.getppid()} on "), folders.held(folder, "run_dir=here"):
                pass

        assert not in_child(folder, other, lambda change: None)  # the lock is still there
    assert single.train(config(folder))["status"] == "finished"


def test_a_lock_that_its_holder_has_removed_is_not_taken_for_the_folders(tmp_path, monkeypatch):
    """Between the opening and the locking: who comes third would lock another file."""
    lockf, path = fcntl.lockf, tmp_path / "run" / ".lock"
    times = []

    def late(handle, how):
        times.append(how)
        if len(times) == 1:
            path.unlink()
        lockf(handle, how)

    monkeypatch.setattr(folders.fcntl, "lockf", late)
    with folders.held(path.parent, "run_dir=run"):
        assert len(times) == 2 and path.read_text().startswith(f"process {os.getpid()} ")
    assert not path.parent.exists()


def test_where_nothing_can_be_locked_it_is_said(counting, tmp_path, monkeypatch, capfd):
    def unknown(handle, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(folders.fcntl, "lockf", unknown)
    assert single.train(config(tmp_path / "run"))["status"] == "finished"
    assert f"{tmp_path / 'run'} can't be locked (Function not implemented): start no second" in capfd.readouterr().err


def test_only_the_first_rank_changes_the_folder(tmp_path, monkeypatch):
    """The others look at it and wait for the first while the trainer is built."""
    folder = tmp_path / "run"
    folder.mkdir()
    before = touched(folder)

    class Reached(Exception):
        pass

    def build(setup, folder, cache):
        raise Reached

    monkeypatch.setattr(single, "_builder", lambda setup: build)
    monkeypatch.setenv("RANK", "1")
    with folders.held(tmp_path / "held", "run_dir=held"), pytest.raises(Reached):
        single.train(config(folder))
    assert touched(folder) == before


# --- what may be removed ---


def test_only_what_a_manifest_names_is_removed(tmp_path):
    folder, outside = tmp_path / "checkpoint-2", tmp_path / "outside"
    outside.write_text("mine")
    checkpoint.write(folder, lambda partial: [(partial / name).write_text("ours") for name in ("a", "b")])
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "../outside": [4, ""], str(outside): [4, ""]}))
    checkpoint.write(folder, lambda partial: (partial / "c").write_text("ours"))
    assert dict(contents(tmp_path)) == {
        "checkpoint-2": b"", "checkpoint-2/c": b"ours", "checkpoint-2/manifest.json": (folder / "manifest.json").read_bytes(),
        "checkpoint-2.aside": b"", "checkpoint-2.aside/mine": b"", "checkpoint-2.aside/mine/notes.txt": b"mine",
        "outside": b"mine",
    }  # fmt: skip
    assert checkpoint.complete(folder)


# --- rows ---


def test_rows_end_with_a_newline_alone(tmp_path):
    lines = Lines(tmp_path / "completions.jsonl", active=True)
    written = [{"step": step, "text": f"{ENDS_OF_LINES}{step}", "half": "\ud800"} for step in range(1, 5)]
    for row in written:
        lines.write(row)
    whole = lines.path.read_bytes()
    assert folders.rows(lines.path) == written and whole.count(b"\n") == 4
    lines.cut(3)
    assert lines.path.read_bytes() == whole[: whole.rindex(b"\n", 0, -1) + 1]


def test_lines_that_were_on_disk_at_the_checkpoint_and_are_gone_are_told(tmp_path, capfd):
    lines = Lines(tmp_path / "metrics.jsonl", active=True)
    assert lines.sync() == 0
    for step in (1, 2):
        lines.write({"step": step})
    size = lines.sync()
    lines.write({"step": 3})
    lines.cut(2, size)
    assert (lines.path.read_bytes(), size) == (b'{"step": 1}\n{"step": 2}\n', 24) and not capfd.readouterr().err
    for left, kept in ((b'{"step": 1}\n{"st', b'{"step": 1}\n'), (None, None)):
        lines.path.write_bytes(left) if left else lines.path.unlink()
        lines.cut(2, size)
        assert (lines.path.read_bytes() if kept else kept) == kept
        lost = f"has only {len(left or b'')} of 24 bytes that were there at step 2: lines are lost, the run goes on"
        assert capfd.readouterr().err == f"alignzoo: {lines.path} {lost}\n"


def test_a_last_line_torn_at_any_byte_is_left_out_and_said(tmp_path, capfd):
    first, last = {"step": 1, "text": "é"}, {"step": 2, "text": "é\u2028👍"}
    kept, torn = folders.line(first), folders.line(last)
    for length in range(1, len(torn) - 1):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(kept + torn[:length])
        assert folders.rows(path) == [first] == folders.rows(path)
        assert capfd.readouterr().err == f"alignzoo: {path}: its last line was torn when the run was stopped, and is left out\n"
        lines = Lines(path, active=True)
        lines.cut(2)
        lines.write(last)
        assert path.read_bytes() == kept + torn
    path.write_bytes(kept + torn[:-1])  # only the newline is missing
    assert folders.rows(path) == [first, last]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for text in (b"\xff", b"[1]", b'{"step": 1', b"[" * 10_000):
        path.write_bytes(b'{"step": 1}\n' + text + b'\n{"step": 3}\n')
        with pytest.raises(UserError, match=f"{path}, line 2: damaged"):
            folders.rows(path)


def test_a_file_is_on_disk_before_it_takes_its_place(tmp_path):
    """The content, then the name: else a power cut could leave an empty file under it."""
    told = tmp_path / "told"

    def watch(what):
        with told.open("a") as file:
            file.write(f"{what.replace(str(os.getpid()), 'PID')}\n")

    folder = tmp_path / "run"
    folder.mkdir()
    assert not in_child(folder, lambda: disk.write_whole(folder / "file", "text"), watch)
    assert told.read_text().split("\n")[:4] == ["open .file.PID", "fsync", "os.rename .file.PID", "fsync"]


# --- a disk that is full ---


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")


@pytest.mark.parametrize("save_steps", [0, 2])
def test_a_full_disk_keeps_the_weights_and_the_checkpoint_there_is(counting, tmp_path, monkeypatch, save_steps, whole):
    """No room for the model's tokenizer, but for its weights: at the end, when two of five steps are in no checkpoint."""
    counting.settings["save_steps"] = save_steps
    folder, save = tmp_path / "run", checkpoint.save_main

    def once(module, place, tokenizer, encoder):
        monkeypatch.setattr(checkpoint, "save_main", save)
        full()

    monkeypatch.setattr(checkpoint, "save_main", once)
    with pytest.raises(UserError) as caught:
        single.train(config(folder))
    kept = f"the weights of step 5 in {folder}/weights-5" + (" and checkpoint-4" if save_steps else "")
    goes = "goes on from checkpoint-4" if save_steps else "begins again"
    first, second = str(caught.value).split("\n")
    assert first.startswith(f"the disk is full: {folder}/model was not written (")
    assert second == f"Kept: {kept}. Free some space: the same command {goes}"
    assert (folder / "weights-5" / "total").read_text() == "15"
    single.train(config(folder))
    assert (folder / "weights-5" / "total").read_text() == "15"
    assert contents(folder / "model") == contents(whole / "model")


@pytest.mark.parametrize("save_steps", [0, 2])
def test_a_full_disk_says_what_is_lost(counting, tmp_path, monkeypatch, save_steps):
    counting.settings["save_steps"] = save_steps
    monkeypatch.setattr(checkpoint, "save_main", full)
    folder = tmp_path / "run"
    with pytest.raises(UserError) as caught:
        single.train(config(folder))
    kept, lost = ("Kept: checkpoint-4. ", "Steps 5 to 5") if save_steps else ("", "Steps 1 to 5")
    goes = "goes on from checkpoint-4" if save_steps else "begins again"
    said = str(caught.value).split("\n")[1]
    assert said == f"{kept}{lost} are lost. Free some space: the same command {goes}"
    assert not list(folder.glob("**/.partial-*")) and not list(folder.glob("weights-*"))


def test_a_full_disk_that_has_no_room_for_the_summary_keeps_the_model(counting, tmp_path, monkeypatch):
    """Without a checkpoint the same command begins again, and would write over it."""
    counting.settings["save_steps"] = 0
    folder, write = tmp_path / "run", single.write_whole
    monkeypatch.setattr(single, "write_whole", lambda path, text: full() if path.name == "summary.json" else write(path, text))
    with pytest.raises(UserError, match=f"there could not be written.\nKept: the weights of step 5 in {folder}/weights-5"):
        single.train(config(folder))
    assert (folder / "weights-5" / "total").read_text() == "15" and not (folder / "model").exists()


def test_a_full_disk_while_logging_keeps_the_weights(counting, tmp_path, monkeypatch):
    counting.settings["save_steps"] = 0
    write = Lines.write
    monkeypatch.setattr(Lines, "write", lambda self, row: full() if row["step"] == 3 else write(self, row))
    with pytest.raises(UserError, match=r"there could not be written.\nKept: the weights of step 3 in \S+/weights-3"):
        single.train(config(tmp_path / "run"))
    assert (tmp_path / "run" / "weights-3" / "total").read_text() == "6"
