"""The page of `alignzoo label --serve`, by what a browser gets and sends."""

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from alignzoo.cli import main as cli
from alignzoo.data.files import JsonLines
from alignzoo.label import requests
from alignzoo.label.access import OWNER, tokens
from alignzoo.label.asking import Asker
from alignzoo.label.items import QuestionKind, Scale, item
from alignzoo.label.journal import Journal, data_rows
from alignzoo.label.work import Work, of_request
from tests.label.served import Command, Served, Visitor
from tests.limits import HANG

TOKENS = {"a" * 22: "ann", "b" * 22: "bob", "o" * 22: OWNER}
ANN, BOB, BOSS = TOKENS
PAIRS = [item(QuestionKind.pairs, f"p{n}", [f"one {n}", f"two {n}"]) for n in range(4)]


@pytest.fixture
def page(tmp_path):
    """page(items, ...): the address of a page about them."""
    started = []

    def serve(items, scale=None, here=True):
        work = Work(items, scale or Scale(), Journal(tmp_path / "labels.answers.jsonl"), tmp_path / "labels.jsonl")
        started.append(Served(lambda: [work], TOKENS, here).__enter__())
        serve.work = work
        return started[-1].address

    yield serve
    for server in started:
        server.__exit__()


def said_by(rater, work):
    return [answer for answer in work.answers() if answer.rater == rater]


def test_what_is_chosen_is_what_was_shown_in_its_place(page):
    """Over 20 pairs both raters choose the first: chosen is what each of them saw there, and the orders differ."""
    pairs = [item(QuestionKind.pairs, f"p{n}", [f"one {n}", f"two {n}"], ["x", "y"]) for n in range(20)]
    address, shown = page(pairs), {}
    for token in (ANN, BOB):
        rater = Visitor(address, token)
        seen = rater.look()
        while seen.view == "pairs":
            shown[TOKENS[token], seen.prompt] = seen.completions
            assert not re.search(r"\bx\b|\by\b", "".join(re.findall(r">([^<]*)<", seen.text.partition("<script")[0])))
            seen = rater.say(seen.item, said="first")
        assert (seen.view, seen.status) == ("nothing", 200)
    for name in ("ann", "bob"):
        (rows,) = [{row["prompt"]: row["chosen"] for row in data_rows(said_by(name, page.work))}]
        assert rows == {f"p{n}": shown[name, f"p{n}"][0] for n in range(20)}
    assert 3 < sum(shown["ann", f"p{n}"] == shown["bob", f"p{n}"] for n in range(20)) < 17
    assert len((page.work.out).read_text().splitlines()) == 20


def test_rankings_ratings_notes_and_skips(page):
    three = [item(QuestionKind.rankings, f"p{n}", ["a", "b", "c"]) for n in range(8)]
    ann = Visitor(page(three), ANN)
    while (seen := ann.look()).view == "rankings":
        best, middle, worst = seen.completions
        assert ann.say(seen.item, rank0="1", rank1="2").status == 400
        ann.say(seen.item, rank0="1", rank1="3", rank2="3", note=" 好\r\nx ")
        answer = said_by("ann", page.work)[-1]
        assert dict(zip(answer.item.completions, answer.answer, strict=True)) == {best: 1, middle: 2, worst: 2}
        assert answer.note == "好\nx"
    assert len(said_by("ann", page.work)) == 8


def test_ratings_and_cannot_say(page):
    ratings = [item(QuestionKind.ratings, f"p{n}", ["c"]) for n in range(3)]
    ann = Visitor(page(ratings, Scale(0.0, 10.0)), ANN)
    seen = ann.look()
    assert re.search(r'name="said"\s+min="0.0"\s+max="10.0"', seen.text) and "0 of 3 done" in seen.text
    wrong = ann.say(seen.item, said="11")
    assert wrong.status == 400 and wrong.messages == ["'11' must be a number from 0 to 10, or skip."]
    seen = ann.say(seen.item, said="7.5")
    assert "1 of 3 done" in seen.text
    ann.say(seen.item, skip="1", note="which cat?")
    assert [(one.answer, one.note) for one in said_by("ann", page.work)] == [(7.5, ""), (None, "which cat?")]
    assert [row["votes"] for row in map(json.loads, page.work.out.read_text().splitlines())] == [[7.5]]


