"""The report's files, from synthetic runs to what a browser makes of them."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from alignzoo.cli import main as cli
from alignzoo.report import page, report, sections
from alignzoo.report.report import write
from alignzoo.report.study import Study
from alignzoo.runs.results import Run
from alignzoo.settings import UserError
from tests.limits import HANG
from tests.report.runs import TUNED, write_bench, write_run

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
VOID = {"meta", "link", "br", "img", "hr", "input"}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The report's folder for four algorithms and nine seeds, one run unfinished."""
    runs = write_bench(tmp_path_factory.mktemp("bench"), seeds=9)
    (runs / "dpo-8" / "summary.json").unlink()
    known = {
        "exact": True, "reference": 0.1, "best_of_n": [{"n": 1, "kl": 0.0, "reward": 0.1}, {"n": 4, "kl": 0.6, "reward": 0.5}],
        "optimum": [{"beta": 9.0, "kl": 0.01, "reward": 0.2}, {"beta": 0.5, "kl": 0.5, "reward": 1.1}],
    }  # fmt: skip
    (runs / "ppo-0" / "frontier.json").write_text(json.dumps(known))
    (runs / "bench.json").write_text(
        json.dumps({"command": "alignzoo bench suite=exact seeds=8", "suite": "exact", "tuning": [TUNED]})
    )
    write([runs], runs / "report", command="alignzoo report runs")
    return runs / "report"


