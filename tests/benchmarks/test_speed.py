"""The speed benchmark: its gates fail where they should, its turns alternate, its arithmetic and its page are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignzoo.models.networks import PolicyNetwork
from benchmarks.speed import compare, linear, ours, page, plan, theirs
from benchmarks.speed.floor import Shape, useful
from benchmarks.speed.job import Job
from benchmarks.speed.material import prepare, views
from benchmarks.speed.measure import Row, command, save
from benchmarks.speed.measure import job as side_job
from benchmarks.speed.profile import part_of
from benchmarks.speed.turns import alternate

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of TRL, which uses what transformers has renamed


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    words = ["the", "cat", "and", "a", "dog", "went", "to", "see", "an", "old", "tree", "while", "it", "was", "raining"]
    text = lambda start, length: " " + " ".join(words[(start + i) % len(words)] for i in range(length))  # noqa: E731
    rows = [
        {"prompt": f"Human:{text(i, 8 + i % 9)}", "chosen": text(i + 3, 3 + i % 5), "rejected": text(i + 7, 2 + i % 7)}
        for i in range(48)
    ]  # some prompts twice
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(folder / "made", "tiny", folder / "rows.jsonl", 48)
    return folder / "made"


def job(material: Path, algorithm: str, **more: Any) -> Job:
    return Job(folder=str(material), out="", algorithm=algorithm, steps=4, new_tokens=6, **more)


@pytest.mark.parametrize("algorithm", ["dpo", "kto", "bradley_terry"])
def test_a_gate_passes_for_the_same_mathematics_and_no_other(algorithm: str, material: Path) -> None:
    same = job(material, algorithm)
    mine, other = ours.run(same), theirs.run(same)
    found = compare.gate(mine, other)
    assert found["passed"] and found["steps"] == 4 and found["loss"] < 2e-5
    wrong = ours.run(replace(same, overrides=["trainer.learning_rate=2e-5"]))
    assert not compare.gate(wrong, other)["passed"]
    assert mine["tokens"] == other["tokens"], "both count what they are trained on"
    assert all(0 < useful <= trained for useful, trained in zip(mine["useful_tokens"], mine["tokens"], strict=True))


def test_a_reference_computed_beforehand_changes_no_loss(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    forward = PolicyNetwork.logprobs
    monkeypatch.setattr(PolicyNetwork, "logprobs", lambda self, c: (asked.append(len(c)), forward(self, c))[1])
    plain, cached = (ours.run(job(material, "dpo", column=column))["loss"] for column in ("tuned", "best"))
    assert cached == pytest.approx(plain, abs=1e-6)
    assert len(asked) == 2 * 4 + (2 * 4 + 4), "the timed run of the second asks the policy alone"


def test_trl_takes_one_record_at_a_time(material: Path) -> None:
    tuned, single = (theirs.run(job(material, "dpo", column=column)) for column in ("tuned", "accumulated"))
    assert compare.gate(tuned, single)["passed"] and len(single["cpu"]) == 4


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "distill"])
def test_completions_are_replayed(algorithm: str, material: Path, tmp_path: Path) -> None:
    sampling = job(material, algorithm, replay=True)
    mine = ours.run(sampling)
    (tmp_path / "ours.json").write_text(json.dumps(mine))
    replayed = replace(sampling, completions=str(tmp_path / "ours.json"))
    other = theirs.run(replayed)
    assert other["sampled"] == mine["sampled"] and len(mine["rollouts"]) == 4
    assert compare.gate(mine, other, replayed=True)["passed"]
    wrong = ours.run(replace(sampling, overrides=["trainer.learning_rate=2e-2"]))
    assert not compare.gate(wrong, other, replayed=True)["passed"]
    if algorithm == "rloo":
        assert max(map(abs, other["loss"])) > 1e-3, "TRL's own loss is 0 whatever the policy does"
        mine["rollouts"][0]["prompts"][0] = [3]
        (tmp_path / "ours.json").write_text(json.dumps(mine))
        with pytest.raises(ValueError, match="other prompts"):
            theirs.run(replayed)


def test_the_padded_path_is_the_same_mathematics(material: Path) -> None:
    mine = ours.run(job(material, "ppo"))
    assert compare.gate(mine, ours.run(job(material, "ppo", column="padded")))["passed"]
    assert len(mine["sampled"]) == 1, "four steps learn from one rollout"


def side(**more: Any) -> dict[str, Any]:
    return {
        "cpu": [9, 9, 1, 2, 3, 4], "loss": [0.5, 0.4, 0.3], "grad_norm": [1.0, 2.0, 3.0], "moved": 1.0, "sampled": [],
        "tokens": [5, 5, 10, 10, 10, 20], "useful_flops": [1, 1, 5, 5, 5, 5], "useful_tokens": [1, 1, 10, 10, 10, 10],
        "peak_flops": 10.0, "peak_mb": 100.0, "ready_mb": 40.0, "total_cpu": 30.0,
    } | more  # fmt: skip


def test_the_arithmetic_of_a_row() -> None:
    other = side(cpu=[9, 9, 2, 6, 3, 16], peak_mb=200.0, total_cpu=60.0, peak_flops=8.0)
    assert compare.ratios(side(), other, "steps", 1) == [2, 3, 1, 4]
    found = compare.summary(side(), other, "steps", 1)
    assert found["ratio"] == {"median": 2.5, "min": 1, "max": 4} and found["alternations"] == 4
    assert found["throughput_ratio"] == pytest.approx(27 / 10), "of all steps together"
    assert found["peak_ratio"] == 0.5 and found["peak_over_ready_ratio"] == 60 / 160 and found["whole_run_ratio"] == 2
    assert found["ours"]["seconds_per_step"] == 2.5 and found["ours"]["tokens_per_second"] == 40 / 10
    assert found["ours"]["utilisation"] == 20 / 10 / 10.0 and found["theirs"]["utilisation"] == pytest.approx(20 / 27 / 10)
    assert compare.ratios(side(), other, "steps", 2) == [8 / 3, 19 / 7], "two steps a turn"


def test_time_a_token_where_the_two_work_on_others() -> None:
    mine, other = side(sampled=[1, 1, 10, 10, 10, 10]), side(cpu=[9, 9, 2, 2, 2, 2], sampled=[1, 1, 5, 20, 10, 10])
    assert compare.ratios(mine, other, "sampled", 1) == pytest.approx([4, 0.5, 2 / 3, 0.5])
    found = compare.summary(mine, other, "sampled", 1)
    assert found["ours"]["ms_per_sampled_token"] == 1000 * 10 / 40
    assert found["theirs"]["ms_per_sampled_token"] == pytest.approx(1000 * 8 / 45)
    assert found["theirs"]["tokens_per_second"] == pytest.approx(45 / 40 * 40 / 8)


@pytest.mark.parametrize(
    ("changes", "replayed", "passed"),
    [
        ({}, False, True),
        ({"loss": [0.5, 0.4, 0.30001]}, False, True),
        ({"loss": [0.5, 0.40003, 0.3]}, False, False),
        ({"moved": 1.01}, False, False),
        ({"grad_norm": [1.0001, 2.0, 3.0]}, False, True),
        ({"grad_norm": [1.0, 2.0, 3.001]}, True, False),
        ({"grad_norm": [1.00005, 2.0, 3.0]}, True, True),
    ],
)
def test_what_a_gate_looks_at(changes: dict[str, Any], replayed: bool, passed: bool) -> None:
    assert compare.gate(side(), side(**changes), replayed)["passed"] is passed


def test_the_flops_nobody_can_do_without() -> None:
    shape = Shape(hidden=4, layers=2, inner=8, vocabulary=16)
    trunk, attention, head = 2 * 2 * (4 * 16 + 3 * 32) * 8, 4 * 2 * 4 * (6 + 3 * 2 + 3 + 3 * 3 + 6), 2 * 4 * 16 * 5
    groups = [(3, [2, 3])]  # a prompt of three tokens, completions of two and three
    assert shape.forward(groups) == trunk + attention + head
    assert shape.forward(groups, head=False) == trunk + attention
    assert useful("dpo", shape, groups) == 4 * (trunk + attention + head) and useful(
        "rloo", shape, groups
    ) == 5 * shape.forward(groups)
    assert useful("dpo", shape, groups, beforehand=True) == 3 * shape.forward(groups)
    assert shape.forward([(3, [2])], prompts=False) < shape.forward([(3, [2])])


FAKE = """
import sys, pathlib
from benchmarks.speed.turns import Turns
name, log = sys.argv[1], pathlib.Path(sys.argv[2])
turns = Turns()
turns.say()
turns.wait()
for step in range(int(sys.argv[3])):
    with log.open("a") as out:
        out.write(name)
    turns.say()
    turns.wait()
