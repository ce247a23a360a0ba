"""`alignzoo label` as it is typed: from runs and files to data, through a pipe, a terminal and a spreadsheet."""

import codecs
import csv
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alignzoo.cli import main as cli
from alignzoo.data.files import JsonLines
from alignzoo.label import command, requests
from alignzoo.label.items import QuestionKind, Scale, item
from alignzoo.label.journal import Journal
from alignzoo.label.work import Work
from tests.limits import HANG

ROWS = [{"prompt": f"p{n}", "completions": [f"one {n}", f"two {n}"]} for n in range(3)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("rows.jsonl", ROWS)


@pytest.fixture
def typed(monkeypatch):
    """typed(KEYS): standard input, as a pipe."""

    def fill(keys):
        read, write = os.pipe()
        os.write(write, keys.encode())
        os.close(write)
        monkeypatch.setattr(command, "Typed", lambda: command_keys(read))

    from alignzoo.label.terminal import Typed as command_keys

    return fill


def write(path, rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path="labels.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().rstrip("\n").split("\n")]


def run_of(name, final, start="before"):
    """A run's folder with two evaluations."""
    rows = [{"step": step, "row": n, "prompt": f"p{n}", "completion": f"{text} {n}", "reward": 1.0}
            for step, text in ((0, start), (5, "halfway"), (9, final)) for n in range(3)]  # fmt: skip
    write(f"{name}/completions.jsonl", rows)


def label(*arguments):
    return cli.main(["label", *arguments])


def test_pairs_of_a_file_become_data(typed, capsys):
    typed("12")
    assert label("rows.jsonl", "--as", "pairs", "--rater", "ann") == 0
    assert "2 of 3 answered by ann; in labels.jsonl" in capsys.readouterr().out
    typed("1")
    assert label("rows.jsonl", "--as", "pairs", "--rater", "ann") == 0
    typed("1t1")
    assert label("rows.jsonl", "--as", "pairs", "--rater", "bob") == 0
    labelled = read()
    assert {row["prompt"] for row in labelled} == {"p0", "p1", "p2"}
    assert all(set(row) == {"prompt", "chosen", "rejected", "votes", "raters"} for row in labelled)
    assert all(row["raters"] == ["ann", "bob"] for row in labelled)
    train, _, report = JsonLines(path="labels.jsonl", heldout=0.0).rows()
    assert report["raters"]["names"] == ["ann", "bob"] and report["raters"]["votes"] == 6
    assert len(train) + report["raters"].get("ties_dropped", 0) == 3


@pytest.mark.parametrize(
    ("kind", "keys", "columns"),
    [("ratings", "123451", {"completion", "label"}), ("rankings", "2 1\n1=2\n1 2\n", {"completions", "ranks"})],
)
def test_ratings_and_rankings(typed, kind, keys, columns):
    typed(keys)
    assert label("rows.jsonl", "--as", kind) == 0
    labelled = read()
    assert len(labelled) == (6 if kind == "ratings" else 3)
    assert all(set(row) == {"prompt", "votes", "raters"} | columns for row in labelled)
    assert len(JsonLines(path="labels.jsonl", heldout=0.0).rows()[0]) == (6 if kind == "ratings" else 2)  # one is tied


def test_a_run_is_asked_beside_its_start_and_runs_beside_each_other(typed):
    run_of("a", "after")
    run_of("b", "better")
    typed("111")
    assert label("a", "--as", "pairs", "--out", "one.jsonl") == 0
    assert {frozenset(row["written_by"]) for row in read("one.jsonl")} == {frozenset({"a", "start"})}
    for row in read("one.jsonl"):
        texts = {"a": "after", "start": "before"}
        assert [row[side].split()[0] for side in ("chosen", "rejected")] == [texts[name] for name in row["written_by"]]
    typed("111")
    assert label("a", "b", "--as", "pairs", "--out", "two.jsonl") == 0
    assert {frozenset(row["written_by"]) for row in read("two.jsonl")} == {frozenset({"a", "b"})}
    typed("111111")
    assert label("a", "b", "--as", "ratings", "--out", "three.jsonl") == 0
    assert {row["completion"].split()[0] for row in read("three.jsonl")} == {"after", "better"}


def test_a_run_alone_is_rated_by_its_end(typed):
    run_of("a", "after")
    typed("111")
    assert label("a", "--as", "ratings") == 0
    assert {row["completion"].split()[0] for row in read()} == {"after"}


def test_of_a_run_that_stopped_early_the_completions_are_those_of_its_result(typed):
    run_of("one", "end")
    Path("one/summary.json").write_text(json.dumps({"early_stop": {"weights_of_step": 5}}))
    typed("333")
    assert label("one", "--as", "ratings") == 0
    assert sorted(row["completion"] for row in read()) == ["halfway 0", "halfway 1", "halfway 2"]


def test_pairs_that_others_made_are_labelled_again(typed):
    write("pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "c", "rejected": "c"}])
    typed("1")
    assert label("pairs.jsonl", "--as", "pairs") == 0
    assert [row["prompt"] for row in read()] == ["p"]


def fill(path, answers, column="preferred", **more):
    rows = list(csv.DictReader(Path(path).read_text("utf-8-sig").splitlines()))
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *more])
        writer.writeheader()
        writer.writerows({**row, column: said, **more} for row, said in zip(rows, answers, strict=True))
    return rows


def test_out_to_a_spreadsheet_and_back(capsys):
    assert label("rows.jsonl", "--as", "pairs", "--export", "out.csv") == 0
    assert "out.csv: 3 pairs to fill in" in capsys.readouterr().out
    assert not Path("labels.jsonl").exists()
    rows = fill("out.csv", ["first", "tie", ""])
    assert set(rows[0]) == {"id", "prompt", "first", "second", "preferred"}
    assert label("rows.jsonl", "--as", "pairs", "--import", "out.csv", "--rater", "ann") == 0
    made = {row["prompt"]: row for row in read()}
    assert set(made) == {rows[0]["prompt"], rows[1]["prompt"]}
    assert made[rows[0]["prompt"]]["chosen"] == rows[0]["first"]
    assert made[rows[1]["prompt"]]["votes"] == [0.5]
    fill("out.csv", ["second", "", ""], rater="bob")
    assert label("rows.jsonl", "--as", "pairs", "--import", "out.csv") == 0
    assert {row["prompt"]: row["raters"] for row in read()}[rows[0]["prompt"]] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("kind", "column", "said"),
    [("ratings", "rating", "4"), ("rankings", "ranks", "2 1"), ("corrections", "correction", "Better.")],
)
def test_every_kind_goes_through_csv(kind, column, said):
    assert label("rows.jsonl", "--as", kind, "--export", "out.csv") == 0
    rows = fill("out.csv", [said] * (3 if kind == "rankings" else 6), column)
    assert label("rows.jsonl", "--as", kind, "--import", "out.csv") == 0
    if kind == "ratings":
        assert all(row["votes"] == [4.0] for row in read())
    elif kind == "corrections":
        assert [row["completion"] for row in read()] == ["Better."] * 6
    else:
        best = {row["prompt"]: row["completion_2"] for row in rows}
        assert all(best[row["prompt"]] == row["completions"][row["ranks"].index(1)] for row in read())