class Outline(HTMLParser):
    """Checks that tags nest; keeps the text in order and whatever an attribute would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data") and not (value or "").startswith(
                ("#", "data:")
            ):
                self.loads.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value)
        assert tag not in ("script", "iframe", "object", "embed")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open[-1:]:
            self.text.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def outline(written) -> Outline:
    found = Outline()
    found.feed((written / "report.html").read_text())
    assert found.open == []
    return found


def test_the_page_opens_with_the_answer(outline):
    body = outline.text[outline.text.index("alignzoo · exact · 4 algorithms, 9 seeds, 35 runs") + 1 :]
    assert body[0] == "ppo is better than dpo and distill, and not told apart from reinforce."
    assert body[1].startswith("ppo closes 91.") and "of the gap to the optimum" in body[1]


def test_the_parts_come_in_order_and_say_how_to_do_it_again(outline):
    titles = ["Method", "Results", "Learning curves", "Reward against KL", "Cost", "Completions side by side", "Reproduce"]
    assert [outline.text.index(title) for title in titles] == sorted(outline.text.index(title) for title in titles)
    assert "alignzoo bench suite=exact seeds=8" in outline.text and "2.13.0" in outline.text
    assert any("no summary.json" in text for text in outline.text)


def test_nothing_is_loaded_from_elsewhere(written, outline):
    assert outline.loads == []
    text = (written / "report.html").read_text()
    assert not re.search(r"@import|url\((?!#)", text)


def test_ids_of_the_plots_do_not_clash(outline):
    assert len(outline.ids) == len(set(outline.ids))


def test_markdown_says_the_same_and_its_plots_are_there(written):
    text = (written / "report.md").read_text()
    assert text.splitlines()[0] == "# ppo is better than dpo and distill, and not told apart from reinforce."
    shown = re.findall(r"\]\((plots/[^)]+)\)", text)
    assert len(shown) >= 6 and all((written / name).is_file() for name in shown)
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith(("| ppo |", "| dpo |")) and "runs)" in line}
    assert widths == {6}


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_both_pages_tell_what_tuning_tried(written, name):
    page = (written / name).read_text().replace("\\", "").replace("\N{NO-BREAK SPACE}", " ")
    assert "ppo: one trial of 3 failed and counted as the worst (CUDA out of memory)" in page
    assert "learning_rate=0.009876, clip=0.1" in page and "0.05 to 0.5, log" in page


def test_what_policies_wrote_is_text_not_markup(written):
    page, text = (written / "report.html").read_text(), (written / "report.md").read_text()
    assert "&lt;b&gt;|`*" in page and "<b>|" not in page
    assert r"&lt;b&gt;\|\`\*" in text and "<b>" not in text


def test_markdown_of_any_text():
    assert page.markdown("a|b\n<i>*x*</i> #1") == r"a\|b<br>&lt;i&gt;\*x\*&lt;/i&gt; \#1"


def test_numbers_stay_with_their_units():
    assert page.tied("at 95 % and 10 seeds (p = 0.012)") == "at 95\u00a0% and 10\u00a0seeds (p\u00a0=\u00a00.012)"


def test_the_same_runs_give_the_same_files(written, tmp_path):
    again = tmp_path / "again"
    write([written.parent], again, command="alignzoo report runs")
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert len(files) >= 10
    assert [name for name in files if (again / name).read_bytes() != (written / name).read_bytes()] == []


def test_the_command_writes_beside_the_runs_and_tells_the_answer(tmp_path, capsys):
    for algorithm, gap in (("ppo", 0.9), ("dpo", 0.5)):
        for seed in range(2):
            write_run(tmp_path / "runs" / f"{algorithm}-{seed}", algorithm, seed, gap + 0.01 * seed)
    assert report.main([str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("No claim possible below 6 seeds.")
    assert said.strip().endswith(str(tmp_path / "runs" / "report" / "report.html"))


def test_settings_without_effect_are_told_with_whom(tmp_path):
    for algorithm, unused in (("sft", ["rollout.samples"]), ("dpo", ["rollout.samples", "scoring.timeout"]), ("ppo", [])):
        path = write_run(tmp_path / algorithm, algorithm, 0, 0.5) / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"unused": unused}))
    write([tmp_path], tmp_path / "report")
    told = "No effect: rollout.samples with dpo, sft; scoring.timeout with dpo."
    assert told in (tmp_path / "report" / "report.md").read_text()


def test_the_report_on_one_run_goes_beside_it(tmp_path):
    folder = write_run(tmp_path / "ppo-0", "ppo", 0, 0.9)
    assert report.main([str(folder)]) == 0
    assert (tmp_path / "report" / "report.md").read_text().startswith("# ppo: 90.0 %")


def test_conditions_have_a_plot_and_a_part_each(tmp_path):
    for noise in (0.0, 0.2):
        for seed in range(2):
            write_run(tmp_path / f"dpo-{noise}-{seed}", "dpo", seed, 0.9 - noise, changes={"data.noise": noise})
    (tmp_path / "bench.json").write_text(json.dumps({"suite": "noisy", "vary": ["data.noise"]}))
    write([tmp_path], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert (
        text.startswith("# dpo: from 90.0 % under data.noise 0 to 70.0 % under data.noise 0.2.") and "# data.noise 0.2" in text
    )
    assert (tmp_path / "report" / "plots" / "conditions.svg").is_file()


def test_settings_that_had_no_say_are_left_out():
    """A run that sampled nothing has no rollout, a run with a budget no length of its own."""
    config = {"algorithm": {"epochs": 2}, "trainer": {"batch": 64, "epochs": 3.0, "max_steps": 0}, "rollout": {"samples": 8}}
    spent = config | {"budget": {"unit": "samples", "amount": 1e5}}
    stepped = config | {"trainer": {"max_steps": 50, "epochs": 1.0}}
    ran = [
        Run(Path(), own, {"algorithm": name, "completion_tokens": tokens}, {}, label=name)
        for name, own, tokens in (("dpo", config, 0), ("ppo", spent, 500), ("sft", stepped, 0))
    ]
    assert sections.settings(ran).rows == [
        ["dpo", "epochs=2, trainer.batch=64, trainer.epochs=3.0"],
        ["ppo", "epochs=2, trainer.batch=64, rollout.samples=8"],
        ["sft", "epochs=2, trainer.max_steps=50"],
    ]


def test_a_command_is_told_once():
    runs = [Run(Path(), {}, {}, {"command": ["alignzoo", "train"]})]
    told = page.Content(runs, [], Study(command=["alignzoo bench"]), {}, "alignzoo bench")
    assert told.commands == ["alignzoo bench"]
    assert page.Content(runs * 2, [], Study(), {}, "alignzoo report a").commands == ["alignzoo train", "alignzoo report a"]


def test_a_folder_that_cant_be_written(tmp_path):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.5)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write into .*file"):
        write([tmp_path / "dpo-0"], tmp_path / "file")


def test_files_that_no_report_has_left_are_written_over_only_if_asked(tmp_path, capsys):
    """Those of a report are, one that was killed half way included."""
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.5)
    out = tmp_path / "out"
    for name in ("report.md", "results.jsonl", "plots"):
        (out / "plots").mkdir(parents=True) if name == "plots" else out.mkdir()
        if name != "plots":
            (out / name).write_text('{"mine": 1}\n')
        assert cli.main(["report", str(tmp_path / "dpo-0"), "--out", str(out)]) == 2
        assert f"--out: {out / name} exists: choose another name, or write over it with --overwrite" in capsys.readouterr().err
        assert [path.name for path in out.rglob("*")] == [name]
        shutil.rmtree(out)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / ".probe").write_text("mine")
    command = ["report", str(tmp_path / "dpo-0"), "--out", str(out)]
    assert cli.main(command) == 0
    (out / "report.html").unlink()
    assert cli.main(command) == 0 and (out / "report.html").exists()
    (out / "results.jsonl").write_text("mine")
    assert cli.main(command) == 2
    assert cli.main([*command, "--overwrite"]) == 0
    assert [(out / name).read_text() for name in ("notes.txt", ".probe")] == ["mine", "mine"]


def test_a_torn_last_line_in_one_run_stops_no_report(tmp_path, capfd):
    for seed in (0, 1):
        write_run(tmp_path / f"dpo-{seed}", "dpo", seed, 0.5)
    for name in ("completions.jsonl", "metrics.jsonl"):
        with (tmp_path / "dpo-0" / name).open("ab") as file:
            file.write('{"step": 100, "prompt": "é'.encode()[:-1])
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    said = capfd.readouterr().err
    assert said.count("its last line was torn") == 2 and "completions.jsonl" in said and "metrics.jsonl" in said


def test_runs_from_anywhere_make_one_report_and_unfinished_ones_are_named(tmp_path, capsys):
    write_run(tmp_path / "here" / "ppo-0", "ppo", 0, 0.9)
    alone = write_run(tmp_path / "there" / "dpo-0", "dpo", 0, 0.5)
    killed = write_run(tmp_path / "there" / "dpo-1", "dpo", 1, 0.5)
    (killed / "summary.json").unlink()
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "here"), str(alone), str(killed), "--out", str(out)]) == 0
    assert f"{killed} is left out: no summary.json" in capsys.readouterr().err
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(row["label"], row["seed"]) for row in rows] == [("dpo", 0), ("ppo", 0)]
    assert str(killed) in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("subject", "changes"),
    [("task", {"choices.data": "jsonl"}), ("reward", {"choices.reward": "model"}),
     ("reference", {"choices.reference": "none"}), ("budget", {"budget": {"unit": "flops", "amount": 1e12}})],
)  # fmt: skip
def test_the_command_refuses_what_is_not_comparable_and_writes_nothing(tmp_path, subject, changes):
    write_run(tmp_path / "a", "ppo", 0, 0.9)
    other = write_run(tmp_path / "b", "dpo", 0, 0.5, changes=changes)
    with pytest.raises(UserError, match=rf"(?s)not comparable with .*/a.*{other}: another {subject} \("):
        report.main([str(tmp_path / "a"), str(other), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_where_the_policy_started_is_one_reference_however_it_is_kept(tmp_path):
    runs = [write_run(tmp_path / name, algorithm, 0, 0.9) for name, algorithm in (("a", "ppo"), ("b", "dpo"), ("c", "sft"))]
    for run, choice in zip(runs, ("copy", "adapter", "cached"), strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(config | {"choices": config["choices"] | {"reference": choice}}))
    assert report.main([*map(str, runs), "--out", str(tmp_path / "out")]) == 0


def test_a_bench_file_of_another_kind(tmp_path):
    write_run(tmp_path / "dpo-0", "dpo", 0, 0.5)
    (tmp_path / "bench.json").write_text('{"wary": []}')
    with pytest.raises(UserError, match=r"bench\.json is not what alignzoo bench writes"):
        write([tmp_path], tmp_path / "report")


# --- in a browser ---

MEASURE = """<script>onload = () => {
  const page = document.querySelector('iframe'), inside = page.contentDocument, width = page.clientWidth;
  inside.querySelectorAll('details').forEach(each => each.open = true);
  const scrolls = node => node.closest('.scroll') && node.closest('.scroll').scrollWidth > node.closest('.scroll').clientWidth;
  const out = node => node.getBoundingClientRect().right > width + 1 && !scrolls(node);
  const wide = [...inside.querySelectorAll('body *')].filter(out).map(node => node.outerHTML.slice(0, 80));
  const loads = page.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name);
  const loaded = loads.filter(name => !name.startsWith('data:'));
  document.body.innerText = 'MEASURED' + JSON.stringify({
    width: inside.documentElement.scrollWidth, wide, loaded,
    answer: inside.querySelector('h1').getBoundingClientRect().bottom,
    plot: inside.querySelector('figure img').getBoundingClientRect().bottom}) + 'END';
}</script>"""


def measured(page: str, folder: Path, width: int) -> dict:
    """What a window `width` pixels wide shows of this page, by a frame of that size."""
    frame = f'<body><iframe style="border:0;width:{width}px;height:844px" srcdoc="{html.escape(page)}"></iframe>{MEASURE}'
    (folder / "frame.html").write_text(frame)
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=5000",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--dump-dom", (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=os.environ | {"HOME": str(folder)})
    said = re.search(r"MEASURED(.*?)END", out.stdout, re.DOTALL)
    assert said, out.stderr[-2000:]
    return json.loads(html.unescape(said[1]))


@pytest.fixture(scope="module")
def browser() -> None:
    """Skips, loudly, where there is none; ALIGNZOO_NEEDS_BROWSER=1 makes that a failure."""
    if BROWSER is None:
        assert not os.environ.get("ALIGNZOO_NEEDS_BROWSER"), "no Chromium, and ALIGNZOO_NEEDS_BROWSER is set"
        pytest.skip("NO CHROMIUM: the report was not rendered. Install chromium to test it")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_and_the_first_screen_answers(written, tmp_path, browser, width):
    found = measured((written / "report.html").read_text(), tmp_path, width)
    assert found["width"] <= width and found["wide"] == []
    assert found["loaded"] == []
    assert found["plot"] < 844 and 0 < found["answer"] < 250


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """The report's folder for three noises, three algorithms, eight seeds, a budget and settings with long names."""
    runs = tmp_path_factory.mktemp("noisy")
    for noise in (0.0, 0.2, 0.4):
        for algorithm, slope in (("ppo", 0.3), ("reinforce", 0.2), ("trl_distillation", 0.8)):
            for seed in range(8):
                gap = 0.95 - slope * noise + 0.004 * ((5 * seed + len(algorithm)) % 8)
                changes = {"data.label_flips": noise, "budget": {"unit": "samples", "amount": 6400.0}}
                write_run(runs / f"{algorithm}-{noise}-{seed}", algorithm, seed, gap, changes=changes)
    said = {
        "suite": "exact-noisy",
        "vary": ["data.label_flips"],
        "command": ["alignzoo", "bench", "suite=exact-noisy", "a=[b, c]"],
    }
    (runs / "bench.json").write_text(json.dumps(said))
    write([runs], runs / "report", command="alignzoo report runs")
    return runs / "report"