if int(sys.argv[3]) < 3:
    sys.exit("no more steps")
with log.open("a") as out:
    out.write(name.lower())
"""


def test_two_programs_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    commands = {name: [sys.executable, "-c", FAKE, name, str(log), "3"] for name in "AB"}
    assert "".join(alternate(commands, os.environ, 3)) == "ABBAAB"
    assert log.read_text() == "ABBAABab"  # none goes on while the other one has its last block


def test_a_program_that_fails_is_told(tmp_path: Path) -> None:
    commands = {
        name: [sys.executable, "-c", FAKE, name, str(tmp_path / "log"), steps] for name, steps in (("A", "1"), ("B", "3"))
    }
    with pytest.raises(RuntimeError, match=r"no more steps"):
        alternate(commands, os.environ, 3)


def test_rows_of_every_view() -> None:
    pairs = [{"prompt": "p", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(2)]
    assert [row["completion"] for row in views(pairs)["judged"]] == ["c0", "r1"]
    assert [row["label"] for row in views(pairs)["judged"]] == [1, 0]


def result(algorithm: str, ratio: float, **more: Any) -> dict[str, Any]:
    row = Row(algorithm=algorithm, **more)
    found = compare.summary(side(), side(cpu=[x * ratio for x in side()["cpu"]], peak_mb=250.0), "steps", 1)
    gate = {"steps": 10, "loss": 1e-6, "gradient": 0.0, "moved": 0.0, "replayed": False, "passed": True}
    told = {"gate": gate, "load": [0.5, 1.0], "commit": "abc1234"}
    return vars(row) | {"name": row.name} | found | told


def test_the_page_says_what_is_short_of_its_target(tmp_path: Path) -> None:
    save(result("dpo", 3.0), tmp_path)
    save(result("dpo", 4.0, size="15M"), tmp_path)
    save(result("dpo", 2.1, column="accumulated"), tmp_path)
    save(result("sft", 2.0, column="best") | {"gate": {"steps": 0, "passed": True, "see": "tuned"}}, tmp_path)
    failed = {"steps": 10, "loss": 1e-6, "gradient": 0.01, "moved": 0.0, "replayed": True, "passed": False}
    save(result("kto", 9.0) | {"gate": failed}, tmp_path)
    text = page.write(tmp_path).read_text()
    lines = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert lines["| DPO"].startswith("| DPO | **3.00x** | 4.00x | - | 3.5x / 5x | - | - | 2.5x | 2.10x | - | 0.40 | 0.40 |")
    assert lines["| SFT"].startswith("| SFT | - | - | - | 3.5x / 4.5x | 2.00x | - | 1.6x | - | - |")
    assert "| 3.00 (3.00 to 3.00) | 3.00 | 4 x 4 steps | 1.0e-06 | 0.40 (0.29) |" in lines["| DPO, hh 1M, tuned"]
    assert lines["| KTO"].startswith("| KTO | - | - | - |"), "what fails its gate counts for nothing"
    assert "**failed: 1.0e-06†, gradient norms 1.0e-02" in lines["| KTO, hh 1M, tuned"]
    assert "as tuned" in lines["| SFT, hh 1M, best"] and "abc1234" in lines["| SFT, hh 1M, best"]


def test_turns_are_whole() -> None:
    with pytest.raises(ValueError, match="--steps 10 is not a multiple of --turn 4"):
        Row(algorithm="dpo", steps=10)


def test_another_checkout_runs_from_its_own_place(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/bin/pwd")
    row = Row(algorithm="rloo", beside=str(tmp_path))
    assert row.unit == "steps"  # both sample alike
    sides = {side: side_job(row, tmp_path, side, tmp_path / "out", steps=4) for side in ("ours", "theirs")}
    assert sides["ours"] == sides["theirs"]
    there = command(row, "theirs", sides["theirs"], tmp_path / "job.json")
    assert there[-2:] == ["benchmarks.speed.ours", str(tmp_path / "job.json")]
    assert subprocess.check_output(there[:4], text=True) == f"{tmp_path.resolve()}\n"


def test_only_missing_rows_are_run(tmp_path: Path) -> None:
    assert len({row.name for row in plan.ROWS}) == len(plan.ROWS) == len(plan.missing(tmp_path))
    (tmp_path / f"{plan.ROWS[3].name}.json").write_text("{}")
    assert plan.ROWS[3] not in plan.missing(tmp_path)
    measured = {row.algorithm for row in plan.ROWS if row.column == "tuned"}
    assert measured == set(page.TARGETS)


def test_a_straight_line_and_one_that_is_not() -> None:
    points = [{"x": x, "seconds": {"auto": 1e-6 * (5 + 2 * x), "padded": 1e-6 * x**2}} for x in (1, 2, 3, 4)]
    straight, bent = linear.fit(points, "auto"), linear.fit(points, "padded")
    assert straight["slope_us"] == pytest.approx(2) and straight["intercept_ms"] == pytest.approx(5e-3)
    assert straight["r_squared"] == pytest.approx(1) and bent["r_squared"] < 0.99
    assert straight["dearer_at_the_end"] == pytest.approx((13 / 4) / (11 / 3)) and bent["dearer_at_the_end"] == pytest.approx(
        4 / 3
    )


def test_padding_costs_what_it_adds(tmp_path: Path) -> None:
    found = {"group": linear.sweep("group", (16, 1, 2, 32), 1, (1, 16))}
    few, many = (point["seconds"] for point in found["group"]["points"])
    assert many["padded"] > 2 * many["auto"], "sixteen copies of a long prompt"
    linear.draw(found, tmp_path / "linear.svg")
    assert "alignzoo" in (tmp_path / "linear.svg").read_text() and few["auto"] > 0
    assert linear.markdown(found).splitlines()[2].startswith("| completions of a prompt | 1 | 16 |")


@pytest.mark.parametrize(
    ("name", "shapes", "part"),
    [
        ("aten::mm", [[5, 16], [16, 259]], "products with the head"),
        ("aten::mm", [[5, 16], [16, 44]], "products of the trunk"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", [[1, 2, 3, 4]], "attention"),
        ("aten::_fused_adamw_", [], "optimizer"),
        ("aten::index_select", [[259, 16], [], [4]], "moving and gathering rows"),
        ("aten::silu", [[5, 44]], "elementwise, norms, softmax"),
    ],
)
def test_parts_of_a_profile(name: str, shapes: list[Any], part: str) -> None:
    assert part_of(name, shapes, 259) == part