def test_a_text_that_a_spreadsheet_would_carry_out_is_a_text(typed):
    write("evil.jsonl", [{"prompt": "=1+1", "completion": "@cmd"}])
    assert label("evil.jsonl", "--as", "ratings", "--export", "out.csv") == 0
    assert Path("out.csv").read_bytes().startswith(codecs.BOM_UTF8)  # or a spreadsheet reads another encoding
    (row,) = csv.DictReader(Path("out.csv").read_text().splitlines())
    assert (row["prompt"], row["completion"]) == (" =1+1", " @cmd")


def bad_csv(change):
    def made():
        label("rows.jsonl", "--as", "pairs", "--export", "bad.csv")
        Path("bad.csv").write_text(change(Path("bad.csv").read_text()))
        return ["rows.jsonl", "--as", "pairs", "--import", "bad.csv"]

    return made


def filled(cell):
    return lambda text: "\n".join([text.splitlines()[0], text.splitlines()[1] + cell, *text.splitlines()[2:]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.jsonl"], "say what is asked: --as pairs, --as ratings, --as rankings or --as corrections"),
        (["row.jsonl", "--as", "pairs"], "row.jsonl: no such run or file. Did you mean 'rows.jsonl'"),
        (["folder", "--as", "pairs"], "folder is no run with completions: it has no completions.jsonl"),
        (["single.jsonl", "--as", "pairs"], "there are no two different completions of any prompt: nothing to ask"),
        (["single.jsonl", "--as", "ratings", "--scale", "5", "1"], "--scale 5 1: the lowest rating must be below"),
        (["single.jsonl", "--as", "ratings", "--limit", "-1"], "--limit -1: must be >= 0"),
        (["single.jsonl", "--as", "ratings", "--out", "rows.jsonl"], "--out: rows.jsonl exists: choose another name, or write"),
        (["single.jsonl", "--as", "ratings", "--export", "rows.jsonl"], "--export: rows.jsonl exists: choose another name, or"),
        (["noprompt.jsonl", "--as", "ratings"], "noprompt.jsonl, line 1: no 'prompt'; it has completion"),
        (["prompts.jsonl", "--as", "ratings"], "prompts.jsonl, line 1: no 'completion' or 'completions' or 'chosen'"),
        (["number.jsonl", "--as", "ratings"], "number.jsonl, line 1: 7 must be a string, or a list of messages"),
        (["text.jsonl", "--as", "ratings"], "text.jsonl, line 1: not a JSON object"),
        (["rows.jsonl", "--as", "pairs", "--import", "none.csv"], "none.csv: no such file"),
        (["rows.jsonl", "--as", "corrections"], "corrections are written on a page or in a table: give --serve or --export"),
        (["rows.jsonl", "--as", "pairs", "--port", "1"], "--port is for the page: give --serve as well"),
        (["rows.jsonl", "--as", "pairs", "--raters", "ann"], "--raters is for the page: give --serve as well"),
        (["rows.jsonl", "--as", "pairs", "--serve", "--stats"], "--serve asks people, and --stats nobody"),
        (["rows.jsonl", "--as", "pairs", "--serve", "--import", "x.csv"], "--serve asks people, and --import nobody"),
        (["rows.jsonl", "--as", "pairs", "--serve", "--raters", "ann,ann"], "--raters ann,ann: must be different names"),
        (["rows.jsonl", "--as", "pairs", "--serve", "--raters", ""], "--raters : must be different names"),
        (["rows.jsonl", "--stats"], "no labels: give what alignzoo label made"),
        (bad_csv(lambda text: text.replace("preferred", "prefered")), "no column 'preferred'; it has id, prompt"),
        (bad_csv(lambda text: text.replace("id,", "identity,", 1)), "bad.csv: no column 'id'"),
        (bad_csv(filled("both")), "bad.csv, line 2: preferred: 'both' must be first, second, tie or skip"),
        (bad_csv(lambda text: filled("tie")(text).replace("\n", "\nx", 1)), "bad.csv, line 2: no item has the id 'x"),
        (bad_csv(lambda text: text + filled("tie")(text).splitlines()[1] + "\n" + filled("tie")(text).splitlines()[1]),
         "bad.csv, line 6: ann has answered"),
        (bad_csv(filled("tie,more,cells")), "bad.csv, line 2: more cells than the 5 columns"),
    ],
)  # fmt: skip
def test_mistakes(arguments, message, capsys):
    Path("folder").mkdir()
    write("single.jsonl", [{"prompt": "p", "completion": "c"}])
    write("noprompt.jsonl", [{"completion": "c"}])
    write("prompts.jsonl", [{"prompt": "p"}])
    write("number.jsonl", [{"prompt": "p", "completion": 7}])
    Path("text.jsonl").write_text("hello\n")
    given = arguments() if callable(arguments) else arguments
    capsys.readouterr()
    assert label(*given, "--rater", "ann") == 2
    assert message in capsys.readouterr().err
    assert not Path("labels.answers.jsonl").exists()


