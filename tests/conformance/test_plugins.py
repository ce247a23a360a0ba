"""What `alignzoo plugin new` makes holds at once, in a folder and as a package; and so do the parts that ship."""

import subprocess
import sys
from pathlib import Path

import pytest

from alignzoo.cli import scaffold
from alignzoo.cli.main import main
from alignzoo.settings import UserError
from alignzoo.testing import conformance

KINDS = list(scaffold.kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_makes_has_every_property(kind: str, tmp_path: Path) -> None:
    made = scaffold.make("fresh_one", kind, tmp_path / "plugins")
    assert [path.name for path in made] == ["fresh_one.py", "README.md", "test_fresh_one.py"]
    (subject,) = conformance.subjects(str(tmp_path / "plugins" / "fresh_one"), tmp_path)
    results = list(conformance.run(subject))
    assert {r.property.name: str(r.failure) for r in results if r.failure} == {}
    assert len(results) >= 7


def test_the_tests_that_new_makes_pass(tmp_path: Path) -> None:
    for kind in KINDS:
        scaffold.make(f"my_{kind.replace('-', '_')}", kind, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"{len(KINDS)} passed" in done.stdout, done.stdout


def test_a_package_has_an_entry_point(tmp_path: Path) -> None:
    made = scaffold.make("fresh_one", "pairs", tmp_path, package=True)
    root = tmp_path / "alignzoo-fresh-one"
    assert {str(path.relative_to(root)) for path in made} == {
        "pyproject.toml", "fresh_one/__init__.py", "fresh_one/fresh_one.py", "fresh_one/README.md", "tests/test_fresh_one.py",
    }  # fmt: skip
    text = (root / "pyproject.toml").read_text()
    assert '[project.entry-points."alignzoo.algorithm"]\nfresh_one = "fresh_one.fresh_one:FreshOne"' in text
    assert "$" not in text
    (subject,) = conformance.subjects(str(root), tmp_path)
    assert subject.name == "fresh_one"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dpo", r"algorithm 'dpo' exists: in alignzoo .*\. Choose another name"),
        ("my-loss", "'my-loss' is no name for a plugin: .* such as my_loss"),
        ("class", "'class' is no name for a plugin"),
        ("2nd", "'2nd' is no name for a plugin"),
        ("full", "full exists and is not an empty folder: choose another name"),
    ],
)
def test_new_refuses(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=told):
        scaffold.make(name, "pairs", tmp_path)
    assert [path.name for path in tmp_path.rglob("*.py")] == []


def test_new_refuses_what_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"no kind 'pair'\. Did you mean 'pairs'"):
        scaffold.make("mine", "pair", tmp_path)
    with pytest.raises(UserError, match="'json' is the name of an installed Python module"):
        scaffold.make("json", "pairs", tmp_path, package=True)
    scaffold.make("mine", "reward", tmp_path)
    with pytest.raises(UserError, match=r"reward 'mine' exists: in .*mine\.py"):
        scaffold.make("mine", "reward", tmp_path)
    assert main(["plugin", "check", "doo"]) == 2
    assert "no plugin, file or package 'doo'. Did you mean 'opo' or 'dpo'" in capsys.readouterr().err


