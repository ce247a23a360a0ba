"""What the report says first."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml

from alignzoo.common.metric_table import bounds as possible
from alignzoo.report import across, prose, sections
from alignzoo.report.analysis import analyse, averaged, natural_order
from alignzoo.report.study import Study
from alignzoo.runs.comparable import named
from alignzoo.runs.results import find
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
    text = " ".join(a.details)
    assert a.headline == "ppo is the best of 3."
    assert "ppo closes 90." in text or "ppo closes 89." in text
    assert "points ahead of dpo (" in text and "p = 0.023" in text  # 3 * 2 / 2^8
    assert sections.bill(a).rows[0] == ["ppo", "6.4k", "64k", "40"]


def test_what_is_alike_is_not_told_apart(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9, "reinforce": 0.9, "dpo": 0.5}, 8)
    best = a.best.label
    other = "ppo" if best == "reinforce" else "reinforce"
    assert a.headline == f"{best} is better than dpo, and not told apart from {other}."
    assert "is not shown." in a.details[0]


def test_identical_algorithms_have_no_winner(tmp_path):
    for algorithm in ("this", "that"):
        for seed in range(8):
            write_run(tmp_path / f"{algorithm}-{seed}", algorithm, seed, 0.5 + 0.01 * seed)
    (a,) = analyse(named(find([tmp_path]).runs), Study())
    assert a.headline == "that and this are not told apart: their scores are the same, seed by seed."
    assert [(c.p, c.corrected) for c in a.comparisons] == [(1.0, 1.0)]
    assert sections.comparisons(a).rows[0][-1] == "not told apart"


@pytest.mark.parametrize(("seeds", "needed"), [(5, 8), (7, 8)])
def test_no_claim_and_no_ranking_below_the_seeds_needed(tmp_path, seeds, needed):
    """Four algorithms are six pairs: 6 * 2 / 2^7 = 0.094, 6 * 2 / 2^8 = 0.047."""
    a = analysed(tmp_path, {"c": 0.9, "a": 0.6, "d": 0.7, "b": 0.1}, seeds)
    assert a.headline == f"No claim possible below {needed} seeds."
    assert [row[0] for row in sections.results(a).rows] == ["a", "b", "c", "d"]
    assert not any(row[-1].endswith("is better") for row in sections.comparisons(a).rows)


def test_one_seed_answers_for_its_runs(tmp_path):
    """Seven prompts on which a scores 1 more than b, and on one of them 2 more than c: 2 / 2^7 for three pairs."""
    for label, extra in (("a", 1.0), ("b", 0.0), ("c", 0.0)):
        folder = write_run(tmp_path / label, label, 0, 0.5)
        rows = [{"step": 100, "prompt": f"p{i}", "completion": "", "reward": i + extra} for i in range(7)]
        rows[3]["reward"] -= label == "c"
        early = {"step": 0, "prompt": "p0", "completion": "", "reward": 99.0}
        (folder / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [early, *rows]))
    (a,) = analyse(named(find([tmp_path]).runs), Study(), "reward")
    claim = "About the algorithms no claim is possible below 7 seeds."
    assert a.headline == f"Of these runs, on 7 held-out prompts, a is better than b and c. {claim}"
    assert "a's run is 1 ahead of b (1 to 1, p = 0.047). a's run is 1.14 ahead of c (" in a.details[1]
    assert a.details[1].endswith("p = 0.047), by a permutation test over prompts.")
    assert [(c.first, c.second, c.corrected) for c in a.verdicts_of_runs] == [("a", "b", 6 / 128), ("a", "c", 6 / 128)]


def test_one_planned_comparison_needs_fewer_seeds(tmp_path):
    a = analysed(tmp_path, {"c": 0.9, "a": 0.6, "d": 0.7, "b": 0.1}, 6, Study(planned=[["c", "b"]]))
    assert a.can_claim and len(a.comparisons) == 1 and a.comparisons[0].corrected == 2 / 64


def test_planned_pairs_alone_are_spoken_of(tmp_path):
    """c is ahead of a too, which nobody planned to ask: so c is not called the best."""
    study = Study(planned=[["b", "c"], ["a", "d"]])
    a = analysed(tmp_path, {"c": 0.9, "a": 0.7, "d": 0.7, "b": 0.1}, 8, study)
    alike = next(c for c in a.verdicts if not c.separated)
    assert a.headline == f"c is better than b, and {alike.first} and {alike.second} are not told apart."
    ahead, level, how = a.details
    assert "c closes 9" in ahead and "80." in ahead and "points ahead of b (" in ahead and "p = 0.016" in ahead  # 2 * 2 / 2^8
    assert level.startswith(f"{alike.first} closes") and level.endswith("is not shown.")
    assert how.endswith("corrected for 2 comparisons (Holm). No other pair was to be compared.")


def test_planned_pairs_are_level_within_a_margin_better_or_open(tmp_path):
    """a is 1 point ahead of b on each of 8 seeds, and c 0 to 7 points ahead of d, 3.5 on average."""
    for seed in range(8):
        for label, gap in {"a": 0.7, "b": 0.69, "c": 0.5 + 0.01 * seed, "d": 0.5, "e": 0.4}.items():
            write_run(tmp_path / f"{label}-{seed}", label, seed, gap)
    study = Study(planned=[["a", "b"], ["c", "d"], ["d", "e"]], margin=0.02)
    (a,) = analyse(named(find([tmp_path]).runs), study)
    assert a.headline == "a is better than b, by less than 2.0 points, c is better than d, d is better than e."
    table = sections.comparisons(a)
    assert table.columns[-2:] == ["p of 2.0 points or more, after Holm", "verdict"]
    # 2 / 2^8 of two sides, of which equivalence has one, and twice that where a difference is 0: times the 3 hypotheses that
    # can hold at once
    assert [row[-4:] for row in table.rows] == [
        ["0.0078", "0.023", "0.012", "a is better, within 2.0 points"],
        ["0.016", "0.047", "1", "c is better"],
        ["0.0078", "0.023", "1", "d is better"],
    ]
    (a,) = analyse(named(find([tmp_path]).runs), Study(planned=[["a", "b"]], margin=0.005))
    assert a.headline == "a is better than b."


def test_over_conditions_planned_pairs_are_spoken_of_too(tmp_path):
    for noise, level in (("0", 0.5), ("1", 0.3)):
        for algorithm, gap in (("ppo", 0.9), ("dpo", level), ("sft", 0.1)):
            for seed in range(8):
                write_run(
                    tmp_path / f"{noise}-{algorithm}-{seed}", algorithm, seed, gap + 0.001 * seed, changes={"data.noise": noise}
                )
    study = Study(vary=["data.noise"], planned=[["ppo", "dpo"]])
    found = analyse(named(find([tmp_path]).runs, study.vary), study)
    whole = averaged(found, study)
    assert whole is not None
    assert whole.headline == "ppo is better than dpo, on average over 2 values of data.noise."
    assert across.sentences(found)[0] == "Taken by themselves: ppo is better than dpo under all 2 conditions."


def test_one_seed_shows_no_interval_and_says_why(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9, "dpo": 0.5}, 1)
    assert a.headline == "No claim possible below 6 seeds."
    assert [row[1:4] for row in sections.results(a).rows] == [
        [f"{100 * e.summary.mean:.1f} (no interval: one seed)"] * 2 + ["1"] for e in a.entries
    ]
    assert "one common seed" in a.details[0]


def test_who_ran_on_defaults_beside_tuned_ones_is_said(tmp_path):
    settings = {"ppo": "exact/ppo", "mine": None, "other": None}
    for algorithm, found in settings.items():
        folder = write_run(tmp_path / algorithm, algorithm, 0, 0.5)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["choices"] = {**config.get("choices", {}), "experiment": "exact", "settings": found}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (a,) = analyse(named(find([tmp_path]).runs), Study())
    line = sections.on_defaults(a, Study())
    assert line == ["On their defaults: mine, other. Experiment exact has settings for the others, and none for them."]
    assert sections.on_defaults(a, Study(tuning=[{}])) == []
    alike = replace(a, entries=[e for e in a.entries if e.label != "ppo"])
    assert sections.on_defaults(alike, Study()) == []


def test_older_runs_say_nothing_of_defaults(tmp_path):
    assert sections.on_defaults(analysed(tmp_path, {"ppo": 0.9, "dpo": 0.5}, 1), Study()) == []


def test_one_algorithm_alone(tmp_path):
    a = analysed(tmp_path, {"ppo": 0.9}, 3)
    assert a.headline.startswith("ppo: 9") and "nothing to compare" in a.headline


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
    assert natural_order("b=2") < natural_order("b=10")


def over_noise(tmp_path, levels):
    """One analysis a noise, of eight seeds; levels[noise] = {algorithm: level}."""
    for noise, algorithms in levels.items():
        for algorithm, level in algorithms.items():
            for seed in range(8):
                folder = tmp_path / f"{algorithm}-{noise}-{seed}"
                write_run(folder, algorithm, seed, level + 0.01 * (seed % 3), changes={"data.noise": noise})
    return analyse(named(find([tmp_path]).runs, ["data.noise"]), Study(vary=["data.noise"]))


def test_the_answer_over_conditions_is_of_means_seed_by_seed(tmp_path):
    """ppo (0.8 + 0.5) / 2, dpo (0.7 + 0.5) / 2: 5 points apart in each of eight seeds, so p is 2 / 2^8."""
    found = over_noise(tmp_path, {0.1: {"ppo": 0.8, "dpo": 0.7}, 0.4: {"ppo": 0.5, "dpo": 0.5}})
    whole = averaged(found, Study(vary=["data.noise"]))
    assert whole.entries[0].scores[1] == pytest.approx(0.65 + 0.01)
    assert whole.headline == "ppo is better than dpo, on average over 2 values of data.noise."
    assert "It is 5.0 points ahead of dpo" in whole.details[0] and "p = 0.0078" in whole.details[0]
    assert (len(whole.comparisons), whole.family, [a.family for a in found]) == (1, 1, [2, 2])
    assert [c.corrected for a in found for c in a.comparisons] == [4 / 256, 1.0]
    assert across.sentences(found) == [
        "Taken by themselves: ppo is the best under data.noise 0.1; none is shown to be under the other 1.",
        "From 0.1 to 0.4 of data.noise, the gap closed changes by \N{MINUS SIGN}20.0 points (\N{MINUS SIGN}20.0 to "
        "\N{MINUS SIGN}20.0) for dpo, and by \N{MINUS SIGN}30.0 points (\N{MINUS SIGN}30.0 to \N{MINUS SIGN}30.0) for ppo.",
    ]


def test_conditions_are_looked_at_behind_their_means(tmp_path):
    """ppo is ahead under 0.1 in each of eight seeds, and as far behind under 0.4: on average they are alike."""
    found = over_noise(tmp_path, {0.1: {"ppo": 0.8, "dpo": 0.7}, 0.4: {"ppo": 0.5, "dpo": 0.6}})
    assert [(c.p, c.corrected, c.separated) for a in found for c in a.comparisons] == [(2 / 256, 1.0, False)] * 2
    assert across.sentences(found)[0] == "Taken by itself, no condition shows a best algorithm."


@pytest.mark.parametrize(
    ("metric", "bounds"),
    [
        ("gap_closed", (-math.inf, 1)), ("preference_accuracy", (0, 1)), ("preference_accuracy_logprob", (0, 1)),
        ("accuracy_by_margin/1", (0, 1)), ("win_rate", (0, 1)), ("reward", (-math.inf, math.inf)),
    ],
)  # fmt: skip
def test_intervals_end_where_scores_can_be(tmp_path, metric, bounds):
    assert possible(metric) == bounds
    for seed, score in enumerate((0.98, 0.97, 0.99, 0.98, 0.6)):
        folder = write_run(tmp_path / f"ppo-{seed}", "ppo", seed, score)
        summary = json.loads((folder / "summary.json").read_text())
        summary["metrics"][metric] = score
        (folder / "summary.json").write_text(json.dumps(summary))
    (a,) = analyse(named(find([tmp_path]).runs), Study(), metric)
    assert (a.entries[0].summary.interval[1] == 1) == (bounds[1] == 1)


def test_the_table_over_conditions(tmp_path):
    found = over_noise(tmp_path, {0.1: {"ppo": 0.8, "dpo": 0.7}, 0.4: {"ppo": 0.5}})
    table = across.table(found, averaged(found, Study(vary=["data.noise"])))
    assert table.columns == ["condition", "ppo", "dpo"]
    assert [[cell[:4] for cell in row] for row in table.rows] == [
        ["data", "80.9", "70.9"], ["data", "50.9", ""], ["mean", "65.9", ""], ["firs", "\N{MINUS SIGN}30.", ""],
    ]  # fmt: skip


def test_several_conditions_without_seeds_enough(tmp_path):
    for noise in (0.1, 0.2):
        for algorithm in ("ppo", "dpo"):
            write_run(tmp_path / f"{algorithm}-{noise}", algorithm, 0, 0.5, changes={"data.noise": noise})
    found = analyse(named(find([tmp_path]).runs, ["data.noise"]), Study(vary=["data.noise"]))
    assert averaged(found, Study()).headline == "No claim possible below 6 seeds."
    assert across.sentences(found)[0] == "Taken by itself, no condition shows a best algorithm: that needs 7 seeds."


def test_conditions_of_different_algorithms_have_no_mean(tmp_path):
    found = over_noise(tmp_path, {0.1: {"ppo": 0.8}, 0.4: {"dpo": 0.1}})
    assert averaged(found, Study()) is None
    assert prose.paragraphs("conditions_headline", found)[0].startswith("ppo: from 80.9 % under data.noise 0.1 to 10.9 %")


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
    runs[0].summary["metrics"] = {"bleu": 0.5}
    with pytest.raises(UserError, match="--metric"):
        analyse(runs, Study())


def test_numbers_are_written_as_they_are_read():
    assert [prose.p_text(p) for p in (1.0, 0.046875, 0.00001)] == ["p = 1", "p = 0.047", "p < 0.0001"]
    assert [prose.short(x) for x in (3.14, 999.9, 64_000, 2.5e12)] == ["3.14", "1k", "64k", "2.5T"]
    assert sections.ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