def test_a_file_has_one_kind_and_one_scale(typed, capsys):
    typed("9")
    assert label("rows.jsonl", "--as", "ratings", "--scale", "0", "9") == 0
    assert label("rows.jsonl", "--as", "pairs") == 2
    assert "labels.answers.jsonl holds ratings: give pairs a file of their own with --out" in capsys.readouterr().err
    assert label("rows.jsonl", "--as", "ratings", "--scale", "1", "5") == 2
    assert "labels.answers.jsonl holds ratings from 0 to 9: leave --scale out" in capsys.readouterr().err
    typed("0")
    assert label("rows.jsonl", "--as", "ratings") == 0
    assert [row["label"] for row in read()] == [9.0, 0.0]


def test_raters_at_the_same_time_lose_nothing_of_each_other():
    items = [item(QuestionKind.ratings, f"p{n}", ["c"]) for n in range(10)]

    def answer(rater):
        work = Work(items, Scale(), Journal(Path("both.answers.jsonl")), Path("both.jsonl"))
        for one in items:
            work.journal.append(rater, one, 3.0, work.scale)
            work.keep()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer, ["ann", "bob", "cy", "di"]))
    assert [sorted(row["raters"]) for row in read("both.jsonl")] == [["ann", "bob", "cy", "di"]] * 10


