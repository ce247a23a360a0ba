"""A rater at a terminal, with keys from a script."""

import io
import json
import random

import pytest
from rich.console import Console

from alignzoo.errors import UserError
from alignzoo.label.dialogue import Dialogue, ordered
from alignzoo.label.items import QuestionKind, Scale, item
from alignzoo.label.journal import Journal, data_rows
from alignzoo.label.session import Session
from alignzoo.label.terminal import Screen
from alignzoo.label.work import Work

SCALE = Scale()


class Script:
    """These keys, then the end; or keys chosen by looking at what is shown."""

    def __init__(self, keys):
        self.keys = list(keys)

    def read(self):
        return self.keys.pop(0) if self.keys else ""


class Recorder(Screen):
    """Remembers what was shown."""

    def __init__(self):
        super().__init__(Console(file=io.StringIO(), width=80))
        self.shown, self.said = [], []

    def show(self, about, places, head, keys):
        super().show(about, places, head, keys)
        self.shown.append([about.completions[place] for place in places])

    def say(self, text):
        super().say(text)
        self.said.append(text)


@pytest.fixture
def label(tmp_path):
    """label(items, keys, ...): a session over a journal in a file; returns the screen and how many items it left open."""

    def made(items, keys, rater="ann", scale=SCALE):
        work, screen = Work(items, scale, Journal(tmp_path / "answers.jsonl"), None), Recorder()
        session = Session(works=lambda: [work], rater=rater)
        return screen, Dialogue(session=session, keys=Script(keys), screen=screen).run()

    made.journal = Journal(tmp_path / "answers.jsonl")
    return made


PAIRS = [item(QuestionKind.pairs, f"p{n}", [f"one {n}", f"two {n}"]) for n in range(4)]
RATINGS = [item(QuestionKind.ratings, f"p{n}", [f"c{n}"]) for n in range(3)]


def votes(journal):
    """{text: share of the votes that prefer it}, of pairs."""
    rows = data_rows(journal.answers())
    return {
        row[side]: abs(n - sum(row["votes"]) / len(row["votes"]))
        for row in rows
        for n, side in enumerate(("chosen", "rejected"))
    }


def test_a_key_prefers_what_is_shown_under_its_number(label):
    screen, left = label(PAIRS, "12t1")
    assert left == 0
    said = votes(label.journal)
    assert [said[one] for one, _ in screen.shown] == [1, 0, 0.5, 1]


def test_the_order_is_random_and_another_for_each_rater(label):
    many = [item(QuestionKind.pairs, f"{n}", ["a", "b"]) for n in range(60)]
    orders = [[first for first, _ in label(many, "1" * 60, rater=rater)[0].shown] for rater in ("ann", "bob")]
    assert all(15 < order.count("a") < 45 for order in orders)
    assert orders[0] != orders[1]
    agreed = sum(one == other for one, other in zip(*orders, strict=True))
    assert 15 < agreed < 45


def test_nothing_shown_says_who_wrote_it(label):
    written = item(QuestionKind.pairs, "p", ["a", "b"], ["the_policy", "the_start"])
    screen, _ = label([written], "1")
    assert "the_" not in screen.console.file.getvalue()
    (row,) = data_rows(label.journal.answers())
    assert row["written_by"] == [{"a": "the_policy", "b": "the_start"}[row[side]] for side in ("chosen", "rejected")]


def test_ratings_by_key_and_by_line(label):
    label(RATINGS, "3x5s")
    assert [one.answer for one in label.journal.answers()] == [3.0, 5.0, None]
    screen, _ = label(RATINGS, "7.5\n11\n1\x7f2\nq", rater="bob", scale=Scale(0, 10))
    assert [one.answer for one in label.journal.answers() if one.rater == "bob"] == [7.5, 2.0]
    assert any("'11' must be a number from 0 to 10" in said for said in screen.said)


def test_rankings(label):
    """Shown in orders that are cycles as well: there and back are not the same."""
    triples = [item(QuestionKind.rankings, f"p{n}", [f"a{n}", f"b{n}", f"c{n}"]) for n in range(12)]
    screen, _ = label(triples, "3 1\n" + "2 1=3\n" + "3 1 2\n" * 11)
    rows = {
        row["prompt"]: dict(zip(row["completions"], row["ranks"], strict=True)) for row in data_rows(label.journal.answers())
    }
    first, second, third = screen.shown[0]
    assert rows["p0"] == {second: 1, first: 2, third: 2}
    for n, (first, second, third) in enumerate(screen.shown[1:], 1):
        assert rows[f"p{n}"] == {third: 1, first: 2, second: 3}
    assert any("'3 1' must name each of 1, 2, 3 once" in said for said in screen.said)


def test_a_question_is_the_same_in_whatever_order_its_completions_come():
    one, other = item(QuestionKind.pairs, "p", ["a", "b"], ["x", "y"]), item(QuestionKind.pairs, "p", ["b", "a"], ["y", "x"])
    assert one == other
    assert one.id == other.id != item(QuestionKind.rankings, "p", ["a", "b"]).id
    firsts = [item(QuestionKind.pairs, f"{n}", ["a", "b"]).completions[0] for n in range(60)]
    assert 15 < firsts.count("a") < 45