def test_corrections_become_demonstrations(page):
    messages = [{"role": "assistant", "content": "Helo.\r\n"}]
    items = [item(QuestionKind.corrections, "Two and two?", ["It is five."]), item(QuestionKind.corrections, "Hi", [messages])]
    address = page(items)
    ann, bob = Visitor(address, ANN), Visitor(address, BOB)
    ann.say(items[0].id, content="It is four.\r\nReally.")
    ann.say(items[1].id, content="Hello.")
    bob.say(items[0].id, right="1")
    bob.say(items[1].id, content="Helo.\r\n")  # as a browser sends what is left as it was
    assert bob.say(items[0].id, content="  ").status == 400
    rows = [json.loads(line) for line in page.work.out.read_text().splitlines()]
    assert {(row["prompt"], str(row["completion"]), *row["written_by"]) for row in rows} == {
        ("Two and two?", "It is four.\nReally.", "ann"),
        ("Two and two?", "It is five.", "bob"),
        ("Hi", str([{"role": "assistant", "content": "Hello."}]), "ann"),
        ("Hi", str(messages), "bob"),
    }
    page.work.out.write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    (row,), _, _ = JsonLines(path=str(page.work.out), heldout=0.0).rows()
    assert (row["prompt"], row["completion"]) == ("Two and two?", rows[0]["completion"])


def test_undo_takes_back_one_answer_however_often_it_is_sent(page):
    ann = Visitor(page(PAIRS), ANN)
    first = ann.look()
    second = ann.say(first.item, said="tie", note="hm")
    third = ann.say(second.item, said="first")
    assert third.undoes == second.item
    back = ann.undo(third.undoes)
    assert (back.item, back.completions, back.undoes) == (second.item, second.completions, first.item)
    assert ann.undo(second.item).item == second.item
    assert [one.item.id for one in said_by("ann", page.work)] == [first.item]
    again = ann.undo(first.item)
    assert ">\nhm</textarea>" in again.text  # nothing that was written is lost
    assert not said_by("ann", page.work) and page.work.out.read_text() == ""


def test_a_link_that_is_used_twice_at_once(page):
    """Of ten posts about one item one is kept; the same again is no news; another answer is told, not taken."""
    ann = Visitor(page(PAIRS), ANN)
    seen = ann.look()
    said = ["first", "second"] * 5
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda answer: ann.say(seen.item, said=answer), said))
    assert len(page.work.journal.path.read_text().splitlines()) == 1
    (kept,) = said_by("ann", page.work)
    winners = {answer for answer, reply in zip(said, replies, strict=True) if reply.status == 200}
    losers = {answer for answer, reply in zip(said, replies, strict=True) if reply.status == 409}
    assert len(winners) == len(losers) == 1 and winners != losers
    assert all(("elsewhere" in str(reply.messages)) is (reply.status == 409) for reply in replies)
    assert all(reply.view == "pairs" and reply.item != kept.item.id for reply in replies)


def test_only_who_has_a_link_and_only_from_the_page(page):
    address = page(PAIRS)
    ann, boss = Visitor(address, ANN), Visitor(address, BOSS)
    question = ann.look().item
    form = {"token": ANN, "item": question, "said": "first"}
    refused = [
        Visitor(address, "").look(), Visitor(address, "c" * 22).look(), Visitor(address, "%C3%A9").look(),
        ann.look(Host="evil.example"), ann.look(Host="127.0.0.1.evil.example:80"),
        ann.post({"item": question, "said": "first"}, query=f"?token={ANN}"),  # a page elsewhere may know an address
        ann.post(form, {"Origin": "http://evil.example"}), ann.post(form, {"Origin": "null"}),
        ann.post(form, {"Host": "evil.example", "Origin": "http://evil.example"}), boss.say(question, said="first"),
    ]  # fmt: skip
    assert [(reply.status, reply.view) for reply in refused] == [(403, "refused")] * len(refused)
    assert [ann.look(Host="[::1").status, ann.post(form, {"Origin": "http://[x"}).status] == [400, 400]
    assert page.work.answers() == []
    assert ann.post(form, {"Origin": address}).status == 200
    assert len(page.work.answers()) == 1
    assert ann.say("nothing", said="first").status == 410
    assert ann.say(PAIRS[0].id, said="first", note="x" * 5_000_000).status == 413
    policy = ann.look().headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "form-action 'self'" in policy and "unsafe" not in policy