def test_a_request_is_answered_where_it_waits(typed, capsys):
    asked = [item(QuestionKind.ratings, "p", [f"c{n}"]) for n in range(3)]
    path = Path("asked") / "request-0001-abc.jsonl"
    path.parent.mkdir()
    requests.write(path, requests.Questionnaire(asked, Scale(0, 9)))
    typed("95")
    assert label(str(path), "--rater", "ann") == 0
    assert "2 of 3 answered by ann; in asked/request-0001-abc.answers.jsonl" in capsys.readouterr().out
    typed("1")
    assert label(str(path), "--rater", "bob") == 0  # two have enough answers
    assert "3 of 3" in capsys.readouterr().out
    assert sorted(one.answer for one in requests.answers(path, pytest.fail)) == [1.0, 5.0, 9.0]
    assert label(str(path), "rows.jsonl") == 2
    assert "is a request, which is answered by itself" in capsys.readouterr().err


def test_stats(typed, capsys):
    run_of("a", "after")
    for rater, keys in (("ann", "121"), ("bob", "211"), ("cy", "12t")):
        typed(keys)
        assert label("a", "--as", "pairs", "--rater", rater) == 0
    capsys.readouterr()
    assert label("labels.jsonl", "--stats") == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["names", "ann,", "bob,", "cy"] in shown and ["votes", "9"] in shown
    assert {tuple(line[:3]) for line in shown} >= {("ann", "bob", "3"), ("ann", "cy", "3"), ("bob", "cy", "3")}
    wins = [vote for row in read() for vote in (row["votes"] if row["written_by"][0] == "a" else [1 - v for v in row["votes"]])]
    share = f"{sum(vote == 1 for vote in wins) / 9:.0%}"
    assert ["a", "start", "9", share, f"{1 / 9:.0%}"] in shown


class Terminal:
    """`alignzoo label` in a process of its own, on a pseudo-terminal."""

    def __init__(self, *arguments):
        pid, self.descriptor = pty.fork()
        if not pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background of a shell
            os.execv(sys.executable, [sys.executable, "-m", "alignzoo", "label", *arguments])
        self.pid, self.shown = pid, ""

    def until(self, text):
        """Reads until `text` was shown after what was awaited before."""
        deadline = time.monotonic() + HANG
        while text not in self.shown:
            assert select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            try:
                self.shown += os.read(self.descriptor, 4096).decode("utf-8", "replace")
            except OSError:  # the other side is closed
                break
        assert text in self.shown, self.shown
        self.shown = self.shown.partition(text)[2]
        return self

    def type(self, keys):
        os.write(self.descriptor, keys.encode())
        return self

    def end(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)


