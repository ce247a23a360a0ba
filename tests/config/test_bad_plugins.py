"""Plugins that can't be used: each says why in one message, and the others work on."""

import sys
from pathlib import Path

import pytest

import alignzoo
from alignzoo import config
from alignzoo.cli.main import main
from alignzoo.config.registry import Registry
from alignzoo.settings import UserError

HEAD = "from dataclasses import dataclass\nfrom typing import Literal\nfrom alignzoo.batch import Completions\n"
REWARD = (
    HEAD
    + '''from alignzoo.contracts import Reward, Scores

@dataclass(kw_only=True)
class Mine(Reward):
    """A reward of mine."""
    scale: float = 1.0
    def __call__(self, c):
        return Scores(total=self.scale * c.length)
'''
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.py").write_text(REWARD)
    return tmp_path


def refused(folder: Path, name: str, text: str, group: str = "reward") -> str:
    """The message for a plugin of this text, beside one that is good and stays so."""
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(UserError) as caught:
        config.compose([f"plugins_dir={folder}", f"{group}={name}"])
    assert config.compose([f"plugins_dir={folder}", "reward=good"]).reward.scale == 1.0
    return str(caught.value)


def test_a_syntax_error(folder: Path) -> None:
    assert "can't be imported: SyntaxError: expected ':' (wrong.py, line 2)" in refused(
        folder, "wrong", "x = 1\nclass A\n", "algorithm"
    )


def test_a_class_that_is_no_dataclass(folder: Path) -> None:
    text = REWARD.replace("@dataclass(kw_only=True)\n", "").replace("    scale: float = 1.0\n", "    scale = 1.0\n")
    assert refused(folder, "plain", text).endswith("names " + module(folder, "plain") + ":Mine, which is no dataclass")
    heir = REWARD + "\nclass Heir(Mine):\n    more: int = 1\n"
    (folder / "heir.py").write_text(
        heir.replace("class Mine(Reward)", "class Mine(Reward, Base)").replace("@data", "class Base: pass\n\n@data", 1)
    )
    with pytest.raises(UserError, match=r"must hold exactly one reward .* it holds Mine, Heir"):
        Registry(folder).load("reward", "heir")
    (folder / "child.py").write_text("from alignzoo.rewards.task import Task\nclass Child(Task):\n    more: int = 1\n")
    with pytest.raises(UserError, match="must hold exactly one algorithm"):
        Registry(folder).load("algorithm", "child")


def module(folder: Path, name: str) -> str:
    return Registry(folder).get("reward", name).module


def test_a_field_type_that_a_config_cannot_hold(folder: Path) -> None:
    told = refused(folder, "literal", REWARD.replace("scale: float = 1.0", 'scale: Literal["a", "b"] = "a"'))
    assert "can't be in a config" in told
    assert "Literal" in told
    assert "an Enum" in told


def test_a_circular_import(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one" / "two.py").write_text("from .one import Mine\n")
    (folder / "one" / "one.py").write_text("from .two import Mine as Other\n" + REWARD)
    with pytest.raises(UserError, match=r"\(a circular import: move what both files need into a third\)"):
        Registry(folder).load("reward", "one")


def test_two_plugins_of_one_name_are_both_named(folder: Path) -> None:
    (folder / "function.py").write_text(REWARD)
    with pytest.raises(UserError, match=r"^reward 'function' is there twice: in alignzoo .* and in .*function\.py"):
        Registry(folder).load("reward", "function")
    assert Registry(folder).load("reward", "good").__name__ == "Mine"


def test_nonsense_leaves_lists_and_cards_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "odd").mkdir()
    (folder / "odd" / "odd.py").write_bytes(b"\xff\xfe not text")
    (folder / "odd" / "README.md").write_text("---\nsummary: [unclosed\n---\n")
    (folder / "quits.py").write_text("import sys\nsys.exit(3)\n" + REWARD)
    assert main(["plugin", "list", f"plugins_dir={folder}"]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[1]: line for line in shown.splitlines() if len(line.split()) > 2}
    assert rows["good"].rstrip().endswith("ok")
    assert rows["dpo"].rstrip().endswith("ok")
    assert " ".join(shown.split()).count("can't be imported") == 2  # in whatever lines of the table


@pytest.mark.parametrize(
    ("stated", "remedy"), [("2.0", "a newer alignzoo"), ("0.9", "a newer version of the plugin"), ("1.99", "a newer alignzoo")]
)
def test_another_version_is_named_before_anything_is_imported(folder: Path, stated: str, remedy: str) -> None:
    text = REWARD.replace("    scale", f'    api_version = "{stated}"\n    scale') + "\nfrom alignzoo.contracts import Gone\n"
    told = refused(folder, "other", text)
    version = f"alignzoo {alignzoo.__version__} has version {alignzoo.API_VERSION}"
    assert f"was made for version {stated} of the plugin contract, and {version}: install {remedy}" in told


def test_the_same_major_version_is_taken(folder: Path) -> None:
    (folder / "stated.py").write_text(REWARD.replace("    scale", f'    api_version = "{alignzoo.API_VERSION}"\n    scale'))
    assert Registry(folder).load("reward", "stated").__name__ == "Mine"


def test_local_folders_hold_every_group(folder: Path) -> None:
    (folder / "share.py").write_text("import torch\ndef share(c):\n    return torch.ones(len(c))\n")
    (folder / "test_good.py").write_text("raise SystemError\n")
    before = set(sys.modules)
    found = Registry(folder)
    assert "good" in found.names("reward") and "share" in found.names("metric")
    assert "good" not in found.names("algorithm") and "test_good" not in found.names("algorithm")
    assert found.metric("share")([1, 2]).tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match=r"no metric 'shore'\. Did you mean 'share'"):
        found.metric("shore")
    assert not [name for name in set(sys.modules) - before if name.endswith((".good", ".test_good"))]
