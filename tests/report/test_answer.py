"""What the report says first."""

from __future__ import annotations

import numpy as np
import pytest

from alignzoo.evaluation.comparable import named
from alignzoo.evaluation.results import find
from alignzoo.report import answer, sections
from alignzoo.report.analysis import analyse, natural
from alignzoo.report.study import Study
from alignzoo.settings import UserError
from tests.report.runs import write_run


def analysed(tmp_path, levels, seeds, study=None, spread=0.01):
    for i, (algorithm, level) in enumerate(levels.items()):
        noise = np.random.default_rng(i).normal(0, spread, seeds)
        for seed in range(seeds):
            write_run(tmp_path / f"{algorithm}-{seed}", algorithm, seed, level + noise[seed])
    (found,) = analyse(named(find([tmp_path]).runs), study or Study())
    return found


def test_a_clear_winner_by_how_much_how_sure_and_at_what_cost(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9, "dpo": 0.6, "distill": 0.3}, 8)
    text = " ".join(answer.details(a))
    assert answer.headline(a) == "ppo is the best of 3."
    assert "ppo closes 90." in text or "ppo closes 89." in text
    assert "points ahead of dpo (" in text and "p = 0.023" in text  # 3 * 2 / 2^8
    assert "ppo 6,400 samples, 40 s" in text


def test_what_is_alike_is_not_told_apart(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9, "reinforce": 0.9, "dpo": 0.5}, 8)
    best = a.best.label
    other = "ppo" if best == "reinforce" else "reinforce"
    assert answer.headline(a) == f"{best} is better than dpo, and not told apart from {other}."
    assert "is not shown." in answer.details(a)[0]


def test_identical_algorithms_have_no_winner(tmp_path):
    for algorithm in ("this", "that"):
        for seed in range(8):
            write_run(tmp_path / f"{algorithm}-{seed}", algorithm, seed, 0.5 + 0.01 * seed)
    (a,) = analyse(named(find([tmp_path]).runs), Study())
    assert answer.headline(a) == "No algorithm is shown to be the best: that has the highest mean, which may be chance."
    assert [(c.p, c.corrected) for c in a.comparisons] == [(1.0, 1.0)]
    assert sections.comparisons(a).rows[0][-1] == "not told apart"


@pytest.mark.parametrize(("seeds", "needed"), [(5, 8), (7, 8)])
def test_no_claim_and_no_ranking_below_the_seeds_needed(tmp_path, seeds, needed):
    """Four algorithms are six pairs: 6 * 2 / 2^7 = 0.094, 6 * 2 / 2^8 = 0.047."""
    a = analysed(tmp_path, {"c": 0.9, "a": 0.6, "d": 0.7, "b": 0.1}, seeds)
    assert answer.headline(a) == f"No claim possible below {needed} seeds."
    assert [row[0] for row in sections.results(a).rows] == ["a", "b", "c", "d"]
    assert not any(row[-1].endswith("is better") for row in sections.comparisons(a).rows)


def test_one_planned_comparison_needs_fewer_seeds(tmp_path):
    a = analysed(tmp_path, {"c": 0.9, "a": 0.6, "d": 0.7, "b": 0.1}, 6, Study(planned=[["c", "b"]]))
    assert a.can_claim and len(a.comparisons) == 1 and a.comparisons[0].corrected == 2 / 64


def test_one_seed_shows_no_interval_and_says_why(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9, "dpo": 0.5}, 1)
    assert answer.headline(a) == "No claim possible below 6 seeds."
    assert [row[2] for row in sections.results(a).rows] == ["none: one seed"] * 2
    assert "one common seed" in answer.details(a)[0]


def test_one_algorithm_alone(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9}, 3)
    assert answer.headline(a).startswith("ppo: 9") and "nothing to compare" in answer.headline(a)


def test_a_run_that_diverged_is_left_out_by_name(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"ppo-{seed}", "ppo", seed, 0.9 if seed else float("nan"))
    (a,) = analyse(named(find([tmp_path]).runs), Study())
    assert a.failed == {str(tmp_path / "ppo-0"): "no finite gap_closed"}
    assert a.entries[0].summary.count == 2