def test_on_a_terminal_with_undo_quit_ctrl_c_and_kill():
    first = Terminal("rows.jsonl", "--as", "pairs", "--rater", "ann")
    first.until("1 of 3").until("q quit").type("x").until("'x' is no answer").type("\x1b[C1").until("2 of 3").until("q quit")
    first.type("u").until("1 of 3").until("q quit").type("2").until("2 of 3").until("q quit").type("q").until(
        "1 of 3 answered by ann"
    )
    assert first.end() == 0
    assert len(read()) == 1
    second = Terminal("rows.jsonl", "--as", "pairs", "--rater", "ann").until("2 of 3").until("q quit")
    second.type("\x03").until("1 of 3 answered by ann").until("interrupted")
    assert second.end() == 130
    third = Terminal("rows.jsonl", "--as", "pairs", "--rater", "ann").until("2 of 3").until("q quit").type("t").until("3 of 3")
    os.kill(third.pid, signal.SIGKILL)
    assert third.end() == -signal.SIGKILL
    assert len(read()) == 2
    fourth = Terminal("rows.jsonl", "--as", "pairs", "--rater", "ann").until("3 of 3").until("q quit").type("1")
    fourth.until("3 of 3 answered by ann")
    assert fourth.end() == 0
    assert len(read()) == 3
    assert sum(0.5 in row["votes"] for row in read()) == 1


def test_a_ranking_is_shown_as_it_is_typed():
    write("three.jsonl", [{"prompt": "p", "completions": ["a", "b", "c"]}])
    terminal = (
        Terminal("three.jsonl", "--as", "rankings").until("q quit").type("2 1=4").until("2 1=4").type("\x7f").until("2 1=")
    )
    terminal.type("3\n").until("1 of 1 answered")
    assert terminal.end() == 0
    assert sorted(read()[0]["ranks"]) == [1, 2, 2]


def test_help_says_what_it_takes():
    done = subprocess.run([sys.executable, "-m", "alignzoo", "label", "--help"], capture_output=True, text=True, check=True)
    for word in ("--as {pairs,ratings,rankings,corrections}", "--serve", "--export", "--import", "--stats", "reward=human"):
        assert word in done.stdout


def test_a_file_of_somebody_else_is_written_over_where_that_is_wanted(typed):
    Path("mine.jsonl").write_text("mine")
    typed("1")
    assert label("rows.jsonl", "--as", "pairs", "--out", "mine.jsonl", "--overwrite") == 0
    assert [row["chosen"].split()[0] in ("one", "two") for row in read("mine.jsonl")] == [True]
    assert label("rows.jsonl", "--as", "pairs", "--export", "mine.jsonl", "--overwrite", "--out", "other.jsonl") == 0
    assert Path("mine.jsonl").read_text("utf-8-sig").startswith("id,prompt,first,second")


def test_completions_whose_last_line_was_torn_are_asked_about(typed, capfd):
    """Inside a character of several bytes; ends of lines in a text are none of the file."""
    rows = [{"step": step, "row": 0, "prompt": "p\u2028q", "completion": f"é\u2028{step}"} for step in (0, 5)]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    Path("run").mkdir()
    Path("run/completions.jsonl").write_bytes(data + '{"step": 5, "prompt": "é'.encode()[:-1])
    typed("1")
    assert label("run", "--as", "pairs") == 0
    assert {row[side] for row in read() for side in ("chosen", "rejected")} == {"é\u20280", "é\u20285"}
    assert "alignzoo: run/completions.jsonl: its last line was torn" in capfd.readouterr().err
