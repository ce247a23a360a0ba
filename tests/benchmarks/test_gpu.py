"""The GPU benchmark, rehearsed on the CPU: the same script, the same processes, a small model."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import bundle, lines, page, profile, side
from benchmarks.gpu.__main__ import Bench
from benchmarks.gpu.material import prepare
from benchmarks.gpu.plan import OURS, ROWS, SMALL, SMALL_ROWS, WARM_UP
from benchmarks.speed.floor import Shape
from tests.limits import HANG

ROOT = Path(__file__).parents[2]
Line = dict[str, Any]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """The lines that the script leaves."""
    out = tmp_path_factory.mktemp("gpu")
    script = {
        "SMALL": "1",
        "OUT": str(out),
        "PYTHON": sys.executable,
        "BUNDLE": "none",
        "BUDGET": f"{HANG:.0f}",
    }
    ended = subprocess.run(
        ["bash", "benchmarks/gpu/run.sh"], env={**os.environ, **script}, capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (out / "README.md").read_text() == page.page(lines.read(out / "results.jsonl"))
    return lines.read(out / "results.jsonl")


def test_everything_is_measured(read: list[Line]) -> None:
    assert [line for line in read if line["kind"] in ("failed", "skipped")] == []
    (tests,) = (line for line in read if line["kind"] == "tests")
    assert tests["passed"] and read[-1]["kind"] == "end"
    for row in SMALL_ROWS:
        for name in row.sides:
            kinds = [line["kind"] for line in read if line.get("row") == row.name and line.get("side") == name]
            assert kinds == ["warm", "warm", *["run"] * row.rounds, "profile"]
    for line in read:
        assert {"commit", "device", "versions", "date", "model"} <= line.keys() and line["versions"]["torch"]
        if line["kind"] == "run":
            assert line["settings"] and line["seconds"] > 0 and line["peak_bytes"] > 2**20
            assert 0 < line["completion_tokens"] < line["useful_tokens"] <= line["trained_tokens"]
            assert line["useful_flops"] > 0 and line["product_flops"] > 0
        if line["kind"] == "profile":
            assert line["launches"] > 100 and 0 < line["busy"] <= 1.01 and sum(line["waits"].values()) > 0


def test_turns_go_there_and_back(read: list[Line]) -> None:
    for row in SMALL_ROWS:
        timed = [line for line in read if line.get("row") == row.name and line["kind"] == "run"]
        there = list(row.sides)
        assert [line["side"] for line in timed] == (there + there[::-1]) * (row.rounds // 2)
        assert [line["place"] for line in timed] == list(range(2 * len(there), 2 * len(there) + len(timed)))
        assert min(line["first_step"] for line in timed) > WARM_UP, "what warms up is not timed"


def test_both_do_the_same_work(read: list[Line]) -> None:
    counts = ("steps", "trained_tokens", "useful_tokens", "completion_tokens", "useful_flops")
    for row in SMALL_ROWS[:2]:
        for place in {line["first_step"] for line in read if line.get("row") == row.name and "logged" in line}:
            alike = [line for line in read if line.get("row") == row.name and line.get("first_step") == place]
            assert len({tuple(line[name] for name in counts) for line in alike if "logged" in line}) == 1


@pytest.mark.parametrize(("row", "program", "loss", "norm"), [
    ("dpo-float32", "TRL", 2e-5, 1e-4), ("sft-autocast-padding-free", "TRL", 5e-3, 5e-3),
    ("sft-autocast-padding-free", "TRL padding-free", 5e-3, 5e-3), ("grpo-float32", "TRL", 2e-5, 1e-4),
])  # fmt: skip
def test_both_compute_the_same(row: str, program: str, loss: float, norm: float, read: list[Line]) -> None:
    distance = page.apart(read, row, program)
    assert distance is not None and distance[0] < loss and distance[1] < norm


def test_what_alignzoo_sampled_is_what_trl_was_given(read: list[Line]) -> None:
    first = [line for line in read if line.get("row") == "grpo-float32" and line.get("place") in (0, 1)]
    assert [line["side"] for line in first] == [OURS, "TRL"]
    assert (
        first[0]["completion_tokens"] == first[1]["completion_tokens"] and first[0]["useful_flops"] == first[1]["useful_flops"]
    )


def line(kind: str, program: str, **figures: Any) -> Line:
    about = {
        "row": "dpo-autocast", "algorithm": "dpo", "precision": "autocast", "side": program, "device": "a GPU",
        "commit": "abc1234", "date": "2026-12-01T10:00:00", "versions": {"torch": "2.11.0"}, "product_flops": 1e9,
        "settings": {"bf16": True}, "model": {"layers": 24, "hidden": 896, "vocabulary": 1000}, "first_step": 4, "steps": 5,
    }  # fmt: skip
    return {"kind": kind} | about | figures


def segment(program: str, first: int, seconds: float, peak: float = 1.0, loss: float = 0.5) -> Line:
    logged = {str(first): {"loss": loss, "grad_norm": 2.0}}
    return line(
        "run", program, first_step=first, seconds=seconds, useful_tokens=1000, completion_tokens=400, useful_flops=1e9,
        peak_bytes=int(peak * 2**30), logged=logged,
    )  # fmt: skip


def test_the_page_holds_medians_worked_by_hand(tmp_path: Path) -> None:
    ours = [segment(OURS, first, seconds, 2.5) for first, seconds in ((4, 2), (9, 4), (14, 5))]
    theirs = [segment("TRL", first, seconds, peak, 0.51) for first, seconds, peak in ((4, 4, 8), (9, 6, 5), (14, 20, 5))]
    profiled = line("profile", "TRL", busy=0.75, launches=500, waits={"cudaStreamSynchronize": 20, "cudaEventSynchronize": 5},
                    kernels=[{"name": "gemm<a|b>", "share": 0.5, "calls": 7}])  # fmt: skip
    lines.write(tmp_path / "results.jsonl", {"kind": "set up", "row": "dpo-autocast"})
    rest = [
        line("tests", "", summary="== 12 passed ==", passed=True),
        line("skipped", "", row="ppo-autocast", reason="takes 70 s, 20 s are left"),
        line("failed", "TRL static cache", error="RuntimeError", output="a\nno compiler"),
    ]
    for each in [*ours, *theirs, profiled, *rest]:
        lines.write(tmp_path / "results.jsonl", each)
    with (tmp_path / "results.jsonl").open("a") as out:
        out.write('{"kind": "run", "cut o')  # the machine was taken away
    text = page.write(tmp_path / "results.jsonl", tmp_path).read_text()
    rows = {row.split(" | ")[2]: row for row in text.splitlines() if row.startswith("| DPO")}
    assert rows[OURS].startswith("| DPO | autocast | alignzoo | 250 (200 to 500) | 1 | - | 27.3% | 2.5 | - | - |")
    assert (
        "| 167 (50 to 250) | 2.00 (1.50 to 4.00) | - | 10.0% | 8.0 | 1.0e-02, 0.0e+00 | 75% | 100 | 5 | 3 x 5 steps |"
        in rows["TRL"]
    )
    assert statistics.median([1000 / 2, 1000 / 4, 1000 / 5]) == 250 and round(3 / 11, 3) == 0.273
    assert "`gemm<a/b>` 50%" in text and "12 passed" in text and "ppo-autocast was left out: it takes 70 s" in text
    assert "TRL static cache failed: RuntimeError, `no compiler`" in text


def test_there_is_no_page_without_results(tmp_path: Path) -> None:
    lines.write(tmp_path / "results.jsonl", line("tests", "", summary="", passed=False))
    with pytest.raises(ValueError, match="nothing has been measured"):
        page.write(tmp_path / "results.jsonl", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_row_that_does_not_fit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.printed_by", lambda *_: '{"device": "cpu", "product_flops": 1}')
    bench = Bench(tmp_path, False, time.time() + 84)
    monkeypatch.setattr(bench, "tests", lambda wanted: None)
    started: list[str] = []
    monkeypatch.setattr(bench, "row", lambda row, material, folder: started.append(row.name))
    bench.run("")
    written = lines.read(tmp_path / "results.jsonl")
    assert started == [row.name for row in ROWS if row.seconds < 84] and len(started) == 2
    assert [each["row"] for each in written if each["kind"] == "skipped"] == [row.name for row in ROWS if row.seconds > 84]


WRONG = {"folder": "nothing is here"}


def test_a_program_that_fails_drops_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side goes on alone."""
    bench, row, job = Bench(tmp_path, True, time.time() + HANG), SMALL_ROWS[0], Bench.job
    prepare(tmp_path / "material", SMALL, True)
    monkeypatch.setattr(
        Bench, "job", lambda self, row, name, *folders: replace(job(self, row, name, *folders), **{"TRL": WRONG}.get(name, {}))
    )
    bench.row(row, tmp_path / "material", tmp_path / "row")
    written = lines.read(tmp_path / "results.jsonl")
    assert [each["kind"] for each in written if each.get("side") == OURS] == ["warm", "warm", "run", "run", "profile"]
    (failed,) = (each for each in written if each.get("side") == "TRL")
    assert failed["kind"] == "failed" and "nothing is here" in failed["output"] and failed["versions"]


