"""Scorers and judges behind an address, against a server of this process."""

import contextlib
import math
import socket
import threading
import time
from itertools import chain, repeat
from types import SimpleNamespace

import pytest

from alignzoo.rewards import remote
from alignzoo.rewards.checked import Checked
from alignzoo.rewards.judge import Judge
from alignzoo.rewards.remote import Http
from alignzoo.settings import OnError, Scoring, UserError
from tests.rewards.servers import serving

QUICK = {"wait": 0.0, "timeout": 5.0}
TEXTS = ["the cat", "a", "The the dog"]


def lengths(message):
    return {"scores": [len(text) for text in message["completions"]]}


def reply(text):
    return {"choices": [{"message": {"content": text}}]}


def test_a_scorer_gets_prompts_completions_and_columns_in_batches(completions, source):
    with serving(lengths) as server:
        scores = Http(url=server.url, batch=2, columns=["topic"], **QUICK).resolve(source)(completions)
    assert scores.total.tolist() == [7.0, 1.0, 11.0]
    assert scores.usable.all()
    assert scores.failed == {}
    assert server.messages == [
        {"prompts": ["p", "qq"], "completions": TEXTS[:2], "columns": {"topic": ["x", None]}},
        {"prompts": ["qq"], "completions": TEXTS[2:], "columns": {"topic": [None]}},
    ]
    assert "Authorization" not in server.headers[0]


def test_it_may_have_no_score_and_be_told_who_asks(completions, monkeypatch, source):
    monkeypatch.setenv("SCORER_TOKEN", "secret")
    with serving(lambda _: {"scores": [1, None, 2.5]}) as server:
        scores = Http(url=server.url, token="SCORER_TOKEN", **QUICK).resolve(source)(completions)
    assert scores.usable.tolist() == [True, False, True]
    assert scores.total.tolist() == [1.0, 0.0, 2.5]
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_busy_server_is_asked_again(completions):
    answers = iter([503, 429, {"scores": [1, 2, 3]}])
    with serving(lambda _: next(answers)) as server:
        scores = Http(url=server.url, retries=2, **QUICK)(completions)
    assert scores.total.tolist() == [1.0, 2.0, 3.0]
    assert len(server.messages) == 3


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        (503, 3, "answered 503 Service Unavailable, asked 3 times"),
        (404, 1, "answered 404 Not Found"),
        (302, 1, "answered 302 Found"),
        (b"<html>", 1, "answered with what is no JSON"),
        ({"scores": [1.0]}, 1, r'must answer {"scores": \[...\]} with 3 of them, not'),
        ({"score": 1}, 1, "with 3 of them, not {'score': 1}"),
        ({"scores": [1, "2", 3]}, 1, "answered '2': a score must be a number, or null"),
        ({"scores": [1, True, 3]}, 1, "answered True: a score must be a number, or null"),
    ],
)
def test_what_went_wrong_is_said_of_each_completion(completions, answer, asked, told):
    with serving(lambda _: answer) as server:
        scores = Http(url=server.url, retries=2, **QUICK)(completions)
    assert not scores.usable.any()
    assert list(scores.failed) == [0, 1, 2]
    assert len(server.messages) == asked
    with pytest.raises(UserError, match=told):
        raise UserError(scores.failed[0])


def test_one_request_that_fails_costs_only_its_own(completions):
    with serving(lambda message: 400 if "a" in message["completions"] else lengths(message)) as server:
        scores = Http(url=server.url, batch=1, **QUICK)(completions)
    assert scores.usable.tolist() == [True, False, True]
    assert list(scores.failed) == [1]
    assert scores.total.tolist() == [7.0, 0.0, 11.0]


def test_a_slow_answer_is_not_waited_for(completions):
    with serving(lambda _: TimeoutError) as server:
        scores = Http(url=server.url, timeout=0.05, retries=1, wait=0.0)(completions)
    assert scores.failed[0].endswith(f"{server.url} took longer than 0.05 s, asked 2 times")


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_that_drips_is_not_waited_for(completions, monkeypatch, late):
    """Each byte comes in time, the whole never does: in the head as in the body. What was read by then is no answer
    either, where the reader sees the time pass before the one who waits for it does."""
    stop = threading.Event()

    def drip(listening, head):
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(head)
            while not stop.wait(0.01):
                connection.sendall(b" ")

    for head in (b"HTTP/1.1 200 OK\r\n\r\n",) if late else (b"HTTP/1.1 200 OK\r\nX-A:", b"HTTP/1.1 200 OK\r\n\r\n"):
        clock = chain([0.0], repeat(900.0)) if late else iter(time.monotonic, None)
        monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=clock.__next__, sleep=time.sleep))
        seconds = 900 if late else 0.3
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=drip, args=(listening, head), daemon=True).start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            scores = Http(url=url, timeout=seconds, retries=0)(completions)
        assert scores.failed[0].endswith(f"took longer than {seconds:g} s")
    stop.set()


