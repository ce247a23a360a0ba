"""The frontier and the bill in numbers."""

from __future__ import annotations

import json

import pytest

from alignzoo.common import reference_samples
from alignzoo.report import costs
from alignzoo.report.analysis import analyse
from alignzoo.report.kl_frontier import bounds, measure, table
from alignzoo.report.prose import paragraphs
from alignzoo.report.study import Study
from alignzoo.runs.comparable import named
from alignzoo.runs.results import find
from alignzoo.statistics.frontier import best_of_n_bound
from tests.report.runs import write_lines, write_run


def edit(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def moving(folder, algorithm, seed, path):
    """A run through these points (KL, reward) of the exact task, whose reference has reward 0.1."""
    write_run(folder, algorithm, seed, 0.5)
    rows = [{"exact_kl": kl, "expected_reward": reward, "gap_closed": 0.5, "J_reference": 0.1} for kl, reward in path]
    write_lines(
        folder / "metrics.jsonl",
        [{"step": i, **{f"eval/{k}": v for k, v in row.items()}} for i, row in enumerate(rows)],
    )
    edit(folder, "summary.json", metrics=rows[-1])
    return folder


def test_without_a_sweep_the_way_there_counts_too(tmp_path):
    """From (0, 0.1) over (0.5, 0.9) to (1, 0.7): the end is below what was had on the way, so at KL 0.5 and beyond it is 0.9.
    Up to KL 0.25, where the other one ends, the line from the reference gains 0.4 at most, 0.2 on average.
    """
    moving(tmp_path / "ppo", "ppo", 0, [(0.0, 0.1), (0.5, 0.9), (1.0, 0.7)])
    moving(tmp_path / "dpo", "dpo", 0, [(0.0, 0.1), (0.25, 0.2)])
    found = measure(named(find([tmp_path]).runs), swept=False)
    lines = {line.label: line for line in found.lines}
    assert found.at == 0.25 and lines["ppo"].ends == [(1.0, 0.7)] and lines["ppo"].hull == [(0.0, 0.1), (0.5, 0.9)]
    assert lines["ppo"].rewards == {0: pytest.approx(0.5)} and lines["ppo"].areas == {0: pytest.approx(0.2)}
    assert lines["dpo"].rewards == {0: pytest.approx(0.2)} and lines["dpo"].areas == {0: pytest.approx(0.05)}
    swept = measure(named(find([tmp_path]).runs), swept=True)
    assert {line.label: line.hull for line in swept.lines}["ppo"] == [(0.0, 0.1), (1.0, 0.7)]


def test_the_table_has_best_of_n_and_the_optimum(tmp_path):
    folder = moving(tmp_path / "ppo", "ppo", 0, [(0.0, 0.1), (0.567, 0.9)])
    (folder / "frontier.json").write_text(
        json.dumps(
            {
                "exact": True, "reference": 0.1, "best_of_n": [{"n": 1, "kl": 0.0, "reward": 0.1},
                {"n": 2, "kl": 0.56, "reward": 0.5}],
                "optimum": [{"beta": 1.0, "kl": 1.12, "reward": 2.1}],
            }
        )
    )  # fmt: skip
    found = measure(named(find([tmp_path]).runs), swept=False)
    reached = table(found)
    assert reached.columns[3] == "reward at KL 0.56 (95 % interval)"
    assert [row[0] for row in reached.rows] == ["ppo", "best of n", "optimum"]
    assert reached.rows[0][1:4] == ["0.567", "0.9", "0.8901 (no interval: one seed)"]  # 0.1 + 0.8 * 0.56 / 0.567
    assert [row[3] for row in reached.rows[1:]] == ["0.5", "1.1"] and [row[4] for row in reached.rows[1:]] == ["0.2", "0.5"]
    assert "computed exactly" in " ".join(paragraphs("frontier", found))


def inexact(folder, algorithm, seed, reward, kl):
    write_run(folder, algorithm, seed, 0.5)
    edit(folder, "summary.json", metrics={"reward": reward, "kl": kl})
    rows = [(0, 0.3, -0.01), (100, reward, kl)]
    write_lines(folder / "metrics.jsonl", [{"step": s, "eval/reward": r, "eval/kl": k, "cost/steps": s} for s, r, k in rows])
    return folder


def test_off_the_exact_task_best_of_n_is_of_samples_and_says_that_its_kl_is_a_bound(tmp_path):
    """Two prompts with rewards 0, 1 | 1 and 2, 2 | 2 over two seeds: one sample has 2/3 and 2, the best of two
    1 and 2. The second
    algorithm has the samples of the first one's seed, which must not count twice.
    """
    for algorithm in ("ppo", "dpo"):
        for seed, rewards in ((0, {"x": [0.0, 1.0], "y": [2.0, 2.0]}), (1, {"x": [1.0], "y": [2.0]})):
            reference_samples.write(inexact(tmp_path / f"{algorithm}-{seed}", algorithm, seed, 1.5, 0.8), rewards)
    runs = named(find([tmp_path]).runs)
    what = bounds(runs)
    assert what.best_of_n == [(pytest.approx(best_of_n_bound(n)), pytest.approx(r)) for n, r in ((1, 4 / 3), (2, 1.5))]
    assert what.reference == pytest.approx(4 / 3) and not what.exact and what.optimum == []
    found = measure(runs, swept=False)
    assert table(found).rows[-1][0] == "best of n (its KL: an upper bound)"
    assert "upper bound log n" in " ".join(paragraphs("frontier", found))
    assert all(kl >= 0 for line in found.lines for path in line.paths for kl, _ in path)


def test_the_reference_is_known_from_the_evaluation_before_training(tmp_path):
    inexact(tmp_path / "ppo", "ppo", 0, 1.5, 0.8)
    runs = named(find([tmp_path]).runs)
    assert bounds(runs).reference == 0.3 and bounds(runs).best_of_n == []
    assert "trainer.reference_samples" in " ".join(paragraphs("frontier", measure(runs, swept=False)))


def test_without_kl_there_is_no_frontier(tmp_path):
    folder = write_run(tmp_path / "sft", "sft", 0, 0.5)
    edit(folder, "summary.json", metrics={"reward": 1.0})
    write_lines(folder / "metrics.jsonl", [])
    assert measure(named(find([tmp_path]).runs), swept=False) is None


def test_costs_by_total_role_and_phase(tmp_path):
    folder = write_run(tmp_path / "ppo", "ppo", 0, 0.5)
    spent = {"flops": 3e12, "flops/value": 1e12, "flops/policy": 2e12, "passes/policy/forward": 700, "evaluation_flops": 5e9}
    edit(folder, "summary.json", **spent)
    write_run(tmp_path / "dpo", "dpo", 0, 0.4)
    (a,) = analyse(named(find([tmp_path]).runs), Study())
    total, roles, phases = costs.tables(a)
    assert total.columns == ["in total", "dpo", "ppo"]
    assert ["FLOPs", "", "3T"] in total.rows and ["peak memory, MB", "500", "500"] in total.rows
    assert roles.rows == [["policy, FLOPs", "", "2T"], ["policy, forward passes", "", "700"], ["value, FLOPs", "", "1T"]]
    assert [row[0] for row in phases.rows] == [
        "rollout, seconds", "training, seconds", "evaluation, seconds", "evaluation, FLOPs",
    ]  # fmt: skip
