"""Checkpoints on disk: what counts as one, which are kept; nested state there and back; log files cut to a step."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.common.folder import Lines, remove_sealed
from alignzoo.engine import checkpoint, records
from alignzoo.engine.loader import bind
from alignzoo.settings import UserError
from alignzoo.testing import toys


def made(folder, step, text="weights"):
    path = folder / f"checkpoint-{step}"
    checkpoint.write(path, lambda partial: [(partial / name).write_text(text + name) for name in ("a", "b")])
    return path


def test_a_manifest_holds_sizes_and_hashes(tmp_path):
    """sha256 of the text "x" is 2d711642...; a file in a subfolder is named by its path."""

    def fill(partial):
        (partial / "value").mkdir()
        (partial / "value" / "w").write_text("x")

    checkpoint.write(tmp_path / "checkpoint-3", fill)
    manifest = json.loads((tmp_path / "checkpoint-3" / "manifest.json").read_text())
    assert manifest == {"value/w": [1, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"]}


@pytest.mark.parametrize("harm", ["missing", "shortened", "altered", "no manifest", "half a manifest"])
def test_a_damaged_checkpoint_is_none(tmp_path, harm):
    good, bad = made(tmp_path, 2), made(tmp_path, 10)
    assert checkpoint.latest(tmp_path) == bad
    manifest = bad / "manifest.json"
    match harm:
        case "missing":
            (bad / "a").unlink()
        case "shortened":
            (bad / "a").write_text("weight")
        case "altered":
            (bad / "a").write_text("weightsA")
        case "no manifest":
            manifest.unlink()
        case _:
            manifest.write_text(manifest.read_text()[:40])
    assert not checkpoint.complete(bad)
    assert checkpoint.latest(tmp_path) == good


def test_the_latest_is_by_number_and_leftovers_are_not_counted(tmp_path):
    for step in (9, 10):
        made(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / ".partial-checkpoint-11").mkdir()
    assert checkpoint.step_of(checkpoint.latest(tmp_path)) == 10
    assert checkpoint.latest(tmp_path / "absent") is None


def test_rotation_keeps_the_newest_and_clears_leftovers(tmp_path):
    for step in (2, 4, 10):
        made(tmp_path, step)
    (tmp_path / ".partial-checkpoint-12").mkdir()
    checkpoint.rotate(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4"]


def test_a_failed_write_leaves_the_older_one(tmp_path):
    made(tmp_path, 2, "old")

    def fail(partial):
        (partial / "a").write_text("new")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        checkpoint.write(tmp_path / "checkpoint-2", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert (tmp_path / "checkpoint-2" / "a").read_text() == "olda"
    assert checkpoint.complete(made(tmp_path, 2, "new"))
    assert (tmp_path / "checkpoint-2" / "a").read_text() == "newa"


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighed(Completions):
    weight: Tensor


def test_nested_state_comes_back_as_it_was(tmp_path):
    """Types too: tuples, keys that are numbers, whole and broken numbers, every dtype, records of a plugin's own kind."""
    shared = torch.arange(6.0)
    record = bind(Weighed(**vars(toys.completions([4, 5])), weight=torch.tensor([0.5, 1.5])), None)
    state = {
        "none": None, 3: [1, 2.5, True, "text"], "tuple": (1, (2,)), "exact": 0.1 + 0.2, "empty": [],
        "nested": {"deep": {"x": shared}},
        "view": shared[::2], "bool": torch.tensor([True, False]), "int": torch.tensor(7),
        "bfloat16": torch.tensor([1.0]).bfloat16(),
    }  # fmt: skip
    records.save({**state, "record": record}, tmp_path / "state")
    loaded = records.load(tmp_path / "state")
    found = loaded.pop("record")
    assert type(found) is Weighed
    for name in ("ids", "attended", "scored", "row", "weight", "prompt_of"):
        assert torch.equal(getattr(found, name), getattr(record, name))
    assert torch.equal(found.prompts.ids, record.prompts.ids)
    assert loaded.keys() == state.keys()
    tensors = {name: loaded.pop(name) for name in ("view", "bool", "int", "bfloat16")}
    for name, value in tensors.items():
        assert torch.equal(value, state[name]) and value.dtype == state[name].dtype
    assert torch.equal(loaded["nested"]["deep"].pop("x"), shared)
    state["nested"]["deep"].pop("x")
    assert loaded == {name: value for name, value in state.items() if name not in tensors}
    assert [type(x) for x in loaded[3]] == [int, float, bool, str]


def test_state_that_has_no_exact_form_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not set"):
        records.save({"rows": {1, 2}}, tmp_path / "state")


def test_a_checkpoint_names_no_code(tmp_path):
    """Only record types that are already imported are made; anything else is an error, not an import."""
    records.save({"x": bind(toys.completions([0]), None)}, tmp_path / "state")
    path = tmp_path / "state.json"
    for kind in ("os:system", "alignzoo.batch:Nothing", "antigravity:Batch"):
        path.write_text(path.read_text().replace("alignzoo.batch:Completions", kind))
        with pytest.raises(UserError, match="which this algorithm's plugin does not define"):
            records.load(tmp_path / "state")
        path.write_text(path.read_text().replace(kind, "alignzoo.batch:Completions"))


def test_lines_are_cut_to_a_step(tmp_path):
    """Later rows go, so does a last line that a crash left unfinished; what is written next follows the last kept row."""
    lines = Lines(tmp_path / "metrics.jsonl", active=True)
    for step in (1, 2, 2, 3):
        lines.write({"step": step, "text": "é"})
    with lines.path.open("a") as file:
        file.write('{"step": 2, "lo')
    lines.cut(2)
    lines.write({"step": 3})
    rows = [json.loads(line) for line in lines.path.read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2, 3] and rows[0]["text"] == "é"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_only_the_main_process_writes(tmp_path):
    lines = Lines(tmp_path / "metrics.jsonl", active=False)
    lines.write({"step": 1})
    lines.sync()
    lines.cut(0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_link_leads_to_or_was_changed_since_is_not_removed(tmp_path):
    """A folder from elsewhere may say anything in its manifest."""
    victim, folder = tmp_path / "victim", tmp_path / "model"
    victim.mkdir()
    (victim / "thesis.txt").write_text("mine")
    checkpoint.write(folder, lambda partial: [(partial / name).write_text("1234") for name in ("weights", "notes.md")])
    (folder / "notes.md").write_text("12345, edited")
    (folder / "sub").symlink_to(victim)
    entries = json.loads((folder / "manifest.json").read_text()) | {
        "sub/thesis.txt": [4, "x"],
        "../victim/thesis.txt": [4, "x"],
    }
    (folder / "manifest.json").write_text(json.dumps(entries))
    remove_sealed(folder)
    assert (victim / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["notes.md", "sub"]