def test_the_rows_of_the_plan_fit_into_ten_minutes() -> None:
    assert sum(row.seconds for row in ROWS[:4]) <= 400 and len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.sides[0] == OURS and row.segment <= 20 for row in ROWS)


@pytest.mark.parametrize("padding_free", [False, True])
def test_lengths_in_what_sft_computes_its_loss_of(padding_free: bool) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}, {"input_ids": [5, 9], "labels": [-100, 9]}]
    collated = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=padding_free)(rows)
    batch = {name: collated[name] for name in side.READ if name in collated}
    assert list(side.groups(batch)) == [(2, [2]), (1, [1])]


def test_lengths_in_what_grpo_computes_its_loss_of() -> None:
    ids, mask = torch.tensor([[0, 3], [4, 5], [0, 3]]), torch.tensor([[0, 1], [1, 1], [0, 1]])
    completions = torch.tensor([[1, 1], [1, 0], [1, 0]])
    batch = {"prompt_ids": ids, "prompt_mask": mask, "completion_mask": completions}
    assert list(side.groups(batch)) == [(1, [2, 1]), (2, [1])]


def test_figures_of_a_profile() -> None:
    events = [
        ("gemm", 0, 400, True), ("gemm", 300, 200, True), ("Memcpy DtoH (Device -> Pinned)", 700, 100, True),
        ("cudaStreamSynchronize", 0, 900, False), ("cudaLaunchKernel", 0, 5, False),
    ]  # fmt: skip
    step = profile.figures(events, 1e-6)
    assert step["busy"] == pytest.approx(0.6) and step["launches"] == 3
    assert step["waits"] == {"cudaStreamSynchronize": 1} and step["copies_to_host"] == 1
    assert step["kernels"][0] == {"name": "gemm", "share": pytest.approx(600 / 700), "calls": 2}


