from __future__ import annotations

import json
import math

import pyarrow.parquet
import pytest

from alignzoo.runs.comparable import check_comparable, named
from alignzoo.runs.results import find, write_rows
from alignzoo.settings import UserError
from tests.report.runs import STEPS, metrics, write_lines, write_run


def edit(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_runs_are_found_in_folders_once_and_unfinished_ones_named(tmp_path):
    one = write_run(tmp_path / "here" / "dpo-0", "dpo", 0, 0.8)
    two = write_run(tmp_path / "there" / "deep" / "ppo-0", "ppo", 0, 0.9)
    killed = write_run(tmp_path / "here" / "ppo-1", "ppo", 1, 0.9)
    (killed / "summary.json").unlink()
    found = find([tmp_path / "here", one, tmp_path / "there"])
    assert [run.folder for run in found.runs] == [one, two]
    assert found.skipped == {str(killed): "no summary.json: unfinished, or failed"}


def test_a_failed_run_says_the_last_line_of_its_log(tmp_path):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    failed = write_run(tmp_path / "ppo-0", "ppo", 0, 0.8)
    (failed / "summary.json").unlink()
    (tmp_path / "ppo-0.log").write_text("step 3\nRuntimeError: the loss is not finite\n\n")
    assert find([tmp_path]).skipped == {str(failed): "no summary.json: RuntimeError: the loss is not finite"}


def test_what_cant_be_read_is_passed_over_by_name(tmp_path):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    broken = write_run(tmp_path / "dpo-1", "dpo", 1, 0.8)
    (broken / "summary.json").write_text('{"algorithm": "dpo"')
    found = find([tmp_path])
    assert len(found.runs) == 1 and "can't be read" in found.skipped[str(broken)]


def test_a_torn_last_line_costs_no_run_and_a_damaged_one_its_own(tmp_path, capfd):
    torn, damaged, whole = (write_run(tmp_path / f"dpo-{seed}", "dpo", seed, 0.8) for seed in range(3))
    with (torn / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 120, "text": "é'.encode()[:-1])
    lines = (damaged / "metrics.jsonl").read_bytes().split(b"\n")
    (damaged / "metrics.jsonl").write_bytes(b"\n".join([lines[0], b"\0" * 30, *lines[2:]]))
    found = find([tmp_path])
    assert [run.folder for run in found.runs] == [torn, whole]
    assert found.runs[0].evaluations == found.runs[1].evaluations and len(found.runs[0].evaluations) == 5
    assert found.skipped.keys() == {str(damaged)} and "metrics.jsonl, line 2: damaged" in found.skipped[str(damaged)]
    assert f"{torn}/metrics.jsonl: its last line was torn when the run was stopped" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["choices: {algorithm: \0", "", "- a list\n", "\udcff"])
def test_a_config_that_cant_be_read_is_passed_over_too(tmp_path, text):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    broken = write_run(tmp_path / "dpo-1", "dpo", 1, 0.8)
    (broken / "config.yaml").write_text(text, errors="surrogateescape")
    found = find([tmp_path])
    assert len(found.runs) == 1 and "config.yaml is damaged" in found.skipped[str(broken)]


def test_no_run_at_all(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        find([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        find([tmp_path / "nothing"])


def test_cost_and_curves(tmp_path):
    run = find([write_run(tmp_path / "dpo-0", "dpo", 0, 0.8, seconds=40.0)]).runs[0]
    assert run.cost == {"steps": STEPS, "samples": 6400, "tokens": 64000, "seconds": 40.0}
    assert run.curve("samples", "gap_closed") == (
        [1280, 2560, 3840, 5120, 6400],
        pytest.approx([0.32, 0.56, 0.72, 0.776, 0.8]),
    )
    assert run.curve("flops", "gap_closed") == ([], [])


def test_offline_runs_count_the_rows_they_learned_from(tmp_path):
    folder = write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    edit(folder, "summary.json", samples=0)
    assert find([folder]).runs[0].cost["samples"] == STEPS * 64


def test_costs_in_metrics_are_used_where_they_are(tmp_path):
    folder = write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    rows = [{"step": step, "cost/seconds": step**2, "eval/gap_closed": 0.1} for step in (50, 100)]
    write_lines(folder / "metrics.jsonl", rows)
    run = find([folder]).runs[0]
    assert run.curve("seconds", "gap_closed")[0] == [2500, 10000]
    assert run.cost["seconds"] == 10000 and run.cost["samples"] == 6400  # the last evaluation's, else the summary's


def test_trials_of_tuning_are_no_runs(tmp_path):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    write_run(tmp_path / "tuning" / "dpo-1000", "dpo", 1000, 0.9)
    assert [run.seed for run in find([tmp_path]).runs] == [0]
    assert [run.seed for run in find([tmp_path / "tuning"]).runs] == [1000]


def test_the_command_of_a_run(tmp_path):
    folder = write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    assert find([folder]).runs[0].command == ""
    edit(folder, "environment.json", command=["alignzoo", "train", "algorithm=dpo", "peft={r: 1}"])
    assert find([folder]).runs[0].command == "alignzoo train algorithm=dpo 'peft={r: 1}'"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.task_seed": 1}, "another task (data.task_seed=1, not 0)"),
        ({"choices.data": "jsonl"}, "another task (data=jsonl, not exact)"),
        ({"model.hidden_size": 32}, "another task (model.hidden_size=32, not 64)"),
        ({"generation.max_new_tokens": 8}, "another task (generation.max_new_tokens=8, not 4)"),
        ({"reward.scale": 2.0}, "another reward (reward.scale=2.0, not None)"),
        ({"choices.reference": "none"}, "another reference (reference=none, not copy)"),
        ({"budget": {"unit": "samples", "amount": 100}}, "another budget (budget.unit=samples, not None)"),
    ],
)
def test_what_cant_be_compared_is_refused_by_name(tmp_path, changes, said):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.8)
    other = write_run(tmp_path / "ppo-0", "ppo", 0, 0.9, changes=changes)
    runs = find([tmp_path]).runs
    with pytest.raises(UserError) as error:
        check_comparable(runs)
    assert f"{other}: {said}" in str(error.value) and str(tmp_path / "dpo-0") in str(error.value)
    check_comparable(runs, vary=[*changes, "data", "reference", "budget.unit", "budget.amount"])


def test_other_budgets_are_refused_by_their_amount(tmp_path):
    for amount in (100, 200):
        write_run(tmp_path / f"dpo-{amount}", "dpo", 0, 0.8, changes={"budget": {"unit": "samples", "amount": amount}})
    with pytest.raises(UserError, match=r"dpo-200: another budget \(budget.amount=200, not 100\)"):
        check_comparable(find([tmp_path]).runs)


def test_no_budget_is_none_whether_said_or_not(tmp_path):
    write_run(tmp_path / "dpo", "dpo", 0, 0.8)
    write_run(tmp_path / "ppo", "ppo", 0, 0.8, changes={"budget": {"unit": "none", "amount": 0}})
    runs = find([tmp_path]).runs
    check_comparable(runs)
    assert [run.row()["budget"] for run in runs] == ["", ""]


def test_the_same_budget_of_all_is_comparable(tmp_path):
    for algorithm in ("dpo", "ppo"):
        write_run(tmp_path / algorithm, algorithm, 0, 0.8, changes={"budget": {"unit": "samples", "amount": 6400}})
    runs = find([tmp_path]).runs
    check_comparable(runs)
    assert [run.row()["budget"] for run in runs] == ["6,400 samples"] * 2


def test_other_settings_of_one_algorithm_get_labels_that_say_which(tmp_path):
    for beta in (0.1, 0.5):
        write_run(tmp_path / f"dpo-{beta}", "dpo", 0, 0.8, changes={"algorithm.beta": beta, "trainer.learning_rate": 10 * beta})
    write_run(tmp_path / "ppo", "ppo", 0, 0.8)
    labels = [run.label for run in named(find([tmp_path]).runs)]
    assert labels == ["dpo beta=0.1 trainer.learning_rate=1.0", "dpo beta=0.5 trainer.learning_rate=5.0", "ppo"]


def test_data_made_with_the_runs_own_seed_is_no_setting_and_with_another_is(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"own-{seed}", "dpo", seed, 0.8, changes={"making.seed": seed})
    assert [run.label for run in named(find([tmp_path]).runs)] == ["dpo", "dpo"]
    write_run(tmp_path / "shared-1", "dpo", 2, 0.8, changes={"making.seed": 0})
    assert sorted(run.label for run in named(find([tmp_path]).runs)) == ["dpo", "dpo", "dpo making.seed=0"]


def test_varied_settings_make_conditions_not_labels(tmp_path):
    for noise in (0.0, 0.4):
        write_run(tmp_path / f"dpo-{noise}", "dpo", 0, 0.8, changes={"data.label_noise": noise})
    runs = named(find([tmp_path]).runs, vary=["data.label_noise"])
    assert [(run.label, run.condition) for run in runs] == [("dpo", "data.label_noise=0.0"), ("dpo", "data.label_noise=0.4")]


def test_one_run_twice_is_refused(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, "dpo", 3, 0.8)
    with pytest.raises(UserError, match="the same run: dpo, seed 3"):
        named(find([tmp_path]).runs)


def test_tidy_rows(tmp_path):
    write_run(tmp_path / "runs" / "dpo-0", "dpo", 0, 0.8)
    diverged = write_run(tmp_path / "runs" / "ppo-0", "ppo", 0, 0.9)
    edit(diverged, "summary.json", metrics=metrics(math.nan, 0.1), flops=1e12)
    runs = named(find([tmp_path]).runs)
    assert runs[1].score("gap_closed") is None
    write_rows([run.row() for run in runs], tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["dpo", "ppo"]
    assert [row["eval/gap_closed"] for row in rows] == [0.8, None]
    assert [row["flops"] for row in rows] == [None, 1e12]
    assert rows[0]["trained_tokens"] == 32000 and rows[0]["version/torch"] == "2.13.0" and rows[0]["threads"] == 1
    assert pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist() == rows
