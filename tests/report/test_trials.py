"""What the report says of tuning."""

from __future__ import annotations

from alignzoo.report.trials import ranges, sentences, trials
from tests.report.runs import CLIP, RATE, TUNED, outcome, trial


def test_how_it_was_tuned_and_what_it_cost() -> None:
    found = sentences([TUNED, outcome("dpo", *[trial(0.1, **{RATE: 1e-3, CLIP: 0.2})] * 3, chosen=0)])
    assert "3 trials each" in found[0] and "on seed 10000, which is none of theirs" in found[0]
    assert found[1].startswith("Tuning took 6 runs and cost 3k samples and 5 seconds, which is not in the costs")


def test_failures_and_edges_are_told() -> None:
    found = sentences([TUNED])
    assert found[2:] == [
        "ppo: one trial of 3 failed and counted as the worst (CUDA out of memory).",
        f"ppo: {RATE}=0.009876 lies at the end of its range (1e-05 to 0.01, log). The range may be too narrow.",
    ]
    broken = sentences([outcome("ppo", trial(None, "no", **{RATE: 1e-3, CLIP: 0.2}), chosen=None)])
    assert broken[2:] == ["ppo: all 1 trials failed (no), so it ran as configured."]


def test_every_trial_and_every_range_is_shown() -> None:
    assert trials([TUNED]).rows == [
        ["ppo, trial 0", "learning_rate=0.001, clip=0.2", "50.0 %", "as configured"],
        ["ppo, trial 1", "learning_rate=0.009876, clip=0.1", "81.2 %", "kept"],
        ["ppo, trial 2", "learning_rate=0.0001, clip=0.3", "failed: CUDA out of memory", ""],
    ]
    assert ranges([TUNED]).rows == [
        ["ppo", RATE, "1e-05 to 0.01, log", "0.009876"],
        ["ppo", CLIP, "0.05 to 0.5, log", "0.1"],
        ["ppo", "algorithm.kl.beta", "not searched: tied to ${data.beta}", "as configured"],
    ]


def test_each_tuning_seed_and_each_condition_is_shown() -> None:
    first = trial(0.5, **{RATE: 1e-3, CLIP: 0.2}) | {"scores": {"10000": 0.4, "10001": 0.6}}
    tuned = [outcome("ppo", first, chosen=0, condition="data.noise=0.1")]
    found = sentences(tuned)
    assert "seeds 10000 and 10001, which are none of theirs" in found[0]
    assert trials(tuned).rows[0] == [
        "ppo (data.noise=0.1), trial 0", "learning_rate=0.001, clip=0.2", "50.0 % (40.0 %, 60.0 %)", "as configured, kept",
    ]  # fmt: skip


def test_an_algorithm_without_a_range_is_told() -> None:
    found = sentences([TUNED, outcome("sft", trial(0.3), chosen=0, space={}, left_out={})])
    assert "3 trials each" in found[0]
    assert "sft: no setting is searched, so it ran as configured." in found
