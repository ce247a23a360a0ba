"""The page in headless Chromium, clicked and typed through. `python -m tests.label.pictures` makes the docs' pictures so."""

import contextlib
import json
import signal
import socket
from pathlib import Path

import pytest

from alignzoo.label.journal import Journal
from tests.label.served import Command, browser
from tests.limits import HANG

ROWS = [{"prompt": f"Question **{n}**?", "completions": [f"*one* {n}", f"two {n}", f"three {n}"]} for n in range(3)]


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture
def visit(chromium, tmp_path, monkeypatch):
    """visit(rater, ...): a window of its own at the page of a server that is started as the first comes; what scripts
    complain of fails the test."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    contexts, complaints = [], []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def start(*arguments):
        visit.command = arguments or visit.command
        visit.server = Command(*visit.command, "--raters", "ann,bob", "--port", str(port))
        return visit.server

    def visit(rater, **settings):
        contexts.append(chromium.new_context(**settings))
        window = contexts[-1].new_page()
        window.set_default_timeout(1000 * HANG)
        window.on("pageerror", lambda error: complaints.append(str(error)))
        window.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        address, token = visit.server.links[rater]
        window.goto(f"{address}/?token={token}")
        return window

    visit.start = start
    yield visit
    for context in contexts:
        context.close()
    with contextlib.suppress(ProcessLookupError):
        visit.server.end()
    assert complaints == []


def answers(rater):
    return [(one.item, one.answer, one.note) for one in Journal(Path("labels.answers.jsonl")).answers() if one.rater == rater]


def shown(window):
    return [card.inner_text().strip() for card in window.locator(".card .rendered").all()]


def progress(window, text):
    window.get_by_text(f"{text} done").wait_for()


def test_pairs_by_clicks_keys_and_touch_with_undo_and_a_note(visit):
    visit.start("rows.jsonl", "--as", "pairs")
    window = visit("ann")
    assert window.locator(".card em, .prompt strong").count() >= 1
    first = shown(window)
    window.get_by_role("button", name="2 is better").click()
    progress(window, "1 of 9")
    second = shown(window)
    window.keyboard.press("1")
    progress(window, "2 of 9")
    window.keyboard.press("u")
    progress(window, "1 of 9")
    assert shown(window) == second
    window.keyboard.press("n")
    window.keyboard.type("12tsu")  # which are letters here, and no answers
    window.keyboard.press("Escape")
    window.keyboard.press("t")
    progress(window, "2 of 9")
    window.get_by_role("button", name="Can't say").click()
    progress(window, "3 of 9")
    (one, preferred, _), (_, tied, note), (_, skipped, _) = answers("ann")
    assert [text.replace("*", "") for text in one.completions][preferred.index(1)] == first[1]
    assert (tied, note, skipped) == ([1, 1], "12tsu", None)
    phone = visit("bob", has_touch=True, viewport={"width": 360, "height": 640})
    left = shown(phone)[0]
    phone.get_by_role("button", name="1 is better").tap()
    progress(phone, "1 of 9")
    ((one, preferred, _),) = answers("bob")
    assert one.completions[preferred.index(1)].replace("*", "") == left
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360


def test_rankings_by_keys_and_clicks(visit):
    visit.start("rows.jsonl", "--as", "rankings")
    window = visit("ann")
    orders = [shown(window)]
    for key in ("3", "2", "Backspace", "1", "=", "2", "Enter"):
        window.keyboard.press(key)
    progress(window, "1 of 3")
    orders.append(shown(window))
    for card, rank in zip(window.locator(".rank").all(), (2, 1, 3), strict=True):
        card.get_by_text(str(rank), exact=True).click()
    window.get_by_role("button", name="Save the order").click()
    progress(window, "2 of 3")
    for order, ranks, (one, answer, _) in zip(orders, ([2, 2, 1], [2, 1, 3]), answers("ann"), strict=True):
        texts = [text.replace("*", "") for text in one.completions]
        assert {text: answer[texts.index(text)] for text in order} == dict(zip(order, ranks, strict=True))
    window.get_by_role("button", name="Save the order").click()  # without an order
    assert window.locator(".rank :invalid").count() == 9
    assert len(answers("ann")) == 2


def test_corrections_and_what_is_being_written_outlives_a_closed_page(visit):
    visit.start("rows.jsonl", "--as", "corrections", "--limit", "2")
    window = visit("ann")
    window.get_by_label("the corrected answer").fill("مرحبا\n好")
    window.reload()
    assert window.get_by_label("the corrected answer").input_value() == "مرحبا\n好"
    assert window.get_by_label("the corrected answer").evaluate("box => getComputedStyle(box).direction") == "rtl"
    window.get_by_role("button", name="Save").click()
    progress(window, "1 of 2")
    window.get_by_role("button", name="It is right as it is").click()
    window.get_by_text("that is all for now").wait_for()
    (_, better, _), (one, unchanged, _) = answers("ann")
    assert (better, unchanged) == ("مرحبا\n好", one.completions[0])


def test_a_page_left_open_over_a_killed_server_sends_its_answer_when_that_is_back(visit):
    visit.start("rows.jsonl", "--as", "ratings", "--scale", "0", "3")
    window = visit("ann")
    window.keyboard.press("3")
    progress(window, "1 of 9")
    visit.server.end(signal.SIGKILL)
    window.keyboard.press("0")
    window.get_by_text("The server can't be reached. Your answer is kept here").wait_for()
    assert len(answers("ann")) == 1
    visit.start()
    progress(window, "2 of 9")
    assert [answer for _, answer, _ in answers("ann")] == [3.0, 0.0]
    assert window.get_by_role("status").inner_text() == ""


def test_two_windows_of_one_link(visit):
    visit.start("rows.jsonl", "--as", "pairs")
    one, two = visit("ann"), visit("ann")
    assert shown(one) == shown(two)
    one.keyboard.press("1")
    progress(one, "1 of 9")
    two.keyboard.press("2")
    two.get_by_text("You have answered this elsewhere meanwhile").wait_for()
    assert shown(two) == shown(one)
    assert len(Path("labels.answers.jsonl").read_text().splitlines()) == 1


def test_the_owner_watches(visit):
    visit.start("rows.jsonl", "--as", "pairs")
    owner = visit("how far they are, for you")
    owner.get_by_text("0 of 9").first.wait_for()
    for rater in ("ann", "bob"):
        window = visit(rater)
        window.keyboard.press("t")
        progress(window, "1 of 9")
    owner.get_by_text("raw agreement").wait_for()  # without a click
    assert owner.get_by_text("1.000").count() >= 1


EVIL = """<script>alert(1)</script> <img src=x onerror=alert(2)> [x](javascript:alert(3)) </textarea><script>alert(4)</script>
<svg onload=alert(5)> <style>*{display:none}</style> \x1b[2J"""


def test_texts_of_models_do_nothing_and_show_whole(visit):
    """A dialogue would fail the test; HTML is seen as text, a long line stays in the window, Arabic runs from the right."""
    texts = [EVIL, "x" * 100_000, "مرحبا بالعالم"]
    Path("evil.jsonl").write_text(json.dumps({"prompt": EVIL, "completions": texts}) + "\n")
    visit.start("evil.jsonl", "--as", "rankings")
    window = visit("ann", viewport={"width": 800, "height": 600})
    assert window.locator(".prompt").inner_text().startswith("<script>alert(1)</script> <img src=x onerror=alert(2)>")
    assert window.locator("main script, main img, main svg, main style, main textarea ~ textarea").count() == 0
    assert window.evaluate("document.documentElement.scrollWidth") <= 800
    directions = {
        box.inner_text().strip()[:6]: box.evaluate("box => getComputedStyle(box).direction")
        for box in window.locator(".card .rendered, .card .written").all()
    }
    assert directions == {"<scrip": "ltr", "xxxxxx": "ltr", "مرحبا ": "rtl"}
    window.get_by_label("without formatting").check()
    assert "[x](javascript:alert(3))" in window.locator(".card .plain", has_text="[2J").inner_text()
