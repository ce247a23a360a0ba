"""People as a reward: a run waits for them, and learns what it would from a function that says the same."""

import json
import os
import signal
from pathlib import Path

import pytest

from alignzoo.cli import main as cli
from alignzoo.common.noise import Noise
from alignzoo.common.signals import caught
from alignzoo.label import requests
from alignzoo.rewards.human import Human
from alignzoo.settings import UserError
from tests.label.people import Browsing, GoesHomeError, Person
from tests.limits import HANG

RATERS = "def ratings(completions):\n    return [float(1 + len(text.encode()) % 5) for text in completions]\n"
SMALL = [
    "algorithm=rloo", "data=jsonl", "data.heldout=0.25", "generation.max_new_tokens=4", "trainer.max_steps=3",
    "trainer.batch=4", "rollout.prompts=2", "rollout.samples=2", "trainer.eval_steps=0", "trainer.eval_prompts=2",
    "trainer.logging_steps=1", "trainer.save_steps=1",
]  # fmt: skip


def rating(one):
    return 1 + len(one.completions[0].encode()) % 5


@pytest.fixture
def small(tmp_path, monkeypatch):
    """small(NAME, ...): the command line of a run of that name."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"{n} and "}) + "\n" for n in range(8)))
    (tmp_path / "raters.py").write_text(RATERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda name, *more: ["train", f"run_dir={name}", "data.path=rows.jsonl", *SMALL, *more]


def learned(folder):
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in ("loss", "reward") if name in row} for row in rows if "loss" in row]


@pytest.fixture(params=[Person, Browsing])
def anybody(request):
    """People who answer in files, or on the page."""
    if request.param is Browsing:
        for package in ("starlette", "uvicorn"):
            pytest.importorskip(package, reason="the extra `serve` is not installed")
    return request.param


def test_a_run_learns_from_people_what_it_would_from_a_function(small, tmp_path, capsys, anybody):
    with anybody(tmp_path / "people.labels", rating) as person:
        assert cli.main(small("people", "reward=human", "reward.poll=0.01")) == 0
    assert cli.main(small("function", "reward=function", "reward.path=raters:ratings")) == 0
    assert learned("people") == learned("function")
    assert len(learned("people")) == 3 == len(person.seen)
    evaluated = json.loads(Path("people/summary.json").read_text())["metrics"]
    assert "reward" not in evaluated or evaluated["reward"] >= 1  # nobody is asked about these
    told = capsys.readouterr().err
    assert "wait for people: alignzoo label people.labels/request-0001-" in told


def test_ctrl_c_leaves_a_run_that_goes_on_with_the_open_request(small, tmp_path):
    folder = tmp_path / "people.labels"

    def interrupt_at_the_second(one):
        if len(requests.in_folder(folder)) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            raise GoesHomeError
        return rating(one)

    with Person(folder, interrupt_at_the_second):
        assert cli.main(small("people", "reward=human", "reward.poll=0.01")) == 130
    assert not Path("people/summary.json").exists()
    before = requests.in_folder(folder)
    assert len(before) == 2
    with Person(folder, rating) as person:
        person.seen = before[:1]
        assert cli.main(["train", "resume=people"]) == 0
    assert requests.in_folder(folder)[:2] == before
    assert len(requests.in_folder(folder)) == 3
    with Person(tmp_path / "whole.labels", rating):
        assert cli.main(small("whole", "reward=human", "reward.poll=0.01")) == 0
    assert learned("people") == learned("whole")


def test_before_the_first_checkpoint_the_same_command_asks_nobody_again(small, tmp_path):
    folder, command = tmp_path / "people.labels", small("people", "reward=human", "reward.poll=0.01", "trainer.save_steps=0")

    def interrupt(one):
        os.kill(os.getpid(), signal.SIGINT)
        raise GoesHomeError

    with Person(folder, interrupt):
        assert cli.main(command) == 130
    (request,) = requests.in_folder(folder)
    items = requests.read(request).items
    requests.answers_of(request).write_text("".join(json.dumps({"id": one.id, "answer": 3}) + "\n" for one in items))
    with Person(folder, rating) as person:
        person.seen = [request]
        assert cli.main(command) == 0
    assert len(requests.in_folder(folder)) == 3


def made(context, tmp_path, **settings):
    reward = Human(folder=str(tmp_path / "asked"), poll=0.005, **settings)
    reward.setup(context)
    return reward


def test_scores_of_completions(completions, context, tmp_path):
    ratings = {"the cat": 2.5, "a": None, "The the dog": 5}
    with Person(tmp_path / "asked", lambda one: ratings[one.completions[0]]):
        scores = made(context, tmp_path, timeout=HANG)(completions)
    assert scores.total.tolist() == [2.5, 0.0, 5.0]
    assert scores.usable.tolist() == [True, False, True]
    assert not scores.failed


def test_what_nobody_answers_in_time_is_failed(completions, context, tmp_path):
    scores = made(context, tmp_path, timeout=0.02)(completions)
    assert scores.failed == dict.fromkeys(range(3), "got no answer within 0.02 s")


def test_ctrl_c_in_the_moment_of_asking_is_heard(completions, context, tmp_path, monkeypatch):
    """A run remembers a signal and goes on; nobody answers any more."""
    write = requests.write

    def interrupted(path, request):
        write(path, request)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(requests, "write", interrupted)
    with caught(lambda number: None), pytest.raises(KeyboardInterrupt):
        made(context, tmp_path, timeout=1.0)(completions)


def test_evaluations_ask_nobody_unless_they_should(completions, context, tmp_path):
    context.shared = type("Shared", (), {"noise": Noise(0)})()
    with context.shared.noise.during("evaluation", 0):
        scores = made(context, tmp_path, timeout=0.02)(completions)
        assert not scores.usable.any() and not scores.failed and not (tmp_path / "asked").exists()
        assert len(made(context, tmp_path, timeout=0.02, evaluations=True)(completions).failed) == 3


def test_beside_the_run_unless_told(context, tmp_path):
    context.folder = tmp_path / "runs" / "mine"
    reward = Human(timeout=0.01)
    reward.setup(context)
    assert reward._asker.folder == tmp_path / "runs" / "mine.labels"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 5}, "reward.low=5.* must be below reward.high=5"),
        ({"raters": 0}, "reward.raters=0 .*must be >= 1"),
        ({"poll": 0}, "reward.poll=0 .*must be > 0"),
        ({"timeout": -1}, "reward.timeout=-1 .*must be >= 0"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Human(**settings)


def test_people_label_what_is_made_and_what_refreshes_a_reward_model(small, tmp_path, anybody):
    """Two rollouts are asked about: the gold that is logged is the mean of what people said of each."""
    few = ["gold=human", "gold.poll=0.01", "trainer.max_steps=2", "trainer.save_steps=0"]
    with anybody(tmp_path / "scorer.labels", rating):
        assert cli.main(small("scorer", "algorithm=bradley_terry", "making=pairs", *few)) == 0
    refreshed = ["reward=refreshed", "reward.path=scorer/model", "reward.every=1", "reward.updates=1"]
    with anybody(tmp_path / "policy.labels", rating):
        assert cli.main(small("policy", *refreshed, *few)) == 0
    rows = [json.loads(line) for line in Path("policy/metrics.jsonl").read_text().splitlines()]
    told = [row["reward/gold"] for row in rows if "reward/gold" in row]
    asked = [requests.answers(request, pytest.fail) for request in requests.in_folder(tmp_path / "policy.labels")]
    means = [sum(one.answer for one in said) / len(said) for said in asked]
    assert len(means) == 2
    assert told  # a refresh without two different labels of a prompt has nothing to learn
    assert set(told) <= set(means)
