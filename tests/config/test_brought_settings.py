"""Settings that a plugin brings for an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.config.composition import compose, load_run
from alignzoo.config.registry import Registry

MINE = """\"\"\"A local plugin.\"\"\"
from dataclasses import dataclass
from alignzoo_plugins.dpo.dpo import DPO

@dataclass(kw_only=True)
class Mine(DPO):
    \"\"\"Mine.\"\"\"
"""
EXACT = """# @package _global_
defaults:
  - exact/dpo
algorithm:
  beta: 0.25
trainer:
  learning_rate: 3e-3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """mine with settings, and a preset of it; bare without a folder of its own, so that what lies beside it is nobody's."""
    (tmp_path / "mine" / "presets").mkdir(parents=True)
    (tmp_path / "mine" / "mine.py").write_text(MINE)
    (tmp_path / "mine" / "exact.yaml").write_text(EXACT)
    (tmp_path / "mine" / "presets" / "mine_smooth.yaml").write_text(
        "# Smooth\ndefaults: [mine, _self_]\nlabel_smoothing: 0.1\n"
    )
    (tmp_path / "bare.py").write_text(MINE.replace("Mine", "Bare"))
    (tmp_path / "exact.yaml").write_text(EXACT)
    return tmp_path


def test_a_plugins_settings_act_in_its_experiment_alone(folder: Path) -> None:
    """On top of those of dpo, which they name: its 51,200 rows."""
    local = [f"plugins_dir={folder}"]
    for name in ("mine", "mine_smooth"):
        cfg = compose([*local, f"algorithm={name}", "experiment=exact"])
        assert (cfg.algorithm.beta, cfg.trainer.learning_rate, cfg.choices.settings) == (0.25, 3e-3, f"exact/{name}")
        assert cfg.data.rows == compose(["algorithm=dpo", "experiment=exact"]).data.rows
    assert compose([*local, "algorithm=mine_smooth", "experiment=exact"]).algorithm.label_smoothing == 0.1
    assert compose([*local, "algorithm=mine", "experiment=exact", "algorithm.beta=2"]).algorithm.beta == 2
    alone = compose([*local, "algorithm=mine"])
    assert alone.trainer.learning_rate == compose(["algorithm=dpo"]).trainer.learning_rate and "settings" not in alone.choices


def test_who_has_no_settings_is_known(folder: Path) -> None:
    for name in ("bare", "gspo"):
        cfg = compose([f"plugins_dir={folder}", f"algorithm={name}", "experiment=exact"])
        assert cfg.choices.settings is None and cfg.trainer.learning_rate == compose(["algorithm=dpo"]).trainer.learning_rate
    assert compose(["algorithm=ppo", "experiment=exact"]).choices.settings == "exact/ppo"
    registry = Registry(folder)
    assert registry.settings("exact", "mine") == folder / "mine" / "exact.yaml"
    assert (registry.settings("truthfulqa", "mine"), registry.settings("exact", "bare")) == (None, None)


def test_a_run_is_read_again_with_what_it_was_started_with(folder: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    cfg = compose([f"plugins_dir={folder}", "algorithm=mine", "experiment=exact"])
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    again = load_run(tmp_path, trust=True)
    assert (again.algorithm.beta, again.choices.settings) == (0.25, "exact/mine")
