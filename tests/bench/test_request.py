"""What is asked for: suites, their keys, what the user says on top, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.bench.request import parse, take_overrides
from alignzoo.bench.suite import grid, labelled, seeds_of
from alignzoo.cli import main as cli
from alignzoo.config.quoting import split_list
from alignzoo.settings import UserError

MINE = """\
title: Mine
algorithms: [reinforce, {half: reinforce}]
seeds: [3, 4]
overrides: [experiment=exact, "data.vocabulary=4"]
override: {half: [trainer.learning_rate=5e-4]}
vary: {data.beta: [0.1, 0.5]}
planned: [[reinforce, half]]
threshold: 0.8
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return f"suite={path}"


def test_without_a_task_it_is_the_exact_one() -> None:
    made = parse(["trainer.max_steps=3"])
    assert (made.suite_name, made.suite.overrides[0], made.overrides) == ("exact", "experiment=exact", ["trainer.max_steps=3"])
    assert (made.bench.threads, made.folder, made.jobs) == (1, Path("runs/bench"), None)
    assert set(made.algorithms) == {"dpo", "ppo", "distill", "reinforce"}
    assert made.command == ["alignzoo", "bench", "trainer.max_steps=3"]


@pytest.mark.parametrize("task", ["data=jsonl", "experiment=truthfulqa"])
def test_a_task_of_ones_own_takes_nothing_of_a_suite(task: str) -> None:
    made = parse([task, "data.path='a b.jsonl'", "algorithms=[sft,dpo]", "seeds=3", "folder=here", "jobs=1"])
    assert (made.suite_name, made.suite.overrides, made.overrides) == ("", [], [task, "data.path='a b.jsonl'"])
    assert (made.algorithms, made.seeds, made.jobs) == ({"sft": "sft", "dpo": "dpo"}, [0, 1, 2], 1)
    assert made.folder == Path("here")


def test_a_suite_of_ones_own_is_a_file(mine: str) -> None:
    made = parse([mine])
    assert (made.suite_name, made.algorithms, made.seeds) == ("mine", {"reinforce": "reinforce", "half": "reinforce"}, [3, 4])
    assert (made.suite.vary, made.suite.sweep, made.suite.threshold) == ({"data.beta": [0.1, 0.5]}, {}, 0.8)
    assert made.suite.override == {"half": ["trainer.learning_rate=5e-4"]}


def test_a_suite_of_ones_own_may_be_in_the_search_path_and_build_on_another(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "suite"
    folder.mkdir(parents=True)
    (folder / "short.yaml").write_text("defaults: [exact, _self_]\nseeds: 2\n")
    made = parse(["suite=short", f"hydra.searchpath=[file://{tmp_path}/conf]"])
    assert (made.suite_name, made.seeds, made.suite.overrides[0]) == ("short", [0, 1], "experiment=exact")
    assert made.overrides == [f"hydra.searchpath=[file://{tmp_path}/conf]"], "for the runs too"


def test_the_user_has_the_last_word(mine: str) -> None:
    made = parse([mine, "seeds=1", "algorithms=half:reinforce", "suite.vary.data.beta=[1]", "suite.threshold=0.5"])
    assert (made.seeds, made.algorithms, made.suite.vary, made.suite.threshold) == (
        [0],
        {"half": "reinforce"},
        {"data.beta": [1]},
        0.5,
    )
    assert parse(["suite.sweep.data.beta=[0.1,1]"]).suite.sweep == {"data.beta": [0.1, 1]}


def test_overrides_of_one() -> None:
    argv = ["bench.override.ppo=[algorithm.kl.beta=0.2,trainer.batch=8]", "trainer.max_steps=3"]
    assert parse(argv).bench.override == {"ppo": ["algorithm.kl.beta=0.2", "trainer.batch=8"]}
    assert take_overrides([*argv, "bench.override.ppo=seed=3"])[0]["ppo"][-1] == "seed=3"


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("[a=1,b=[1,2],c={x:1,y:2}]", ["a=1", "b=[1,2]", "c={x:1,y:2}"]),
        ("a=[1,2]", ["a=[1,2]"]),
        ("[a='x,y', \"b=1\"]", ["a='x,y'", "b=1"]),
        ("[a=']', b=1]", ["a=']'", "b=1"]),
        ("[]", []),
    ],
)
def test_a_list_of_overrides_is_cut_at_its_own_commas(text: str, elements: list[str]) -> None:
    assert split_list(text) == elements


