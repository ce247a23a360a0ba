"""TensorBoard by option: training and evaluation rows, in the run's folder."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from alignzoo.engine.callbacks import Settings
from alignzoo.settings import UserError
from alignzoo.testing import toys
from alignzoo_plugins.sft.sft import SFT


def test_tensorboard_holds_what_metrics_jsonl_holds(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    toys.trainer(toys.setup(SFT(), training={"trackers": ["tensorboard"]}), tmp_path).train()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    seen = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert seen == [(row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows if "loss" in row]
    assert events.Scalars("eval/length")[-1].value == pytest.approx(rows[-1]["eval/length"])


def test_an_unknown_tracker_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"trainer.trackers=\['tensorbord'\]"):
        toys.trainer(toys.setup(SFT(), training={"trackers": ["tensorbord"]}), tmp_path)


def test_trackers_that_keep_settings_get_those_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("algorithm: {beta: 0.2}\nseed: 3\n")
    wandb, mlflow = {}, {}
    keep = SimpleNamespace(update=lambda settings, allow_val_change: wandb.update(settings))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(config=keep))
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(log_dict=lambda settings, name: mlflow.update({name: settings})))
    state = SimpleNamespace(is_world_process_zero=True)
    Settings(tmp_path).on_train_begin(SimpleNamespace(report_to=["wandb", "mlflow"]), state, None)
    assert wandb == {"algorithm": {"beta": 0.2}, "seed": 3} == mlflow["config.yaml"]
    Settings(tmp_path / "none").on_train_begin(SimpleNamespace(report_to=[]), state, None)
