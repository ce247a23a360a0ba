"""A program that waits for people: what it writes, what it accepts, and what it never asks twice."""

import csv
import json
import threading
import time

import pytest

from alignzoo.label import requests
from alignzoo.label.asking import Asker
from alignzoo.label.items import QuestionKind, Scale, item
from alignzoo.settings import UserError
from tests.label.people import Person

TEXTS = [("p", "one"), ("p", "three"), ("q", "seven")]


def rating(text):
    return min(5, len(text))


def asker(folder, **settings):
    return Asker(folder=folder, poll=0.005, **{"timeout": 20.0, "tell": lambda text: None, **settings})


def test_ratings_come_back_in_the_order_of_the_texts(tmp_path):
    with Person(tmp_path, lambda one: rating(one.completions[0])):
        assert asker(tmp_path).ratings([*TEXTS, TEXTS[0]]) == [3.0, 5.0, 5.0, 3.0]


def test_preferences_are_shares_for_the_first(tmp_path):
    pairs = [("p", "aaa", "b"), ("p", "b", "cc"), ("q", "x", "y"), ("q", "z", "z"), ("r", "skipped", "me")]

    def longer(one):
        if one.prompt == "r":
            return None
        first, second = map(len, one.completions)
        return "tie" if first == second else "first" if first > second else "second"

    with Person(tmp_path, longer):
        assert asker(tmp_path).preferences(pairs) == [1.0, 0.0, 0.5, None, None]


def test_a_request_is_blind_and_shuffled_and_asked_once(tmp_path):
    texts = [("p", f"answer {n}") for n in range(20)]
    with Person(tmp_path, lambda one: 1) as person:
        asker(tmp_path).ratings(texts)
        asker(tmp_path).ratings(texts[:5])
        asker(tmp_path).ratings([*texts, ("p", "another")])
    first, second = [[json.loads(line) for line in path.read_text().splitlines()] for path in person.seen]
    assert sorted(line["completions"][0] for line in first) == sorted(text for _, text in texts)
    assert [line["completions"][0] for line in first] != [text for _, text in texts]
    assert set(first[0]) == {"id", "as", "prompt", "completions", "scale", "raters"}
    assert [line["completions"] for line in second] == [["another"]]


def test_an_open_request_is_asked_again_not_twice(tmp_path):
    with pytest.raises(UserError, match=r"3 of 3 were not answered within 0.02 s; asked again, it goes on"):
        asker(tmp_path, timeout=0.02).ratings(TEXTS)
    (request,) = requests.in_folder(tmp_path)
    items = requests.read(request).items
    requests.answers_of(request).write_text(json.dumps({"id": items[0].id, "answer": 2}) + "\n")
    with pytest.raises(UserError, match="2 of 3 were not answered"):
        asker(tmp_path, timeout=0.02).ratings(TEXTS)
    assert requests.in_folder(tmp_path) == [request]
    with requests.answers_of(request).open("a") as file:
        file.writelines(json.dumps({"id": one.id, "answer": 4}) + "\n" for one in items[1:])
    expected = {items[0].completions[0]: 2.0}
    assert asker(tmp_path).ratings(TEXTS) == [expected.get(text, 4.0) for _, text in TEXTS]


def test_mistakes_in_answers_are_told_and_it_waits_on(tmp_path):
    told = []

    def tell(text):
        told.append(text)
        if "waiting on" in text and "line 1" in text:
            with requests.answers_of(request).open("a") as file:
                file.writelines(json.dumps({"id": one.id, "answer": 5}) + "\n" for one in items)

    with pytest.raises(UserError):
        asker(tmp_path, timeout=0.01).ratings(TEXTS)
    (request,) = requests.in_folder(tmp_path)
    items = requests.read(request).items
    bad = [{"id": "nobody", "answer": 1}, {"id": items[0].id, "answer": 9}, {"id": items[0].id}]
    requests.answers_of(request).write_text("".join(json.dumps(line) + "\n" for line in bad) + "{\n")
    assert asker(tmp_path, tell=tell).ratings(TEXTS) == [5.0] * 3
    said = "\n".join(told)
    name = requests.answers_of(request)
    for expected in (
        f"{name}, line 1: no item has the id 'nobody'.",
        f"{name}, line 2: 9 must be a number from 1 to 5, or skip",
        f"{name}, line 3: no 'answer'",
        f"{name}, line 4: not JSON",
    ):
        assert said.count(expected) == 1, said
    assert told[-1] == f"{request.name}: 3 of 3 answered"


def test_the_csv_of_a_request_may_be_filled_in(tmp_path):
    def fill():
        while not (found := requests.in_folder(tmp_path)):
            time.sleep(0.005)
        path = requests.table_of(found[0])
        rows = list(csv.DictReader(path.read_text().splitlines()))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({**row, "rating": rating(row["completion"])} for row in rows)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    assert asker(tmp_path).ratings(TEXTS) == [3.0, 5.0, 5.0]
    thread.join()


def test_several_raters_are_waited_for_and_averaged(tmp_path):
    with Person(tmp_path, lambda one: 2), Person(tmp_path, lambda one: 5, "bob"):
        assert asker(tmp_path, raters=2).ratings(TEXTS) == [3.5] * 3
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert {tuple(sorted(zip(row["raters"], row["votes"], strict=True))) for row in rows} == {(("ann", 2.0), ("bob", 5.0))}


def test_without_waiting_only_what_is_known_counts(tmp_path):
    with Person(tmp_path, lambda one: 2):
        asker(tmp_path).ratings(TEXTS[:1])
    asked = [item(QuestionKind.ratings, prompt, [text]) for prompt, text in TEXTS]
    assert asker(tmp_path, scale=Scale(1, 5)).ask(asked, wait=False) == [[2.0], [], []]
    assert len(requests.in_folder(tmp_path)) == 1