def test_under_another_host_it_answers_by_any_name_and_a_run_may_begin_later(page, tmp_path, monkeypatch):
    assert Visitor(page(PAIRS, here=False), ANN).look(Host="labels.example").status == 200
    monkeypatch.chdir(tmp_path)
    server = Command("runs/mine.labels", "--rater", "cy", "--port", "0", "--host", "0.0.0.0")
    address, token = server.links["cy"]
    assert urlsplit(address).hostname == socket.gethostname().lower()
    rater = Visitor(f"http://127.0.0.2:{urlsplit(address).port}", token)
    assert rater.look().view == "nothing"
    path = Path("runs/mine.labels/request-0001-abc.jsonl")
    requests.write(path, requests.Questionnaire([item(QuestionKind.ratings, "p", ["c"])], Scale(0, 9)))
    rater.say(rater.look().item, said="9")
    assert [answer.answer for answer in requests.answers(path, pytest.fail)] == [9.0]
    assert "not encrypted" in "".join(server.printed)
    assert server.end() == (0, "1 of 1 answered by cy; in runs/mine.labels\n")


class Tags(HTMLParser):
    """The tags of a page's main part, and the addresses in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.handlers = [], [], []
        self.feed(text.partition("<main")[2].partition("</main>")[0].partition(">")[2])

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


EVIL = """<script>document.title = "taken"</script> <img src=x onerror="alert(1)"> <iframe src="http://evil.example"></iframe>
</div></main><form action="http://evil.example"><input name=token></form> <style>*{display:none}</style> <b onclick=x>b</b>
[a](javascript:alert(1)) [b](data:text/html,x) ![c](http://evil.example/pixel.png) <javascript:alert(1)> [d](https://fine.example/)
</textarea><script>1</script> {{ 7 * 7 }} &lt; \x1b[2J\x07\x9b \ud800 `</code>` **bold**"""


@pytest.mark.parametrize("kind", ["pairs", "corrections"])
def test_nothing_in_a_completion_is_html(page, kind):
    """Only Markdown's tags come of it, and its only addresses are those of web pages."""
    texts = [EVIL, "fine"][: 1 if kind == "corrections" else 2]
    evil, plain = (item(QuestionKind(kind), text, texts) for text in (EVIL, "p"))
    plain = item(QuestionKind(kind), "p", ["a", "fine"][: len(texts)])
    Visitor(page([plain]), ANN)
    tags = []
    for question in (plain, evil):
        seen = Visitor(page([question]), ANN).look()
        tags.append(Tags(seen.text))
    assert set(tags[1].tags) - set(tags[0].tags) == {"a", "br", "code", "strong"}
    assert set(tags[1].links) == {"http://evil.example/pixel.png", "https://fine.example/"}
    assert tags[1].handlers == []
    escaped = EVIL.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\x9b", "\\x9b").replace("\ud800", "\\ud800")
    assert seen.prompt == escaped and escaped in seen.completions
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", seen.text.replace(EVIL, "").partition("<textarea")[0])


def test_long_lines_and_other_scripts_come_whole(page):
    texts = ["x" * 100_000, "[" * 100_000, "你好世界", "مرحبا بالعالم \u200c", "\u202eevil", "a\r\nb"]
    ann = Visitor(page([item(QuestionKind.rankings, "שלום", texts)]), ANN)
    seen = ann.look()
    assert sorted(seen.completions) == sorted([*texts[:-1], "a\nb"]) and seen.prompt == "שלום"
    assert seen.text.count('dir="auto"') >= 2 * 7 - 2


def test_the_owner_sees_who_is_how_far_and_how_they_agree(page):
    """Of four pairs ann and bob agree on one: the raw agreement is 0.25."""
    address = page(PAIRS)
    for token, best in ((ANN, "one"), (BOB, "two")):
        rater = Visitor(address, token)
        while (seen := rater.look()).view == "pairs":
            wanted = "one" if seen.prompt == "p0" else best
            rater.say(
                seen.item, said="first" if seen.completions[0].startswith(wanted) else "second", note="<b>" * (best == "two")
            )
    boss = Visitor(address, BOSS).look()
    cells = re.findall(r"<td>([^<]*)</td>", boss.text)
    assert cells[:2] == ["ann", "4 of 4"] and "bob" in cells
    assert cells[cells.index("raw agreement") + 1] == "0.250"
    assert boss.text.count("&lt;b&gt;") == 4 and "data-refresh" in boss.text


@pytest.mark.parametrize("kind", ["pairs", "corrections"])
def test_the_owner_sees_also_what_no_algorithm_could_learn_from(page, kind):
    """Nothing was written, which a rater sees, and which no training takes; 101 notes, of which the last 100 are shown."""
    items = [item(QuestionKind(kind), f"p{n}", ["", "c"][: 1 if kind == "corrections" else 2]) for n in range(101)]
    address = page(items)
    for one in items:
        page.work.journal.append("ann", one, [2, 1] if kind == "pairs" else "d", Scale(), f"note {one.prompt}")
    boss = Visitor(address, BOSS).look()
    assert boss.status == 200 and "101 of 101" in boss.text
    assert "the last 100 of 101" in boss.text and "note p100<" in boss.text and "note p0<" not in boss.text


def test_tokens_outlive_the_server_and_are_nobody_elses(tmp_path):
    path = tmp_path / "labels.tokens.jsonl"
    first = tokens(path, ["ann"])
    assert sorted(first.values()) == [OWNER, "ann"] and all(len(token) >= 22 for token in first)
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.write(b'{"rater": "bob", "tok')  # what a crash left
    second = tokens(path, ["bob", "ann"])
    assert second.items() > first.items() and "bob" in second.values()
    assert tokens(path, ["bob"]) == {token: name for token, name in second.items() if name != "ann"}


def test_requests_are_answered_as_they_come(tmp_path):
    """Of a program that asks again and again, of two raters; the page shows one scale after the other."""
    folder = tmp_path / "run.labels"
    works = lambda: [of_request(path) for path in requests.in_folder(folder)]  # noqa: E731
    results = []

    def ask():
        for scale, texts in ((Scale(0, 9), ["aa", "b"]), (Scale(0, 20), ["cccc", "b"])):
            asker = Asker(folder=folder, scale=scale, raters=2, timeout=HANG, poll=0.005, tell=lambda text: None)
            results.append(asker.ratings([("p", text) for text in texts]))

    with Served(works, TOKENS) as served:
        assert Visitor(served.address, ANN).look().view == "nothing"
        thread = threading.Thread(target=ask)
        thread.start()
        while thread.is_alive():
            for token, more in ((ANN, 0), (BOB, 1)):
                rater = Visitor(served.address, token)
                while (seen := rater.look()).view == "ratings":
                    rater.say(seen.item, said=str(len(seen.completions[0]) + more))
        thread.join()
        assert "3 of 3 done" in Visitor(served.address, ANN).look().text
    assert results == [[2.5, 1.5], [4.5, 1.5]]


def test_a_killed_server_loses_nothing_and_a_page_left_open_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps({"prompt": f"p{n}", "completion": "c"}) + "\n" for n in range(3)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["rows.jsonl", "--as", "ratings", "--raters", "ann,bob", "--port", str(port)]
    server = Command(*arguments)
    ann = server.visitor("ann")
    left_open = ann.say(ann.look().item, said="4")
    assert server.end(signal.SIGKILL)[0] == -signal.SIGKILL
    again = Command(*arguments)
    assert again.links == server.links
    assert "2 of 3 done" in ann.say(left_open.item, said="5").text
    with pytest.raises(ConnectionRefusedError):  # of all this machine's addresses it has one
        socket.create_connection(("127.0.0.2", port))
    status, rest = again.end()
    assert status == 0
    assert rest == "2 of 3 answered by ann; in labels.jsonl\n0 of 3 answered by bob; in labels.jsonl\n"
    assert sorted(json.loads(line)["label"] for line in Path("labels.jsonl").read_text().splitlines()) == [4.0, 5.0]
    assert ann.token not in "".join([*server.printed[3:], rest])


def test_what_keeps_it_from_serving(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c"}) + "\n")
    arguments = ["label", "rows.jsonl", "--as", "ratings", "--serve"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main([*arguments, "--port", str(port)]) == 2
    assert f"--port {port} is taken: give another, or --port 0 for one that is free" in capsys.readouterr().err
    assert cli.main([*arguments, "--host", "192.0.2.1"]) == 2
    assert "--host 192.0.2.1: not an address of this machine" in capsys.readouterr().err
    assert cli.main([*arguments, "--port", "70000"]) == 2
    assert "--port 70000: must be from 0 to 65535" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(arguments) == 2
    assert "--serve needs uvicorn, which isn't installed: pip install 'alignzoo[serve]'" in capsys.readouterr().err


def test_a_page_among_tests_closes_nobodys_logging(page, monkeypatch):
    closed, handler = [], logging.NullHandler()
    monkeypatch.setattr(handler, "close", lambda: closed.append(handler))
    assert Visitor(page(PAIRS), ANN).look().status == 200
    assert closed == []


def test_an_answer_that_could_not_be_kept_is_not_lost(page, monkeypatch):
    """The page is told so, and not that there is a next question: it sends the answer again."""
    ann = Visitor(page(PAIRS), ANN)
    question = ann.look().item

    def full(handle):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as broken:
        broken.setattr("alignzoo.label.journal.os.fsync", full)
        reply = ann.say(question, said="tie")
    assert reply.status == 500 and reply.text == "Not kept: the disk is full"
    assert ann.say(question, said="tie").item != question