@pytest.mark.parametrize(
    ("said", "ranks"), [("1 2 3", [1, 2, 3]), ("3>1>2", [2, 3, 1]), ("1=2=3", [1, 1, 1]), ("2 = 3, 1", [2, 1, 1])]
)
def test_orders(said, ranks):
    assert ordered(said, 3) == ranks


@pytest.mark.parametrize("said", ["", "1 2", "1 2 2", "1 2 4", "1 2 3 3", "a b c", "="])
def test_what_is_no_order(said):
    with pytest.raises(ValueError, match="must name each of 1, 2, 3 once"):
        ordered(said, 3)


def test_undo_takes_back_also_what_an_earlier_session_said(label):
    label(RATINGS, "12q")
    screen, left = label(RATINGS, "u5u u 4q")
    assert [shown for (shown,) in screen.shown] == ["c2", "c1", "c2", "c1", "c0", "c1"]
    assert [(one.item.prompt, one.answer) for one in label.journal.answers()] == [("p0", 4.0)]
    assert left == 2
    assert label(RATINGS, "u" * 9)[1] == 3


def test_it_goes_on_where_it_was_left_by_each_rater(label):
    label(RATINGS, "1")
    assert [shown for (shown,) in label(RATINGS, "q")[0].shown] == ["c1"]
    assert len(label(RATINGS, "q", rater="bob")[0].shown) == 1
    screen, left = label(RATINGS, "24")
    assert (len(screen.shown), left) == (2, 0)
    assert label(RATINGS, "1")[0].shown == []


def test_any_sequence_of_keys_leaves_what_the_rater_meant(label):
    """Against a model that keeps answers in a list, with quits and returns in between."""
    rng = random.Random(0)
    for rater in map(str, range(10)):
        meant = []
        while len(meant) < len(RATINGS):
            keys = rng.choices("12345sux", k=rng.randrange(1, 6))
            for key in keys:
                if key == "u":
                    meant = meant[:-1]
                elif key != "x" and len(meant) < len(RATINGS):
                    meant.append(None if key == "s" else float(key))
                if len(meant) == len(RATINGS):
                    break
            label(RATINGS, keys, rater=rater)
            assert [one.answer for one in label.journal.answers() if one.rater == rater] == meant


def test_what_would_steer_the_terminal_is_shown_not_obeyed(label):
    evil = item(QuestionKind.ratings, "[red]p[/red]", ["\x1b[2Jgone\r\x07 \u202e"])
    screen, _ = label([evil], "1")
    shown = screen.console.file.getvalue()
    assert "\x1b[2J" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "\\x1b[2Jgone\\r\\x07" in shown and "[red]p[/red]" in shown


def test_an_answer_is_in_the_file_before_the_next_question(label):
    class Watching(Script):
        def read(self):
            kept.append(len(label.journal.answers()))
            return super().read()

    kept, screen = [], Recorder()
    work = Work(RATINGS, SCALE, label.journal, None)
    Dialogue(session=Session(works=lambda: [work], rater="ann"), keys=Watching("123"), screen=screen).run()
    assert kept == [0, 1, 2]


def test_what_a_crash_left_of_a_line_loses_nothing_else(label):
    label(RATINGS, "12q")
    with label.journal.path.open("ab") as file:
        file.write(b'{"id": "torn", "ra')
    label(RATINGS, "3", rater="bob")
    assert [(one.rater, one.answer) for one in label.journal.answers()] == [("ann", 1.0), ("ann", 2.0), ("bob", 3.0)]
    assert len(label.journal.path.read_bytes().splitlines()) == 4


def test_a_row_for_each_item_with_the_votes_of_all(label):
    for rater, keys in (("ann", "5"), ("bob", "2"), ("cy", "s")):
        label(RATINGS[:1], keys, rater=rater)
    expected = {"prompt": "p0", "completion": "c0", "label": 3.5, "votes": [5.0, 2.0], "raters": ["ann", "bob"]}
    assert data_rows(label.journal.answers()) == [expected]
    assert json.loads(json.dumps(expected)) == expected


def test_a_journal_knows_at_once_what_others_wrote_and_that_it_is_another_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    reader, writer = Journal(path), Journal(path)
    assert reader.answers() == []
    for n, one in enumerate(RATINGS):
        writer.append("ann", one, n + 1.0, SCALE, "why")
        assert [(answer.answer, answer.note) for answer in reader.answers()] == [(m + 1.0, "why") for m in range(n + 1)]
    line = path.read_bytes().splitlines()[0]
    with path.open("ab") as file:
        file.write(line.replace(b'"ann"', b'"bob"'))  # whole, but for its end
    assert [answer.rater for answer in reader.answers()] == ["ann", "ann", "ann", "bob"]
    with path.open("ab") as file:
        file.write(b"\n\n{}\n")
    for _ in range(2):
        with pytest.raises(UserError, match=r"answers.jsonl, line 6: no answer that alignzoo label wrote"):
            reader.answers()
    path.write_bytes(line + b"\n")
    assert [answer.rater for answer in reader.answers()] == ["ann"]