def test_nobody_at_the_address_ends_the_run_or_leaves_no_scores(completions):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        reward = Http(url=f"http://127.0.0.1:{taken.getsockname()[1]}", retries=1, **QUICK)
        shared = SimpleNamespace(noise=SimpleNamespace(purpose="evaluation"))
        stop, skip = (Checked(reward, "http", shared, 9, Scoring(on_error=how)) for how in (OnError.stop, OnError.skip))
        with pytest.raises(UserError, match=r"reward http got no score: http://\S+ can't be reached: .*, asked 2 times for 3"):
            stop(completions)
        assert not skip(completions).usable.any()


def test_a_score_that_is_not_finite_is_for_the_policy(completions):
    with serving(lambda _: b'{"scores": [1, NaN, Infinity]}') as server:
        total = Http(url=server.url, **QUICK)(completions).total.tolist()
    assert total[0] == 1.0
    assert math.isnan(total[1]) and math.isnan(total[2])


def test_a_judge_is_asked_about_each_completion(completions, source):
    def answer(message):
        return reply(
            {"the cat": "Score: 7", "a": "it's 2.5/10? I say 3", "The the dog": "-1"}[message["messages"][-1]["content"]]
        )

    with serving(answer) as server:
        judge = Judge(url=server.url + "/v1/", model="m", template="{completion}", system="Be fair.", **QUICK).resolve(source)
        scores = judge(completions)
    assert scores.total.tolist() == [7.0, 3.0, -1.0]
    assert scores.usable.all()
    assert set(server.paths) == {"/v1/chat/completions"}
    asked = next(message for message in server.messages if message["messages"][-1]["content"] == "a")
    assert asked == {
        "model": "m", "temperature": 0, "max_tokens": 64,
        "messages": [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "a"}],
    }  # fmt: skip


def test_the_question_has_prompt_completion_and_columns_and_leaves_their_braces_alone(completions):
    with serving(lambda _: reply("1")) as server:
        Judge(url=server.url, model="m", template="{prompt}|{completion}|{answer}", jobs=1, **QUICK)(completions)
    assert [message["messages"][0]["content"] for message in server.messages] == [
        "p|the cat|cat", "qq|a|the dog", "qq|The the dog|the dog",
    ]  # fmt: skip


def test_a_verdict_is_the_last_one_said(completions):
    said = {"the cat": "GOOD, surely", "a": "not good: bad.", "The the dog": "goodness"}
    with serving(lambda message: reply(said[message["messages"][0]["content"]])) as server:
        scores = Judge(url=server.url, model="m", template="{completion}", verdicts={"good": 1, "bad": -1}, **QUICK)(
            completions
        )
    assert scores.total[:2].tolist() == [1.0, -1.0]
    assert scores.usable.tolist() == [True, True, False]
    assert scores.failed == {2: "got no score: none of good, bad in the reply 'goodness'"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reply("no idea"), "got no score: no number in the reply 'no idea'"),
        (reply("11"), "got no score: 11 is outside the scale from 1 to 10"),
        ({"error": "x"}, "gave no choices[0].message.content, but {'error': 'x'}"),
        (401, "answered 401 Unauthorized"),
    ],
)
def test_a_reply_without_a_score_is_a_failure(completions, answer, told):
    with serving(lambda _: answer) as server:
        scores = Judge(url=server.url, model="m", low=1, high=10, **QUICK)(completions)
    assert list(scores.failed) == [0, 1, 2]
    assert told in scores.failed[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Http().resolve(None), "reward.url=None: give the server's address"),
        (
            lambda: Http(url="file:///etc/passwd").resolve(None),
            "give the server's address, such as http://localhost:8000/score",
        ),
        (
            lambda: Http(url="http://x", token="NO_SUCH_VARIABLE").resolve(None),
            "reward.token=NO_SUCH_VARIABLE: there is no such",
        ),
        (lambda: Http(url="http://x", timeout=0), "reward.timeout=0"),
        (lambda: Http(url="http://x", retries=-1), "reward.retries=-1"),
        (lambda: Http(url="http://x", wait=-1), "reward.wait=-1"),
        (lambda: Http(url="http://x", batch=0), "reward.batch=0"),
        (lambda: Judge(url="http://x").resolve(None), "reward=judge needs the judge's name: give reward.model=NAME"),
        (lambda: Judge(template="Good?"), "reward.template has no {completion}"),
        (lambda: Judge(low=2, high=1), "reward.low=2 is more than reward.high=1"),
        (lambda: Judge(jobs=0), "reward.jobs=0"),
        (lambda: Judge(max_tokens=0), "reward.max_tokens=0"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_column_that_is_not_there_is_a_mistake(completions):
    with pytest.raises(UserError, match=r"reward.template=anwser: the data has no such column. Did you mean 'answer'"):
        Judge(url="http://x", model="m", template="{completion}{anwser}")(completions)
