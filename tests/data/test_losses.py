"""What is cut and dropped is told in one line."""

import json
import logging

from alignzoo.batch import Completions
from alignzoo.data.mixture import Mixture
from alignzoo.data.source import Unusable


def test_what_was_cut_and_dropped_is_told_in_one_line(source, context, caplog):
    rows = [{"prompt": f"abcdef{i}", "completion": "ghi"} for i in range(2)] + [{"prompt": "a", "completion": " "}]
    settings = {"max_prompt_tokens": 4, "unusable": Unusable.drop}
    source(rows, **settings).tables(Completions, context)
    source(rows[:1], max_completion_tokens=2).tables(Completions, context)
    source(rows[:1]).tables(Completions, context)
    assert caplog.record_tuples == [
        ("alignzoo", logging.WARNING, "data: 1 unusable row dropped, 2 prompts cut to data.max_prompt_tokens=4"),
        ("alignzoo", logging.WARNING, "data: 1 completion cut to data.max_completion_tokens=2"),
    ]


def test_what_a_source_of_a_mixture_dropped_is_told(tmp_path, context, caplog):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": "p", "completion": text}) + "\n" for text in ("c", "")))
    part = {"kind": "jsonl", "path": str(tmp_path / "a.jsonl"), "unusable": "drop", "heldout": 0.0}
    Mixture(sources={"a": part}).tables(Completions, context)
    assert caplog.messages == ["data: 1 unusable row dropped"]