def test_labels() -> None:
    assert labelled(["ppo", "half:ppo", {"twice": "ppo"}]) == {"ppo": "ppo", "half": "ppo", "twice": "ppo"}
    assert labelled("dpo") == {"dpo": "dpo"}


def test_grids_may_be_nested() -> None:
    assert grid({"data": {"noise": [0, 1]}, "data.beta": [2]}, "vary") == {"data.noise": [0, 1], "data.beta": [2]}


def test_seeds() -> None:
    assert (seeds_of(3), seeds_of([4, 7, 4])) == ([0, 1, 2], [4, 7])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["seeds=0"], r"seeds=0 is out of range"),
        (["seeds=[]"], r"seeds=\[\] is out of range"),
        (["seeds=many"], r"seeds=many is neither a whole number nor a list"),
        (["jobs=0"], r"jobs=0 is out of range"),
        (["algorithms=[]"], r"algorithms=\[\] is out of range"),
        (["algorithms=[ppo,ppo]"], r"'ppo' is there twice: give one another name, as in ppo_2:ppo"),
        (["algorithms=['a b:ppo']"], r"'a b' is no label"),
        (["algorithm=ppo"], r"bench sets algorithm= for each run: give algorithms="),
        (["run_dir=x"], r"bench sets run_dir= for each run: give folder="),
        (["label=x"], r"bench sets label= for each run: give LABEL:NAME"),
        (["suite=exat"], r"no suite 'exat'. Did you mean 'exact'"),
        (["suite=nowhere.yaml"], r"suite=nowhere.yaml: there is no such file"),
        (["suite.treshold=0.5"], r"no key 'suite.treshold'. Did you mean 'threshold'"),
        (["suite.threshold=2"], r"suite.threshold=2.0 is out of range"),
        (["suite.planned=[dpo]"], r"suite.planned=\['dpo'\] is no list of pairs"),
        (["suite.planned=[[dpo,pop]]"], r"this suite has no 'pop'. Did you mean 'ppo'"),
        (["suite.vary.data.beta=1"], r"suite.vary.data.beta=1 is no list of values"),
        (["bench.threads=0"], r"bench.threads=0 is out of range"),
        (["bench.thread=2"], r"no key 'bench.thread'. Did you mean 'threads'"),
        (["bench.overide.ppo=[seed=1]"], r"no key 'bench.overide'. Did you mean 'override'"),
        (["bench.override.pop=[seed=1]"], r"bench.override.pop: this bench has no 'pop'. Did you mean 'ppo'"),
        (["bench.override.ppo=[]"], r"can't read 'bench.override.ppo=\[\]': write bench.override.LABEL="),
        (["trainer.batch=1,2"], r"for several values write suite.vary.trainer.batch="),
        (["hydra/launcher=jobib"], r"no hydra/launcher 'jobib'. Did you mean 'joblib'"),
        (["hydra/launcher=joblib", "jobs=2"], r"jobs=2 is for bench's own pool"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assert parse(argv).suite.vary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algoritms: [ppo]", "no key 'suite.algoritms'. Did you mean 'algorithms'"),
        ("override: {pop: [seed=1]}", "suite.override.pop: this suite has no 'pop'"),
        ("vary: {data.beta: 3}", "suite.vary.data.beta=3 is no list of values"),
        ("seeds: 0", "seeds=0 is out of range"),
        ("a: [", "can't be read"),
    ],
)
def test_a_suite_that_says_nonsense(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        assert parse([f"suite={path}"]).suite.vary


def test_a_file_does_not_hide_behind_a_name_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "exact.yaml"
    path.write_text("seeds: 1\n")
    with pytest.raises(UserError, match=r"there is a suite 'exact' already\. Give the file another name"):
        parse([f"suite={path}"])


def test_a_launcher_that_is_not_installed_comes_with_an_extra() -> None:
    with pytest.raises(
        UserError, match=r"no hydra/launcher 'submitit_local'.*\nTo have it: pip install 'alignzoo\[submitit\]'"
    ):
        parse(["hydra/launcher=submitit_local"])


@pytest.mark.parametrize("argv", [["bench", "--help"], ["list", "suite"]])
def test_suites_are_shown(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert "exact  " in capsys.readouterr().out


def test_a_mistake_ends_with_2_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "seeds=0"]) == 2
    assert capsys.readouterr().err == "alignzoo: seeds=0 is out of range: must be a number >= 1, or a list of seeds\n"
