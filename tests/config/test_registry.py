"""Plugins are found by name without being imported; what is wrong with one leaves the others alone."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from alignzoo import config
from alignzoo.config import registry
from alignzoo.config.registry import Registry
from alignzoo.contracts import Algorithm
from alignzoo.settings import UserError

MINE = '''
from dataclasses import dataclass
from alignzoo.batch import Batch
from alignzoo.contracts import Algorithm

@dataclass(kw_only=True)
class Mine(Algorithm):
    """The loss I always wanted."""
    weight: float = 0.5
    data = Batch
    def roles(self):
        return {}
    def loss(self, models, batch):
        return batch, {}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three local plugins: a file, a folder with a file beside it, and one that can't be imported."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "helper.py").write_text("SCALE = 3.0\n")
    (tmp_path / "deep" / "deep.py").write_text(
        "from .helper import SCALE\n" + MINE.replace("0.5", "SCALE").replace("Mine", "Deep")
    )
    (tmp_path / "deep" / "presets").mkdir()
    (tmp_path / "deep" / "presets" / "deeper.yaml").write_text("# Deep, and heavier\ndefaults: [deep, _self_]\nweight: 9.0\n")
    (tmp_path / "broken.py").write_text("import a_package_nobody_has\n" + MINE)
    return tmp_path


def test_local_plugins_are_listed_without_importing_them(folder: Path) -> None:
    before = set(sys.modules)
    found = Registry(folder)
    assert {"mine", "deep", "deeper", "broken", "dpo"} <= set(found.names("algorithm"))
    assert found.card("algorithm", "mine").summary == "The loss I always wanted."
    assert found.card("algorithm", "deeper").summary == "Deep, and heavier"
    assert set(sys.modules) == before


def test_local_plugins_are_composed_with_their_own_schema(folder: Path) -> None:
    made = config.instantiate(config.compose([f"plugins_dir={folder}", "algorithm=mine", "algorithm.weight=2"]))
    assert isinstance(made.algorithm, Algorithm)
    assert made.algorithm.weight == 2.0
    assert config.compose([f"plugins_dir={folder}", "algorithm=deep"]).algorithm.weight == 3.0
    assert config.compose([f"plugins_dir={folder}", "algorithm=deeper"]).algorithm.weight == 9.0
    with pytest.raises(UserError, match=r"no key 'algorithm.weigth'\. Did you mean 'weight'\?"):
        config.compose([f"plugins_dir={folder}", "algorithm=mine", "algorithm.weigth=2"])


def test_a_local_folder_is_gone_with_the_override(folder: Path) -> None:
    config.compose([f"plugins_dir={folder}", "algorithm=mine"])
    with pytest.raises(UserError, match="no algorithm 'mine'"):
        config.compose(["algorithm=mine"])


def test_a_plugin_that_fails_to_import_is_named_and_the_others_work(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        config.compose([f"plugins_dir={folder}", "algorithm=broken"])
    reason = "ModuleNotFoundError: No module named 'a_package_nobody_has'"
    assert str(caught.value) == f"the plugin 'broken' ({folder / 'broken.py'}) can't be imported: {reason}"
    assert config.compose([f"plugins_dir={folder}", "algorithm=mine"]).algorithm.weight == 0.5


def test_a_name_that_two_have_is_an_error_naming_both(folder: Path) -> None:
    (folder / "dpo.py").write_text(MINE)
    with pytest.raises(
        UserError, match=r"^algorithm 'dpo' is there twice: in alignzoo .* and in .*/dpo\.py\. Remove or rename one\.$"
    ):
        config.compose([f"plugins_dir={folder}", "algorithm=dpo"])
    assert config.compose([f"plugins_dir={folder}", "algorithm=mine"]).choices["algorithm"] == "mine"


def test_a_file_must_hold_one_algorithm(folder: Path) -> None:
    (folder / "two.py").write_text(MINE + MINE.replace("class Mine", "class Yours"))
    (folder / "none.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"two\.py must hold exactly one algorithm .* it holds Mine, Yours$"):
        Registry(folder).load("algorithm", "two")
    (folder / "half.py").write_text(MINE.replace("    data = Batch\n", ""))
    with pytest.raises(UserError, match=r"half\.py\): Mine is not finished: it does not say its data$"):
        Registry(folder).load("algorithm", "half")
    with pytest.raises(UserError, match=r"none\.py must hold exactly one algorithm .* it holds none$"):
        Registry(folder).load("algorithm", "none")


def test_every_plugin_composes_and_says_what_it_is() -> None:
    zoo = Registry()
    for group in registry.GROUPS:
        for name in zoo.names(group):
            cfg = config.compose([f"{group}={name}"])
            assert cfg.choices[group] == name
            assert OmegaConf.get_type(cfg[group]) is zoo.load(group, name)
            assert zoo.card(group, name).summary, f"{group} {name} has no line that says what it is"


def test_a_card_without_front_matter_is_not_a_card(folder: Path) -> None:
    (folder / "deep" / "README.md").write_text("# notes\n")
    assert Registry(folder).card("algorithm", "deep").summary == "The loss I always wanted."
    front = "---\nfamily: preference\nsummary: Deep thoughts\nneeds: [policy, reward]\ndata: Pairs\npaper: Me 2026\n---\nText\n"
    (folder / "deep" / "README.md").write_text(front)
    card = Registry(folder).card("algorithm", "deep")
    assert card == registry.Card("Deep thoughts", "preference", ["policy", "reward"], "Pairs", "Me 2026", "Text")
    assert registry.field_names(Registry(folder).get("algorithm", "deep")) == ["weight"]


def test_an_edited_plugin_is_loaded_again_in_the_same_process(folder: Path) -> None:
    asked = [f"plugins_dir={folder}", "algorithm=deep"]
    first = config.instantiate(config.compose(asked)).algorithm
    again = config.instantiate(config.compose(asked)).algorithm
    assert (first.weight, type(again)) == (3.0, type(first)), "nothing is loaded twice for nothing"
    (folder / "deep" / "helper.py").write_text("SCALE = 4.0\n")  # as long as before, within the same second
    assert config.instantiate(config.compose(asked)).algorithm.weight == 4.0
    code = folder / "deep" / "deep.py"
    code.write_text(code.read_text().replace("return batch, {}", "return -batch, {}"))
    edited = config.instantiate(config.compose(asked)).algorithm
    assert (edited.loss(None, 2.0)[0], first.loss(None, 2.0)[0]) == (-2.0, 2.0)


def test_files_that_plugins_share_are_one_after_an_edit(folder: Path) -> None:
    (folder / "shared.py").write_text("class Record:\n    kind = 1\n")
    for name in ("one", "two"):
        text = "from . import shared\n" + MINE.replace("Mine", name.title()).replace("data = Batch", "data = shared.Record")
        (folder / f"{name}.py").write_text(text)
    before = [Registry(folder).load("algorithm", name).data for name in ("one", "two")]
    (folder / "shared.py").write_text("class Record:\n    kind = 2\n")
    after = [Registry(folder).load("algorithm", name).data for name in ("one", "two")]
    assert before[0] is before[1] and after[0] is after[1]
    assert (before[0].kind, after[0].kind) == (1, 2)


def test_an_installed_plugin_found_in_its_own_folder_too_is_one() -> None:
    """Its author names the folder of what is installed in place."""
    registry = Registry(Path(__file__).parents[2] / "plugins")
    assert registry.get("algorithm", "dpo") == Registry().get("algorithm", "dpo")
    assert registry.get("algorithm", "cdpo").preset is not None
