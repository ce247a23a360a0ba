"""Completions side by side: which rows are shown, beside which reference, and with which scores."""

import json
from pathlib import Path
from typing import Any

from alignzoo.report.side_by_side import side_by_side
from alignzoo.runs.results import Run


def written(folder: Path, label: str, rows: list[dict[str, Any]], **summary: Any) -> Run:
    folder.mkdir()
    (folder / "completions.jsonl").write_text("".join(json.dumps({"prompt": "once", **row}) + "\n" for row in rows))
    return Run(folder, {"label": label}, {"algorithm": label, "seed": 0, **summary}, {}, label=label)


def test_the_reference_comes_first_where_all_have_the_same(tmp_path: Path) -> None:
    common = {"step": 9, "reference": "upon", "reference_gold": 0.25}
    one = written(tmp_path / "one", "one", [{**common, "completion": "more", "reward": 0.5, "gold": 0.125}])
    two = written(tmp_path / "two", "two", [{**common, "completion": "less", "reward": None, "gold": -1.0}])
    _, (sample,) = side_by_side([one, two])
    assert sample.answers == [
        ("reference", "upon", "gold 0.25"), ("one", "more", "reward 0.5, gold 0.125"), ("two", "less", "gold -1"),
    ]  # fmt: skip
    other = written(tmp_path / "other", "two", [{**common, "completion": "less", "reference": "another"}])
    assert [label for label, *_ in side_by_side([one, other])[1][0].answers] == ["one", "two"]


def test_a_reward_alone_is_not_named(tmp_path: Path) -> None:
    row = {"step": 9, "completion": "more", "reward": 0.5, "reference": "upon", "reference_reward": 2.0}
    _, (sample,) = side_by_side([written(tmp_path / "one", "one", [row])])
    assert sample.answers == [("reference", "upon", "2"), ("one", "more", "0.5")]
    _, (sample,) = side_by_side([written(tmp_path / "bare", "one", [{"step": 0, "completion": "more"}])])
    assert sample.answers == [("one", "more", "")]


def test_the_completions_are_those_of_the_weights_that_were_kept(tmp_path: Path) -> None:
    rows = [{"step": step, "completion": f"after {step}"} for step in (0, 10, 20)]
    stopped = written(tmp_path / "one", "one", rows, early_stop={"weights_of_step": 10})
    assert side_by_side([stopped])[1][0].answers == [("one", "after 10", "")]
    assert side_by_side([written(tmp_path / "two", "two", rows)])[1][0].answers == [("two", "after 20", "")]