def test_check_prints_what_is_wrong_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, *_ = scaffold.make("brief", "reward", tmp_path)
    assert main(["plugin", "check", str(code)]) == 0
    printed = capsys.readouterr().out
    assert "pass  alone" in printed
    assert "FAIL" not in printed
    code, *_ = scaffold.make("brief", "reward", tmp_path / "broken")
    code.write_text(code.read_text().replace("(c.length - self.target)", "(c.length - c.length.mean() - self.target)"))
    assert main(["plugin", "check", str(code)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  alone            A completion has alone the score it has among others." in printed
    assert "likely cause: a mean, rank or variance over the batch" in printed
    assert "FAIL  own_test" in printed
    assert "2 properties do not hold" in printed
    assert main(["plugin", "check", str(code), "--skip", "alone", "--skip", "own_test"]) == 0
    assert "skipped: alone\nskipped: own_test" in capsys.readouterr().out


def test_check_tells_one_cause_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, *_ = scaffold.make("averaged", "completions", tmp_path)
    code.write_text(
        code.read_text().replace(
            "return -models.policy.logprobs(batch), {}", "return -models.policy.logprobs(batch).mean(), {}"
        )
    )
    assert main(["plugin", "check", str(code), "--skip", "own_test"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("the term 'loss' is one number, a mean or sum: return one a record, (B,), or a token, (B, T)") == 1
    assert "  FAIL  gradients        as shapes\n" in printed


def test_check_carries_out_the_hand_worked_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder, where it fails, and in a project that is not installed, where it passes."""
    code, _, test = scaffold.make("worked", "reward", tmp_path)
    test.write_text(test.read_text().replace("-4.0", "-5.0"))
    assert main(["plugin", "check", str(code)]) == 1
    printed = capsys.readouterr().out
    assert "expected: test_worked.py to pass" in printed
    assert "found: E   assert [-3.0, -4.0] == approx(" in printed
    assert "1 property does not hold" in printed
    scaffold.make("packed", "reward", tmp_path, package=True)
    assert main(["plugin", "check", str(tmp_path / "alignzoo-packed")]) == 0
    assert "pass  own_test" in capsys.readouterr().out


def shipped(tmp_path: Path) -> dict[str, list[str]]:
    """What ships beside algorithms, with the settings that it needs."""
    rows = [f'{{"prompt": "{i}", "chosen": "{i}", "rejected": "x"}}\n' for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "chat.jinja").write_text("{% for message in messages %}{{ message.content[:60] }}{% endfor %}")
    return {
        "reward=function": ["reward.path=alignzoo.rewards.text:length"],
        "data=jsonl": [f"data.path={tmp_path / 'rows.jsonl'}"],
        "data=mixture": [
            f"data.sources.{name}.{key}={value}"
            for name, weight in (("a", 1), ("b", 2))
            for key, value in (("kind", "jsonl"), ("weight", weight), ("path", tmp_path / "rows.jsonl"))
        ],
        "data=stories": ["data.max_prompt_tokens=40"],  # the context that is checked with is a small one
        "data=instructions": [f"data.chat_template={tmp_path / 'chat.jinja'}"],
        "data=reasoning_gym": [f"data.chat_template={tmp_path / 'chat.jinja'}", "data.generators={spell_backward: 1}"],
        "reference=copy": [],
        "reference=cached": [f"reference.path={tmp_path / 'cache.sqlite'}"],
        "reference=none": [],
        "metric=distinct_tokens": [],
    }


@pytest.mark.parametrize(
    "target",
    [
        "reward=function",
        "data=jsonl",
        "data=mixture",
        "data=stories",
        "data=instructions",
        "data=reasoning_gym",
        "reference=copy",
        "reference=cached",
        "reference=none",
        "metric=distinct_tokens",
    ],
)
def test_what_ships_has_every_property(target: str, tmp_path: Path) -> None:
    if target == "data=reasoning_gym":
        pytest.importorskip("reasoning_gym")
    (subject,) = conformance.subjects(target, tmp_path, shipped(tmp_path)[target])
    assert {r.property.name: str(r.failure) for r in conformance.run(subject) if r.failure} == {}


def test_a_pytest_of_ones_own(tmp_path: Path) -> None:
    """`pytest --alignzoo`, with one property that fails."""
    code, *_ = scaffold.make("brief", "reward", tmp_path)
    code.write_text(code.read_text().replace("self.target).abs()", "self.target).abs() / (c.length - 1)"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--alignzoo",
        str(code),
        "--deselect=test_brief.py",
    ]
    done = subprocess.run([*command, "brief"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "found NaN or Inf. Likely cause: a division by the length" in done.stdout
    assert "brief-short" in done.stdout