def test_conditions_open_with_one_answer_one_plot_and_one_table(noisy):
    text = (noisy / "report.md").read_text()
    assert text.startswith("# reinforce is the best of 3, on average over 3 values of data.label\\_flips.")
    assert text.index("plots/conditions.svg") < text.index("## Over conditions") < text.index("## Method")
    rows = [
        line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| data.label", "| mean over", "| first to"))
    ]
    assert rows == [*(f"| data.label\\_flips {x}" for x in ("0", "0.2", "0.4")), "| mean over conditions", "| first to last"]
    assert "all 9 comparisons under all conditions together (Holm)" in text
    assert "single conditions behind them: p under a condition is no smaller" in text.split("## Method")[0]
    assert "a family of their own" in text and "3 comparisons can give is 0.023" in text
    assert "Budget of every run: 6,400 samples." in text
    assert "alignzoo bench suite=exact-noisy 'a=[b, c]'" in text


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_of_conditions_fits_too(noisy, tmp_path, browser, width):
    page = (noisy / "report.html").read_text()
    found = measured(page, tmp_path, width)
    assert found["width"] <= width and found["wide"] == [] and found["loaded"] == []
    assert found["plot"] < 844 and 0 < found["answer"] < 250


def test_pages_are_light(written, noisy):
    for folder in (written, noisy):
        assert (folder / "report.html").stat().st_size < 400_000


def test_plots_write_the_numbers_as_they_are(written):
    """And the page shows the file of the plot."""
    text = (written / "report.html").read_text()
    source = re.search(r'<img alt="scores" src="data:image/svg\+xml;base64,([^"]*)"', text)[1]
    shown = base64.b64decode(source).decode()
    assert shown == (written / "plots" / "scores.svg").read_text()
    words = re.findall(r">([^<>]*\d to \d[^<>]*)</text>", shown)
    rows = [json.loads(line) for line in (written / "results.jsonl").read_text().splitlines()]
    scores = [row["eval/gap_closed"] for row in rows if row["label"] == "distill"]
    assert len(words) == 4 and words[0].startswith(f"{100 * sum(scores) / len(scores):.1f}  (")


def test_the_measure_sees_what_overflows_and_what_is_loaded(tmp_path, browser):
    page = '<h1>x</h1><figure><img></figure><p style="width:600px">wide</p><img src="http://127.0.0.1:9/x.png">'
    found = measured(page, tmp_path, 390)
    assert found["width"] > 390 and len(found["wide"]) == 1
    assert found["loaded"] == ["http://127.0.0.1:9/x.png"]
