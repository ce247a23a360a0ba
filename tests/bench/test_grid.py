"""The grid: which runs, where, with which settings, and whose word counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignzoo import config
from alignzoo.bench.grid import BenchRun, name_of, plan
from alignzoo.bench.request import parse
from alignzoo.config.quoting import written
from alignzoo.settings import UserError


def runs(*argv: str) -> list[BenchRun]:
    return plan(parse(["folder=here", *argv]))


def test_each_run_has_its_algorithm_its_settings_and_its_folder() -> None:
    found = runs("algorithms=[dpo,reinforce]", "seeds=2")
    assert [str(r.folder) for r in found] == ["here/dpo-0", "here/reinforce-0", "here/dpo-1", "here/reinforce-1"]
    assert [(r.config.choices.algorithm, r.config.seed) for r in found] == [
        ("dpo", 0), ("reinforce", 0), ("dpo", 1), ("reinforce", 1),
    ]  # fmt: skip
    assert {r.config.algorithm.beta for r in found} == {found[0].config.data.beta}, "the task's, not the published"
    assert {r.config.label for r in found} == {None}


def test_an_algorithm_may_be_there_twice() -> None:
    plain, half = runs("algorithms=[reinforce,half:reinforce]", "seeds=1", "bench.override.half=[trainer.learning_rate=1e-3]")
    assert (half.folder.name, half.config.choices.algorithm, half.config.label) == ("half-0", "reinforce", "half")
    assert (plain.config.trainer.learning_rate, half.config.trainer.learning_rate) == (2e-3, 1e-3)


def test_the_seed_has_a_place_in_what_a_suite_says(tmp_path: Path) -> None:
    """So that a run's stages can have seeds that differ from it and by it."""
    path = tmp_path / "seeded.yaml"
    path.write_text("algorithms: [dpo]\nseeds: [0, 7]\noverrides: ['data.task_seed=1{seed}']\n")
    assert [r.config.data.task_seed for r in runs(f"suite={path}")] == [10, 17]


def test_whose_word_counts(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text(
        "algorithms: [reinforce, dpo]\n"
        "overrides: [experiment=exact, trainer.batch=8, trainer.max_steps=8, trainer.logging_steps=8]\n"
        "override: {dpo: [trainer.batch=16, trainer.max_steps=16]}\n"
    )
    reinforce, dpo = runs(f"suite={path}", "trainer.max_steps=32", "bench.override.dpo=[trainer.logging_steps=64]")
    assert [(r.config.trainer.batch, r.config.trainer.max_steps, r.config.trainer.logging_steps) for r in (reinforce, dpo)] == [
        (8, 32, 8), (16, 32, 64),
    ]  # fmt: skip


def test_every_combination_of_what_varies() -> None:
    found = runs("algorithms=[dpo]", "seeds=1", "suite.vary.data.vocabulary=[4,6]", "suite.sweep.data.beta=[0.5,1]")
    assert [str(r.folder) for r in found] == [
        f"here/data.vocabulary={v},data.beta={b}/dpo-0" for v, b in [(4, 0.5), (4, 1), (6, 0.5), (6, 1)]
    ]
    assert [(r.config.data.vocabulary, r.config.algorithm.beta) for r in found] == [(4, 0.5), (4, 1.0), (6, 0.5), (6, 1.0)]


def test_one_setting_at_a_time() -> None:
    """The first value of each is where the others stay; what is swept is swept everywhere."""
    found = runs(
        "algorithms=[dpo]", "seeds=1", "suite.vary.data.label_flips=[0,0.1,0.4]", "suite.vary.data.reward_noise=[0,2]",
        "suite.sweep.data.beta=[0.5,1]", "suite.crossed=false",
    )  # fmt: skip
    assert [(r.point["data.label_flips"], r.point["data.reward_noise"], r.point["data.beta"]) for r in found] == [
        (flips, noise, beta) for flips, noise in [(0, 0), (0, 2), (0.1, 0), (0.4, 0)] for beta in (0.5, 1)
    ]


def test_a_name_made_from_values_is_one_folder_and_its_own() -> None:
    assert name_of({"a.b": 0.5, "c": "x-y"}) == "a.b=0.5,c=x-y"
    first, second = name_of({"path": "a/b"}), name_of({"path": "a_b"})
    assert first.startswith("path=a_b-") and second == "path=a_b"
    assert name_of({"path": "x" * 200}) != name_of({"path": "x" * 201}) and len(name_of({"path": "x" * 200})) < 100


@pytest.mark.parametrize("value", ["a b", "it's", "[1]", "a,b", "null", "x=1", "1e3", "a:b", "\\", "true", "", "a\\'b", "-inf"])
def test_a_value_is_written_so_that_it_arrives_as_it_is(value: Any) -> None:
    assert config.value_of(config.parse([f"model.attention={written(value)}"]), "model.attention") == value


def test_a_text_that_looks_like_more_varies_as_a_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.yaml"
    path.write_text(json.dumps({"algorithms": ["dpo"], "vary": {"model.attention": ["a b=[1]"]}}))
    (only,) = runs(f"suite={path}", "data=exact")
    assert (only.config.model.attention, only.config.run_dir) == ("a b=[1]", str(only.folder))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["algorithms=[dpo,doo]"], "no algorithm 'doo'"),
        (["bench.override.dpo=[algorithm.bta=1]"], "no key 'algorithm.bta'. Did you mean 'beta'"),
        (["trainer.batch=0"], "trainer.batch=0 is out of range"),
        (["suite.vary.data.beta=[1]", "data.beta=2"], r"data.beta=2: the suite has several values of it"),
        (["suite.vary.data.beta=[1]", "bench.override.dpo=[data.beta=2]"], r"data.beta=2: the suite has several values of it"),
        (["suite.vary.data.beta=[1]", "suite.sweep.data.beta=[1]"], "data.beta is in vary and in sweep"),
        (["suite.vary.data.beta=[1,1]"], "data.beta has the value 1 twice"),
        (["suite.vary.reference=[copy,none]"], "reference is a group"),
        (["trainer.max_steps=3"], "trainer.max_steps=3: ppo ends after 100000 samples, whatever its steps"),
        (["budget.amount=100"], "budget.amount=100 samples can't be met: one rollout of ppo takes 256"),
        (["bench.override.dpo=[trainer.micro_batch=7]"], "^dpo: trainer.micro_batch=7 does not divide trainer.batch="),
        (["bench.override.dpo=[data.beta=2]"], r"(?s)not comparable with .*dpo-0: another task \(data.beta=2"),
        (["algorithms=[dpo]", "reference=none"], "dpo needs a reference model, and reference=none"),
    ],
)
def test_what_is_wrong_with_one_run_is_found_before_any(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        runs("seeds=1", *argv)
