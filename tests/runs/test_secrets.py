"""What comes from the environment, and passwords in addresses, are in memory only."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from alignzoo import compose
from alignzoo.cli.main import main
from alignzoo.common import fingerprint
from alignzoo.config import load_run
from alignzoo.config.run import instantiate
from alignzoo.errors import masked, printable
from alignzoo.report.table import show_rows
from alignzoo.rewards.remote import Http
from alignzoo.runs import sample, single
from alignzoo.runs.made_of import parts
from alignzoo.settings import UserError
from tests.rewards.servers import serving
from tests.runs.test_strangers import TINY

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("RATE", "0.25")
    monkeypatch.chdir(tmp_path)


def scores(message: Any) -> Any:
    return {"scores": [1.0] * len(message["completions"])}


def with_login(url: str, login: str) -> str:
    return url.replace("//", f"//{login}@")


@pytest.mark.parametrize("written", [f"me:{SECRET}", "me:${oc.env:SECRET}"])
def test_a_password_is_in_no_file_nor_message_and_the_run_goes_on(
    written: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = os.umask(0o027)
    with serving(scores) as server:
        given = ["alignzoo", "train", *TINY, "reward=http", f"reward.url='{with_login(server.url, written)}'", "run_dir=run"]
        monkeypatch.setattr(sys, "argv", given)
        assert main(given[1:]) == 0
        os.umask(old)
        assert server.headers[0]["Authorization"] == "Basic bWU6aHVudGVyMg=="  # base64 of me:hunter2
        Path("run/summary.json").unlink()
        (Path("run") / "metrics.jsonl").unlink()
        assert main(given[1:]) == 0
        Path("run/summary.json").unlink()
        again = ["train", "resume=run", *([f"reward.url='{with_login(server.url, written)}'"] if SECRET in written else [])]
        assert main(again) == 0
    files = {str(path): path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert [name for name, content in files.items() if SECRET.encode() in content] == []
    told = capfd.readouterr()
    assert SECRET not in told.out + told.err
    kept = "me:***@" if SECRET in written else "me:${oc.env:SECRET}@"
    assert f"  url: {with_login(server.url, kept[:-1])}\n".encode() in files["run/config.yaml"]
    assert kept in json.loads(files["run/environment.json"])["command"][-2]
    assert stat.S_IMODE(Path("run/config.yaml").stat().st_mode) == 0o640


def test_a_password_that_no_file_holds_is_asked_for() -> None:
    Path("run").mkdir()
    cfg = compose([*TINY, "reward=http", "reward.url='http://me:hunter2@localhost:1'"])
    Path("run/config.yaml").write_text(single.identity(cfg))
    setup = instantiate(load_run("run"))
    with pytest.raises(
        UserError, match=r"^reward\.url=http://me:\*\*\*@localhost:1: the run's files don't hold its password: give"
    ):
        setup.reward.resolve(setup.data)
    with pytest.raises(
        UserError, match=r"reward\.url: http://me:\*\*\*@localhost:2 here, http://me:\*\*\*@localhost:1 in the run$"
    ):
        compose(["resume=run", f"reward.url='http://me:{SECRET}@localhost:2'"])
    again = compose(["resume=run", "reward.url='http://me:${oc.env:SECRET}@localhost:1'"])
    assert again.reward.url == "http://me:hunter2@localhost:1" and single.identity(again) == single.identity(cfg)


def test_texts_of_the_environment_stay_as_they_were_given_and_numbers_are_settings() -> None:
    parts = "{a: {kind: http, url: '${gold.url}'}, b: {kind: http, url: 'http://${oc.env:SECRET}'}}"
    cfg = compose(
        [*TINY, "gold=http", "gold.url='http://h/${oc.env:SECRET}'", "reward=sum", f"reward.parts={parts}",
         "trainer.trackers=['${oc.env:SECRET}']", "trainer.learning_rate=${oc.env:RATE}", "label=${oc.env:RATE}"]
    )  # fmt: skip
    text = single.identity(cfg)
    lines = [line.strip() for line in text.split("\n") if "${" in line]
    assert lines == ["url: ${gold.url}", "url: http://${oc.env:SECRET}", "url: http://h/${oc.env:SECRET}", "- ${oc.env:SECRET}"]
    assert "learning_rate: 0.25\n" in text and "label: '0.25'\n" in text and SECRET not in text
    Path("run").mkdir()
    Path("run/config.yaml").write_text(text)
    loaded = load_run("run", trust=True)
    setup = instantiate(loaded)
    assert single.identity(loaded) == text
    assert [setup.reward.parts[name]["url"] for name in "ab"] == ["http://h/hunter2", "http://hunter2"]
    assert (setup.gold.url, setup.training.trackers, setup.training.learning_rate) == ("http://h/hunter2", [SECRET], 0.25)


def test_another_value_of_the_environment_is_another_config_and_its_hash_can_t_be_tried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = compose([*TINY, "reward=http", "reward.url='http://h/${oc.env:SECRET}'"])
    items = parts(instantiate(cfg), single.contents(cfg))["config"]
    digest = fingerprint.of(cfg, {}, {})
    plain = {fingerprint.of_json(text) for text in (SECRET, f"http://h/{SECRET}", "http://h/${oc.env:SECRET}")}
    assert items["reward.url"] not in plain
    assert parts(instantiate(cfg), single.contents(cfg))["config"] == items and fingerprint.of(cfg, {}, {}) == digest
    monkeypatch.setenv("SECRET", "hunter3")
    now = parts(instantiate(cfg), single.contents(cfg))["config"]
    assert {key for key in items if items[key] != now[key]} == {"reward.url"} and fingerprint.of(cfg, {}, {}) != digest
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("ALIGNZOO_CACHE", "elsewhere")  # another key
    assert parts(instantiate(cfg), single.contents(cfg))["config"]["reward.url"] != items["reward.url"]


def test_what_a_variable_holds_is_not_told_where_resuming_is_refused() -> None:
    Path("run").mkdir()
    cfg = compose([*TINY, "reward=http", "reward.url='http://h/${oc.env:SECRET}'"])
    Path("run/config.yaml").write_text(single.identity(cfg))
    for url in ("http://h/other", "'http://g/${oc.env:SECRET}'"):
        with pytest.raises(UserError) as caught:
            compose(["resume=run", "trust=true", f"reward.url={url}"])
        assert str(caught.value).endswith("differ:\n  reward.url: what the environment makes of it")


def test_a_sweep_keeps_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    given = [*TINY, "reward=http", f"reward.url=http://me:{SECRET}@localhost:1", "seed=0,1", "run_dir=all"]
    assert main(["train", "-m", *given]) == 2
    assert capsys.readouterr().err == (
        "alignzoo: reward.url=http://me:***@localhost:1: -m would keep the password in multirun.yaml: "
        "give it as ${oc.env:NAME}\n"
    )
    assert not Path("all").exists()


def test_a_name_in_the_address_and_a_token_are_one_too_many() -> None:
    with pytest.raises(UserError, match=r"the name in reward\.url=http://me:\*\*\*@h: a request has one of them"):
        Http(url="http://me:hunter2@h", token="SECRET").resolve(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host/x and HTTPS://me:a:b@c@host", "http://me:***@host/x and HTTPS://me:***@host"),
        ("http://token@host:80/x@y", "http://***@host:80/x@y"),
        ("http://host:80/a:b@c?d:e@f", "http://host:80/a:b@c?d:e@f"),
        ("http://me:${oc.env:PW}@host", "http://me:${oc.env:PW}@host"),
        ("me:pw@host ssh://git@host", "me:pw@host ssh://git@host"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert masked(text) == shown


# --- what would steer a terminal ---

EVIL, SHOWN = (
    "\x1b]0;owned\x07 \u202eabc\u2028\ud800 é\u3000長\n\tok",
    "\\x1b]0;owned\\x07 \\u202eabc\\u2028\\ud800 é\u3000長\n\tok",
)


def test_text_of_others_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(EVIL) == SHOWN == str(UserError(EVIL))
    sample.show_one(sample.PairedSample(prompt=EVIL, policy=EVIL, reference=EVIL))
    show_rows(["name"], [[EVIL]])
    told = capsys.readouterr().out
    assert told.count("\\x1b]0;owned\\x07") == 4 and "\x1b" not in told and "\x07" not in told and "\u202e" not in told


def test_a_servers_reason_is_shown_and_not_obeyed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http.server.BaseHTTPRequestHandler.responses", {500: ("\x1b[2Jgone", "")})
    with serving(lambda message: 500) as server:
        given = ["train", *TINY, "reward=http", f"reward.url={server.url}", "reward.retries=0"]
        assert main([*given, "run_dir=stopped"]) == 2
        assert main([*given, "run_dir=scored", "scoring.on_error=default"]) == 0
    told = capfd.readouterr().err
    assert told.count("answered 500 \\x1b[2Jgone") >= 2 and "\x1b[2J" not in told
