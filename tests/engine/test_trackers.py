"""TensorBoard by option: training and evaluation rows, in the run's folder."""

from __future__ import annotations

import json

import pytest

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
