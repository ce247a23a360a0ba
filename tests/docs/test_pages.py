"""What README and the documentation say works: every snippet and command is carried out, in order, from an empty folder."""

import gc
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from alignzoo import config
from alignzoo.bench import launch
from alignzoo.cli import main as cli
from alignzoo.cli.main import COMMANDS
from tests.docs.session import ROOT, Reader, forget, in_this_process, small, targets
from tests.docs.snippets import anchors, inline_commands, links, prose, snippets

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", *sorted(ROOT.glob("plugins/*/README.md")), *sorted(ROOT.glob("benchmarks/**/*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
HUB = [("model.path", "Qwen/Qwen3-0.6B"), ("roles.teacher", "Qwen/Qwen3-1.7B")]
PAIRS = [{"prompt": f"{i} and {i} are ", "chosen": f"{2 * i}.", "rejected": "many."} for i in range(6)]
CHATS = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}!"}]} for i in range(6)]


@pytest.fixture(scope="module", autouse=True)
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model as `from_pretrained` loads it, in place of those that pages take from the hub."""
    folder = tmp_path_factory.mktemp("model") / "run"
    assert cli.main(small(["train", f"run_dir={folder}"])) == 0
    gc.freeze()  # accelerate collects garbage after every run: what the imports made need not be gone through each time
    yield str(folder / "model")
    gc.unfreeze()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_snippet_does_what_the_page_says(
    page: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "trl_dpo]" in page.read_text("utf-8") and Version(version("transformers")) < Version("5.19"):
        pytest.skip("TRL's trainers need transformers 5.19")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "start", in_this_process)
    if page.name == "README.md":  # which takes the reader's own data and reward for given
        Path("preferences.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
        Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
        Path("mine.py").write_text("def score(completions):\n    return [float(len(text)) for text in completions]\n")
    reader = Reader(capsys, {f"{key}={name}": f"{key}={tiny_model}" for key, name in HUB})
    try:
        for snippet in snippets(page):
            try:
                reader.do(snippet)
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{page.name}, line {snippet.line}: {error}") from error
    finally:
        forget(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_within_sentences_exist(page: Path) -> None:
    for words in inline_commands(page):
        if words[0] == "make":
            assert set(words[1:]) <= targets(), words
            continue
        assert words[1] in {*COMMANDS, "--version"}, words
        overrides = [word for word in words[2:] if "=" in word]
        written_out = not any(re.search(r"[A-Z]{3}|\.\.\.|resume=|plugins_dir=", word) for word in words)
        if words[1] == "train" and written_out and "-m" not in words:
            config.compose(overrides)


@pytest.mark.parametrize("page", LINKED, ids=[str(page.relative_to(ROOT)) for page in LINKED])
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_of_the_house_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:alignzoo|plugins|tests|conf|benchmarks)/[\w/]+(?:\.\w+)?)`", prose(page))
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_the_example_plugin_trains_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first loss is that of its paper: at policy = reference, (0 - 1 / (2 beta))^2 = 25. Then it falls."""
    monkeypatch.chdir(tmp_path)
    (source,) = [s for s in snippets(ROOT / "README.md") if s.file]
    Reader(capsys, {}).do(source)
    folder = str(Path(source.file or "").parent)
    assert (
        cli.main(
            ["train", f"plugins_dir={folder}", "algorithm=squared", *small(["train"])[1:], "trainer.max_steps=8", "run_dir=r"]
        )
        == 0
    )
    losses = [row["loss"] for line in Path("r/metrics.jsonl").read_text().splitlines() if "loss" in (row := json.loads(line))]
    assert losses[0] == pytest.approx(25, abs=1e-3)
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.1


def test_the_page_about_runs_names_every_file_and_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main([*small(["train", "algorithm=rloo", "run_dir=r"]), "trainer.save_steps=1", "metrics=[distinct_tokens]"]) == 0
    )
    named = set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "runs.md").read_text("utf-8")))
    files = {path.name + "/" * path.is_dir() for path in Path("r").iterdir()}
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    metrics = {re.sub("^metric/.*", "metric/NAME", name.removeprefix("eval/")) for row in rows for name in row}
    assert files - named == set()
    assert metrics - named == set()
    assert {"gap_closed", "kl", "metric/NAME", "tokens_per_second"} <= metrics
    summary = json.loads(Path("r/summary.json").read_text())
    assert {name for name in summary if name.endswith(("_seconds", "_tokens", "samples", "steps"))} - named == set()


def test_the_reader_notices_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page is only as well tested as the reader reads."""
    monkeypatch.chdir(tmp_path)
    page = Path("page.md")
    wrong = {
        "```sh\nalignzoo train algorithm=nothing\n```": "ended with 2",
        "```sh\nalignzoo train trainer.max_step=3\n```": "no key",
        "```sh\nmake nonsense\n```": "nonsense",
        "```sh\nrm -rf /\n```": "rm",
        "<!-- composed: no network -->\n```sh\nalignzoo train algorithm.beta=-1\n```": "out of range",
        "```console\n$ alignzoo train algorithm=doo\nalignzoo: no algorithm 'doo'. Did you mean 'ppo'?\n```": "printed",
        "```console\n$ alignzoo list data\nalignzoo: ...\n```": "ended with 0",
        "```python\nraise ValueError('told')\n```": "told",
        "```\nwhat is this?\n```": "no language",
    }
    for text, complaint in wrong.items():
        page.write_text(text + "\n")
        (snippet,) = snippets(page)
        with pytest.raises(Exception, match=complaint):
            Reader(capsys, {}).do(snippet)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    site = tmp_path / "site"
    command = [
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "trees"),
        str(ROOT / "docs"),
        str(site),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    contract, cards = ((site / f"{name}.html").read_text("utf-8") for name in ("contract", "cards"))
    assert "at_last" in contract
    assert "least_samples" in contract
    assert "Direct preference optimisation" in cards
    text = "".join(page.read_text("utf-8") for page in site.glob("*.html"))
    assert not re.findall(r'src="https?:|<link[^>]*href="https?:', text), "the site needs a network"