def test_conditions_are_analysed_apart_in_order_of_their_values(tmp_path):
    for noise in (10, 9):
        for algorithm in ("ppo", "dpo"):
            write_run(tmp_path / f"{algorithm}-{noise}", algorithm, 0, 0.5, changes={"data.noise": noise})
    found = analyse(named(find([tmp_path]).runs, ["data.noise"]), Study(vary=["data.noise"]))
    assert [(a.condition, len(a.entries)) for a in found] == [("data.noise=9", 2), ("data.noise=10", 2)]
    assert natural("b=2") < natural("b=10")


def over_noise(tmp_path, levels):
    """One analysis a noise, of eight seeds; levels[noise] = {algorithm: level}."""
    for noise, algorithms in levels.items():
        for algorithm, level in algorithms.items():
            for seed in range(8):
                folder = tmp_path / f"{algorithm}-{noise}-{seed}"
                write_run(folder, algorithm, seed, level + 0.01 * (seed % 3), changes={"data.noise": noise})
    return analyse(named(find([tmp_path]).runs, ["data.noise"]), Study(vary=["data.noise"]))


def test_one_answer_over_conditions(tmp_path):
    found = over_noise(tmp_path, {0.1: {"ppo": 0.8, "dpo": 0.7}, 0.4: {"ppo": 0.5, "dpo": 0.5}})
    assert answer.overall(found).startswith("Which is ahead depends on the condition: ppo under data.noise=0.1; dpo under")


def test_several_conditions_without_seeds_enough(tmp_path):
    for noise in (0.1, 0.2):
        for algorithm in ("ppo", "dpo"):
            write_run(tmp_path / f"{algorithm}-{noise}", algorithm, 0, 0.5, changes={"data.noise": noise})
    found = analyse(named(find([tmp_path]).runs, ["data.noise"]), Study(vary=["data.noise"]))
    assert answer.overall(found) == "No claim possible below 6 seeds, under any of 2 conditions."


def test_one_winner_over_conditions(tmp_path):
    found = over_noise(tmp_path, {0.1: {"ppo": 0.8, "dpo": 0.7}, 0.4: {"ppo": 0.5, "dpo": 0.1}})
    assert answer.overall(found) == "ppo has the highest mean under all 2 conditions, and is shown to be the best under all 2."


def test_a_sweep_compares_areas_under_frontiers(tmp_path):
    """ppo ends at (KL, reward) (0.2, 0.4), (0.4, 0.6), dpo at (0.2, 0.2), (0.5, 0.4), the reference at (0, 0.1). Up to
    KL 0.4 ppo gains (0.03 + 0.08) / 0.4 on average; dpo's first point is below the line to its second, which at 0.4 is 0.24 up.
    """
    ends = {"ppo": [(0.3, 0.2), (0.5, 0.4)], "dpo": [(0.1, 0.2), (0.3, 0.5)]}  # gap is reward - 0.1
    for algorithm, points in ends.items():
        for i, (gap, kl) in enumerate(points):
            write_run(tmp_path / f"{algorithm}-{i}", algorithm, 0, gap, kl=kl, changes={"algorithm.beta": 1.0 / (i + 1)})
    study = Study(sweep=["algorithm.beta"])
    (a,) = analyse(named(find([tmp_path]).runs, sweep=study.sweep), study)
    assert {entry.label: entry.scores[0] for entry in a.entries} == pytest.approx(
        {"ppo": (0.03 + 0.08) / 0.4, "dpo": 0.5 * 0.24}
    )


def test_other_metrics_and_none(tmp_path):
    write_run(tmp_path / "ppo", "ppo", 0, 0.5)
    runs = named(find([tmp_path]).runs)
    (a,) = analyse(runs, Study(), "reward")
    assert a.metric == "reward" and a.entries[0].scores == {0: pytest.approx(0.6)}
    runs[0].summary["metrics"] = {"accuracy": 0.5}
    with pytest.raises(UserError, match="--metric"):
        analyse(runs, Study())


def test_numbers_are_written_as_they_are_read():
    assert [answer.p_text(p) for p in (1.0, 0.046875, 0.00001)] == ["p = 1", "p = 0.047", "p < 0.0001"]
    assert answer.amount("seconds", 3.14) == "3.1 s" and answer.amount("flops", 2.5e12) == "2.50e+12 FLOPs"
    assert sections._ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
