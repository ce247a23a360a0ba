"""What a report says of reward models."""

from __future__ import annotations

import json
from pathlib import Path

from alignzoo.report.reliability import reliability
from alignzoo.report.report import main
from alignzoo.runs.results import find
from tests.report.runs import write_run


def judged(folder: Path, seed: int, bins: list[tuple[float, int, float, float]]) -> Path:
    """A run that compared: (low, count, confidence, accuracy) of each bin."""
    write_run(folder, "bradley_terry", seed, 0.5)
    rows = [{"low": low, "high": low + 0.05, "count": n, "confidence": c, "accuracy": a} for low, n, c, a in bins]
    (folder / "reliability.json").write_text(json.dumps({"step": 1, "bins": rows}))
    summary = json.loads((folder / "summary.json").read_text())
    summary["metrics"] |= {"accuracy": 0.5 + seed / 4, "accuracy_by_margin/1": 0.25, "length_correlation": -0.125}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_bins_of_several_runs_are_pooled_by_how_many_comparisons_they_have(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0, [(0.5, 1, 0.5, 1.0), (0.75, 2, 0.77, 0.5)])
    judged(tmp_path / "b", 1, [(0.5, 3, 0.54, 1 / 3)])
    found = reliability(find([tmp_path]).runs)
    assert found.index.tolist() == [0.5, 0.75]
    assert found[["count", "confidence", "accuracy"]].round(6).to_numpy().tolist() == [[4, 0.53, 0.5], [2, 0.77, 0.5]]


def test_the_page_has_the_diagram_and_the_measures_where_there_are_reward_models(tmp_path: Path) -> None:
    for seed in (0, 1):
        judged(tmp_path / "runs" / str(seed), seed, [(0.5, 1, 0.5, 1.0)])
    main([str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Right when it is sure?" in text and (tmp_path / "report" / "plots" / "reliability.svg").is_file()
    assert "| accuracy | 0.625 |" in text and "| correlation of score and length | -0.125 |" in text
    write_run(tmp_path / "others" / "0", "ppo", 0, 0.5)
    main([str(tmp_path / "others"), "--out", str(tmp_path / "none")])
    assert "Right when" not in (tmp_path / "none" / "report.md").read_text()