def test_flops_where_heads_share_their_keys() -> None:
    class Config:
        hidden_size, num_hidden_layers, intermediate_size, vocab_size = 8, 1, 16, 32
        num_attention_heads, num_key_value_heads = 4, 2

    shape = Shape.of(Config)
    assert shape.forward([(1, [])], head=False) == 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16) + 4 * 8


def test_the_tree_is_a_package_where_it_is_not_installed(tmp_path: Path) -> None:
    bundle.install(tmp_path / "no bundle", tmp_path / "site")
    program = (
        "import alignzoo, alignzoo_conf, alignzoo_plugins.dpo.dpo as m; from importlib.metadata import entry_points, version\n"
    )
    program += "print(version('alignzoo'), m.__file__, [e.value for e in entry_points(group='alignzoo.data', name='jsonl')])"
    environment = {"PYTHONPATH": f"{tmp_path / 'site'}", "PATH": os.environ["PATH"]}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert ended.stdout.split()[1] == str(tmp_path / "site" / "alignzoo_plugins" / "dpo" / "dpo.py"), ended.stderr
    assert "alignzoo.data.files:JsonLines" in ended.stdout


def test_a_commit_is_that_of_these_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_described", lambda: "unknown")
    assert bundle.commit(tmp_path) == "unknown"
    (tmp_path / "commit.json").write_text(json.dumps({"commit": "abc1234", "sources": bundle.digest()}))
    assert bundle.commit(tmp_path) == "abc1234"
    monkeypatch.setattr(bundle, "SOURCES", ("conf",))
    assert bundle.commit(tmp_path) == "abc1234, changed since"
