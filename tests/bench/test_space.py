"""Where tuning looks: ranges, what is left out and why, and the values that are tried."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import pytest

from alignzoo import config
from alignzoo.bench import space as spaces
from alignzoo.bench.space import Dimension, Space, by_label, read, space
from alignzoo.bench.suite import flat_ranges
from alignzoo.settings import Search, UserError, searches

RATE = Dimension("trainer.learning_rate", Search(1e-5, 1e-1, log=True), 1e-3)
CLIP = Dimension("algorithm.clip", Search(0.1, 0.5), 0.2)
EPOCHS = Dimension("algorithm.epochs", Search(1, 4), 2, (True, False))


class Kind(Enum):
    plain = "p"
    fancy = "f"


def exact(algorithm: str, *overrides: str) -> Any:
    return config.compose(["experiment=exact", f"algorithm={algorithm}", *overrides])


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"low": 1}, {"low": 2, "high": 1}, {"low": 1, "high": 1}, {"low": 0, "high": 1, "log": True}, {"options": (1,)},
        {"low": 0, "high": 1, "options": (1, 2)}, {"options": (1, 2), "log": True}, {"low": float("nan"), "high": 1},
    ],
)  # fmt: skip
def test_a_range_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Search(**wrong)


def test_what_a_range_holds_and_how_it_is_said() -> None:
    assert [x in Search(1, 2) for x in (0.9, 1, 1.5, 2, 2.1, None, "1")] == [False, True, True, True, False, False, False]
    assert (None in Search(options=(None, 1)), 2 in Search(options=(None, 1))) == (True, False)
    assert str(Search(1e-5, 1e-2, log=True)) == "1e-05 to 0.01, log"
    assert str(Search(options=(None, Kind.fancy, 3, True))) == "any of null, fancy, 3, true"


def test_the_settings_of_nested_dataclasses_are_found_by_their_dotted_keys() -> None:
    found = dict(searches(type(config.instantiate(exact("ppo")).algorithm)))
    assert found["kl.beta"] == Search(0.01, 1.0, log=True) and found["epochs"] == Search(1, 8)
    assert "discount" not in found


def test_what_is_drawn_is_in_the_range_and_can_be_typed_again() -> None:
    layers = Dimension("layers", Search(1, 127, log=True), 8)
    options = Dimension("options", Search(options=(None, 0.5, Kind.fancy)), None)
    trials = Space([RATE, CLIP, EPOCHS, layers, options]).trials(33, 10_000, "ppo")[1:]
    for d, kind in ((RATE, float), (CLIP, float), (EPOCHS, int), (layers, int)):
        assert all(isinstance(trial[d.key], kind) and trial[d.key] in d.search for trial in trials)
    assert all(float(f"{trial[RATE.key]:.4g}") == trial[RATE.key] for trial in trials)
    assert np.bincount([trial[EPOCHS.key] for trial in trials])[1:].tolist() == [8, 8, 8, 8]
    low = sum(trial["layers"] <= 11 for trial in trials)
    assert 14 <= low <= 18, "about half lie below sqrt(1 * 127) = 11.3"
    assert {trial["options"] for trial in trials} == {None, 0.5, "fancy"}


def test_a_rounded_value_stays_in_the_range() -> None:
    narrow = Dimension("narrow", Search(0.12344, 0.2), 0.15)
    assert [narrow.readable(x) for x in (0.123441, 0.15, 0.1500049)] == [0.12344, 0.15, 0.15]


def test_every_decade_of_a_range_in_logarithms_gets_as_many_trials() -> None:
    rates = [trial[RATE.key] for trial in Space([RATE, CLIP]).trials(17, 10_000, "ppo")[1:]]
    per_decade = np.bincount(np.floor(np.log10(rates)).astype(int) + 5)
    assert per_decade.tolist() == [4, 4, 4, 4]


def test_and_every_part_of_a_plain_range() -> None:
    clips = [trial[CLIP.key] for trial in Space([RATE, CLIP]).trials(17, 10_000, "ppo")[1:]]
    assert np.histogram(clips, bins=4, range=(0.1, 0.5))[0].tolist() == [4, 4, 4, 4]


def test_the_first_trial_is_what_was_configured_and_more_trials_keep_those_there_were() -> None:
    found = Space([RATE, CLIP, EPOCHS])
    trials = found.trials(12, 10_000, "ppo")
    assert (len(trials), trials[0]) == (12, {})
    assert all(list(trial) == [RATE.key, CLIP.key, EPOCHS.key] for trial in trials[1:])
    assert found.trials(5, 10_000, "ppo") == trials[:5]
    assert len({str(trial) for trial in trials}) == 12


def test_trials_are_the_same_again_and_others_for_another_algorithm_or_seed() -> None:
    found = Space([RATE, CLIP])
    trials = found.trials(4, 10_000, "ppo")
    assert trials == found.trials(4, 10_000, "ppo")
    assert trials[1:] != found.trials(4, 10_000, "dpo")[1:] and trials[1:] != found.trials(4, 10_001, "ppo")[1:]


def test_nothing_to_search_is_one_trial() -> None:
    assert Space().trials(8, 10_000, "sft") == [{}]
    assert Space([RATE]).trials(1, 10_000, "sft") == [{}]


def test_a_value_near_an_end_is_flagged_unless_the_setting_itself_ends_there() -> None:
    assert [RATE.at_an_end(rate) for rate in (1e-5, 1.5e-5, 1.6e-5, 1e-3, 6e-2, 7e-2, 1e-1)] == [
        True, True, False, False, False, True, True,
    ]  # fmt: skip
    assert [EPOCHS.at_an_end(n) for n in (1, 2, 3, 4)] == [False, False, False, True]
    decay = Dimension("algorithm.decay", Search(0.0, 1.0), 0.5, (False, True))
    assert [decay.at_an_end(x) for x in (0.0, 0.5, 1.0)] == [True, False, False]
    found = Space([RATE, CLIP, Dimension("k", Search(options=(1, 2)), 1)])
    assert found.edges({RATE.key: 1e-1, CLIP.key: 0.3, "k": 1}) == [RATE.key]


def test_where_each_algorithm_is_searched_on_the_exact_task() -> None:
    found = {name: space(exact(name), {}, {"algorithm.kl": "tied"}) for name in ("ppo", "distill", "sft")}
    assert [d.key for d in found["sft"].dimensions] == ["trainer.learning_rate"]
    assert [d.key for d in found["distill"].dimensions] == [
        "algorithm.beta", "algorithm.temperature", "algorithm.lam", "trainer.learning_rate",
    ]  # fmt: skip
    assert found["ppo"].left_out == {"algorithm.kl.beta": "tied", "algorithm.kl.horizon": "tied"}
    ends = {d.key: d.ends for d in found["ppo"].dimensions}
    assert ends["algorithm.gae_lambda"] == (False, True), "above 1 it is refused"
    assert ends["algorithm.epochs"] == (True, False), "below 1 it is refused"
    assert ends["algorithm.clip"] == (False, False)


def test_what_has_no_meaning_beside_the_other_settings_is_not_searched() -> None:
    assert space(exact("ppo"), {}, {}).left_out == {"algorithm.kl.horizon": "without effect beside the other settings"}
    assert space(exact("ppo_adaptive"), {}, {}).left_out == {}
    found = space(exact("seqkd"), {}, {})
    assert [d.key for d in found.dimensions] == ["trainer.learning_rate"]
    assert set(found.left_out) == {"algorithm.beta", "algorithm.temperature", "algorithm.lam"}


def test_what_was_asked_for_comes_before_what_is_declared() -> None:
    asked = {"algorithm.beta": Search(0.5, 2.0), "trainer.learning_rate": None, "rollout.samples": Search(2, 32, log=True)}
    found = space(exact("reinforce"), asked, {"algorithm.beta": "tied"})
    assert [(d.key, str(d.search)) for d in found.dimensions] == [
        ("algorithm.beta", "0.5 to 2"), ("rollout.samples", "2 to 32, log"),
    ]  # fmt: skip
    assert found.left_out["trainer.learning_rate"] == "not to be searched"


def test_a_start_out_of_the_range_is_refused_with_a_remedy() -> None:
    with pytest.raises(
        UserError, match=r"trainer\.learning_rate=0\.5 is what tuning would start from.*1e-05 to 0\.01.*bench\.search"
    ):
        space(exact("sft", "trainer.learning_rate=0.5"), {}, {})


def test_an_asked_range_that_the_setting_refuses() -> None:
    with pytest.raises(UserError, match=r"the range 0\.5 to 2 of algorithm\.lam: algorithm\.lam=2\.0 is out of range"):
        space(exact("distill"), {"algorithm.lam": Search(0.5, 2)}, {})


def test_ranges_as_they_are_written() -> None:
    log = Search(1e-5, 1e-2, log=True)
    assert read("k", [1, 2], None) == Search(1, 2)
    assert read("k", [1e-3, 1e-2], log) == Search(1e-3, 1e-2, log=True)
    assert read("k", {"low": 1, "high": 2, "log": True}, None) == Search(1, 2, log=True)
    assert read("k", {"options": [1, 2]}, log) == Search(options=(1, 2))
    assert read("k", None, log) is None
    for wrong in ([1], [2, 1], 3, {"low": 1}, {"options": [1]}, ["a", 2]):
        with pytest.raises(UserError, match=r"of k can't be read .* write \[low,high\]"):
            read("k", wrong, None)


def test_ranges_of_every_algorithm_and_of_one() -> None:
    node = {
        "trainer.learning_rate": [1e-4, 1e-2], "ppo": {"algorithm": {"clip": [0.1, 0.3]}}, "trainer": {"weight_decay": None},
        "dpo": {"algorithm.beta": {"low": 1, "high": 2}},
    }  # fmt: skip
    everyone, single = by_label(flat_ranges(node), ["ppo", "dpo"])
    assert everyone == {"trainer.learning_rate": [1e-4, 1e-2], "trainer.weight_decay": None}
    assert single == {"ppo": {"algorithm.clip": [0.1, 0.3]}, "dpo": {"algorithm.beta": {"low": 1, "high": 2}}}


def test_which_settings_there_are() -> None:
    cfg = exact("ppo")
    there = ["algorithm.kl.beta", "trainer.learning_rate", "algorithm.value_clip"]
    assert all(spaces.has(cfg, key) for key in there)
    assert not any(spaces.has(cfg, key) for key in ("algorithm.clp", "seed", "algorithm.clip.x", "nothing.at.all"))


def test_settings_tied_to_others_are_known() -> None:
    assert config.tied(["experiment=exact", "algorithm=ppo", "trainer.warmup_steps=${trainer.batch}"]) == {
        "algorithm.kl.beta": "${data.beta}", "trainer.warmup_steps": "${trainer.batch}",
        "generation.max_new_tokens": "${data.length}", "making.seed": "${seed}",
    }  # fmt: skip
