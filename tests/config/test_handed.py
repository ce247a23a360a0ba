"""Algorithms handed to `train` and `compose` as classes or instances, as in a notebook."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alignzoo import UserError, compose, instantiate, train
from alignzoo.batch import Completions
from alignzoo.config import handed
from alignzoo.contracts import Algorithm, Kind, Role, require
from alignzoo_plugins.dpo.dpo import DPO

SMALL = ["data=exact", "data.prompts=4", "data.rows=16", "trainer.max_steps=1", "trainer.batch=4", "trainer.eval_prompts=2"]
TEXT = """
from dataclasses import dataclass
from alignzoo import Algorithm, Completions, Kind, Role

@dataclass(kw_only=True)
class Edited(Algorithm):
    data = Completions
    scale: float = 1.0

    def roles(self):
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def loss(self, models, batch):
        return -self.scale * models.policy.logprobs(batch), {}
"""


@dataclass(kw_only=True)
class ScaledNLL(Algorithm):
    """Likelihood, times something."""

    data = Completions
    scale: float = field(default=1.0, metadata={"help": "of the loss"})

    def __post_init__(self) -> None:
        require(self.scale > 0, "algorithm.scale", self.scale, "> 0")

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def loss(self, models: Any, batch: Completions) -> Any:
        return -self.scale * models.policy.logprobs(batch), {}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed, "_by_name", {})


def test_a_class_trains_under_its_name(tmp_path: Path) -> None:
    summary = train([*SMALL, f"run_dir={tmp_path}/r"], algorithm=ScaledNLL)
    assert summary["status"] == "finished" and summary["algorithm"] == "scaled_nll"
    again = compose([f"resume={tmp_path}/r"], algorithm=ScaledNLL)
    assert again.choices.algorithm == "scaled_nll"


def test_an_instances_values_are_defaults() -> None:
    run = instantiate(compose(SMALL, algorithm=ScaledNLL(scale=3.0)))
    assert run.algorithm == ScaledNLL(scale=3.0)
    over = instantiate(compose([*SMALL, "algorithm.scale=2"], algorithm=ScaledNLL(scale=3.0)))
    assert over.algorithm == ScaledNLL(scale=2.0)
    with pytest.raises(UserError, match=r"no key 'algorithm\.scaled'\. Did you mean 'scale'"):
        compose([*SMALL, "algorithm.scaled=2"], algorithm=ScaledNLL)


def test_one_of_the_zoo_keeps_its_name() -> None:
    cfg = compose(SMALL, algorithm=DPO(beta=0.7))
    assert cfg.choices.algorithm == "dpo" and cfg.algorithm.beta == 0.7
    assert compose(["algorithm=dpo"]).algorithm.beta == 0.1, "its values were for that config alone"


def test_what_is_ambiguous_is_refused() -> None:
    with pytest.raises(UserError, match="another is handed over"):
        compose(["algorithm=dpo"], algorithm=ScaledNLL)
    with pytest.raises(UserError, match="not with a config"):
        train(compose(["algorithm=dpo"]), algorithm=ScaledNLL)
    with pytest.raises(UserError, match="would be called dpo, as one that there is"):
        compose(SMALL, algorithm=type("DPO", (ScaledNLL,), {}))
    with pytest.raises(UserError, match=r"'int' \(this session\) names builtins:int, which is no dataclass"):
        compose(SMALL, algorithm=3)
    with pytest.raises(UserError, match=r"algorithm='dpo' is a name: add 'algorithm=dpo' to the overrides"):
        compose(SMALL, algorithm="dpo")
    with pytest.raises(UserError, match=r"overrides='algorithm=dpo' is a text: give a list"):
        compose("algorithm=dpo")
    assert handed.names() == []


def test_an_edited_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "notebook_helpers.py"
    file.write_text(TEXT)
    cls = importlib.import_module("notebook_helpers").Edited
    assert compose(SMALL, algorithm=cls).algorithm.scale == 1.0
    file.write_text(TEXT.replace("scale: float = 1.0", "scale: float = 5.0\n    more: int = 2"))
    assert compose(SMALL, algorithm=cls).algorithm == {"scale": 5.0, "more": 2}
    assert compose(SMALL, algorithm=cls(scale=0.5)).algorithm == {"scale": 0.5, "more": 2}
    del sys.modules["notebook_helpers"]
